"""Which parameters train with which optimiser and which of them decay; both optimisers are torch's own.

AdamW for everything (LCL paper, Tables 7 and 9), or Muon (Jordan et al. 2024) for the matrices of linear layers and
AdamW at the same peak rate for the rest: embeddings, of which the tied head is one, the patch convolution, vectors,
learned queries and positions, scalars. A fused qkv is one matrix. Muon's rate is rescaled so that its updates are as
large as AdamW's (Liu et al. 2025), so one peak rate and one weight decay serve both.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypedDict

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from backbones.kinds import matrices as linear_maps
from backbones.kinds import weights
from experiments.configuration.config import Algorithm


class Group(TypedDict):
    """Parameters with one algorithm, one peak rate and one weight decay, as torch's optimisers take them."""

    params: list[nn.Parameter]
    algorithm: Algorithm
    peak: float
    weight_decay: float


def parameter_groups(module: nn.Module, *, lr: float, weight_decay: float, matrices: Algorithm) -> list[Group]:
    """All trainable parameters, each in exactly one group.

    matrices: trains the weights of linear layers; everything else trains with AdamW. A weight that an embedding holds
    as well (a tied head) counts as an embedding.
    """
    decayed, linear = weights(module), linear_maps(module)
    groups: dict[tuple[Algorithm, bool, bool], list[nn.Parameter]] = {}
    for parameter in module.parameters():
        if parameter.requires_grad:
            algorithm: Algorithm = matrices if id(parameter) in linear else "adamw"
            # torch's optimisers take many parameters at once, all of them sharded or none.
            group = (algorithm, id(parameter) in decayed, isinstance(parameter, DTensor))
            groups.setdefault(group, []).append(parameter)
    return [
        {"params": params, "algorithm": algorithm, "peak": lr, "weight_decay": weight_decay if decays else 0.0}
        for (algorithm, decays, _), params in groups.items()
    ]


def optimizers(groups: Sequence[Group], betas: tuple[float, float], eps: float) -> list[Optimizer]:
    """One optimiser for each algorithm that the groups name; `betas` and `eps` are AdamW's, Muon keeps torch's own."""
    makers: Mapping[Algorithm, Callable[[Iterable[dict[str, object]]], Optimizer]] = {
        "adamw": lambda own: torch.optim.AdamW(own, betas=betas, eps=eps, fused=True),
        "muon": lambda own: torch.optim.Muon(own, adjust_lr_fn="match_rms_adamw"),
    }
    return [
        make(own)
        for algorithm, make in makers.items()
        if (own := [dict(group) for group in groups if group["algorithm"] == algorithm])
    ]
