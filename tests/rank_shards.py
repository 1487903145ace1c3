"""What ranks do in tests of sharded weights: one step of an objective whose blocks FSDP2 has sharded."""

from collections.abc import Sequence
from typing import get_args

import torch
from helpers import batch_for
from rank_steps import SHARES, Found, held, objective, wide
from torch import distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from experiments.configuration.distributed import Strategy
from experiments.running import fit
from experiments.running.distributed import gradients, sharding
from objectives.functional import means


def share_sharded(
    rank: int, world: int, names: Sequence[str], micro_batch: int | None = None
) -> dict[str, dict[str, Found]]:
    """One step of every objective in float64 under each division of its documents over so many ranks."""
    found: dict[str, dict[str, Found]] = {name: {} for name in names}
    for name in names:
        of = objective(name, torch.float64)
        sharding.shard(of)
        kept = {key: p.to_local().numel() for key, p in of.named_parameters() if isinstance(p, DTensor)}
        parts = [torch.tensor(0) for _ in range(world)]
        dist.all_gather(parts, torch.tensor(sum(kept.values())))
        blocks = sum(p.numel() for block in of.blocks for p in block.parameters())
        assert sum(parts) == blocks and max(parts) < 1.1 * blocks / world
        parameters = {key: parameter for key, parameter in of.named_parameters() if parameter.requires_grad}
        for division, slices in SHARES.items():
            if len(slices) == world:
                of.zero_grad(set_to_none=True)
                batch = wide(batch_for(of, held(name)[slices[rank]]), torch.float64)
                losses, loss = fit._backward(of, batch, "fp32", micro_batch)
                gradients.average(parameters.values())
                shown = loss.detach() / world
                dist.all_reduce(shown)
                held_whole = {key: whole_gradient(parameter) for key, parameter in parameters.items()}
                found[name][division] = {"loss": shown, "means": means(losses), "gradients": held_whole}
    return found


def in_bf16(rank: int, world: int, name: str) -> list[dict[str, torch.Tensor]]:
    """Gradients of a step under autocast, of weights that are whole and of the same in shards."""
    found = []
    for strategy in get_args(Strategy):
        of = objective(name, torch.float32)
        if strategy == "fsdp2":
            sharding.shard(of)
        fit._backward(of, batch_for(of, held(name)[SHARES["5-3"][rank]]), "bf16", None)
        gradients.average(of.parameters())
        found.append({key: whole_gradient(parameter) for key, parameter in of.named_parameters()})
    return found


def whole_gradient(parameter: nn.Parameter) -> torch.Tensor:
    """Zeros where there is none; every rank must call it."""
    grad = parameter.grad
    if grad is None:
        return torch.zeros(parameter.shape, dtype=parameter.dtype)
    return grad.full_tensor() if isinstance(grad, DTensor) else grad.clone()
