"""What ranks do in tests: one step of an objective on the documents a rank holds."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from helpers import Doc, batch_for, build, documents, gradients, pairs
from torch import Tensor
from torch import distributed as dist

from data.batch import Batch
from objectives.base import Objective
from objectives.functional import means, total
from objectives.registry import get

OPTIONS = {"beit3": {"target": "rpq_random"}}  # the default's codebook is fitted before training
SHARES = {  # how many of eight documents each rank holds; the first text of `documents` is the third of four
    "5-3": (slice(0, 5), slice(5, 8)),
    "8-0": (slice(0, 8), slice(8, 8)),  # a rank that holds nothing
    "3-0-5": (slice(0, 3), slice(3, 3), slice(3, 8)),
    "2-1-5": (slice(0, 2), slice(2, 3), slice(3, 8)),  # of documents, the second rank holds text alone
}

Found = dict[str, dict[str, Tensor] | Tensor]


def held(name: str) -> list[Doc]:
    """Eight documents that an objective reads, with texts and images of every number."""
    return documents(copies=2) if get(name).reads == "documents" else pairs(8)


def wide(batch: Batch, dtype: torch.dtype) -> Batch:
    return replace(batch, images=batch.images.to(dtype))


def step(of: Objective, batch: Batch) -> Found:
    """Losses and all gradients of one batch, as this rank has them."""
    losses = of(batch)
    loss = total(losses)
    return {"loss": loss.detach(), "gradients": gradients(of, loss), "means": means(losses)}


def objective(name: str, dtype: torch.dtype) -> Objective:
    """In a dtype, past its first three steps, without which Flamingo's closed gates would hide what is behind them."""
    of = build(name, **OPTIONS.get(name, {}))
    with torch.no_grad():
        for parameter in of.parameters():
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
            parameter.data = (parameter + 0.02 * noise).to(dtype)
    return of  # its buffers are what BEiT-3 predicts, which stays as it is


def averaged(found: Found) -> Found:
    """Data parallelism: losses and gradients are means over ranks; the logged means are global already."""
    for x in (found["loss"], *found["gradients"].values()):
        dist.all_reduce(x)
        x /= dist.get_world_size()
    return found


def share(rank: int, world: int, names: Sequence[str], dtype: torch.dtype) -> dict[str, dict[str, Found]]:
    """One step of every objective under each division of its documents over so many ranks."""
    return {
        name: {
            division: averaged(step(of, wide(batch_for(of, held(name)[slices[rank]]), dtype)))
            for division, slices in SHARES.items()
            if len(slices) == world
        }
        for name in names
        for of in [objective(name, dtype)]
    }
