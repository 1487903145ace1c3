"""What ranks do in tests of batches in parts: one step of an objective, by blocks of the documents of a rank."""

import torch
from helpers import batch_for
from rank_steps import Found, averaged, held, objective, wide
from torch import Tensor

from data.batch import Batch
from data.block import block, blocks_needed
from objectives import parts
from objectives.base import Objective
from objectives.functional import means, total


def in_parts(of: Objective, batch: Batch, documents: int) -> Found:
    """A step as `step` has it, by blocks of documents."""
    of.zero_grad(set_to_none=True)
    count = blocks_needed(batch, documents)
    losses = parts.backward(count, lambda part: of(block(batch, part, count)))
    return {"loss": total(losses).detach(), "gradients": _gradients(of), "means": means(losses)}


def share_in_parts(rank: int, world: int, name: str, documents: int) -> Found:
    of = objective(name, torch.float64)
    whole = wide(batch_for(of, held(name)), torch.float64)
    return averaged(in_parts(of, block(whole, rank, world), documents))


def _gradients(of: Objective) -> dict[str, Tensor]:
    held = {name: p for name, p in of.named_parameters() if p.requires_grad}
    return {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in held.items()}
