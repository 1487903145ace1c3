"""What all runs that train share: where, in which precision, with which optimiser."""

from typing import Literal

import torch

from experiments.configuration.config import OptimConfig
from experiments.running.fit import Optimisation, Precision
from experiments.running.optim import Group, parameter_groups


def device() -> str:
    """Where runs train."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def decided(precision: Literal["auto", "bf16", "fp32"]) -> Precision:
    """A run's precision is part of its name, hence decided before. Raises ValueError for "auto"."""
    if precision == "auto":
        raise ValueError("a run's precision is decided before the run is named, got 'auto'; plan it again")
    return precision


def groups_of(module: torch.nn.Module, optim: OptimConfig) -> list[Group]:
    """The trained parameters of a run under its optimiser settings."""
    return parameter_groups(module, lr=optim.lr, weight_decay=optim.weight_decay, matrices=optim.matrices)


def optimisation_of(optim: OptimConfig) -> Optimisation:
    """Schedule and optimiser of a run for `fit`."""
    return Optimisation(
        warmup_steps=optim.warmup_steps,
        betas=optim.betas,
        eps=optim.eps,
        clip_norm=optim.clip_norm,
        precision=decided(optim.precision),
    )
