"""What all runs that train share: where, in which precision, with which optimiser."""

from typing import Literal

import torch

from experiments.configuration.config import OptimConfig
from experiments.running.fit import Optimisation, Precision
from experiments.running.hardware import best_precision
from experiments.running.optim import Group, parameter_groups


def device() -> str:
    """Where runs train."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolved(precision: Literal["auto", "bf16", "fp32"]) -> Precision:
    """A sweep decides "auto" before it plans; a spec made elsewhere may still hold it."""
    return best_precision() if precision == "auto" else precision


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
        precision=resolved(optim.precision),
    )
