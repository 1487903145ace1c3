"""Collectives over ranks that hold different numbers of rows, with the gradient of a sum over ranks.

Source: OpenGVLab/LCL and mlfoundations/open_clip, `src/open_clip/loss.py`, gather with gradient, there for equal or
padded counts. Without a process group every function is the one-rank case of the same code.

Shape letters: r rows on this rank, n rows on all ranks, d width.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Shaped
from torch import Tensor
from torch import distributed as dist

_alone = False  # of this process


class Part(ABC):
    """A part of a rank's batch that is computed by itself (objectives/parts.py)."""

    @abstractmethod
    def gather(self, x: Tensor) -> tuple[Tensor, int]:
        """What `gather_rows` gives, of all parts of all ranks."""

    @abstractmethod
    def contrast(self, v: Tensor, t: Tensor, scale: Tensor, groups: Tensor | None, smoothing: float) -> Any:
        """What `info_nce` gives."""


_part: ContextVar[Part | None] = ContextVar("part", default=None)  # of this thread


@contextmanager
def in_part(part: Part) -> Iterator[None]:
    """Inside, what is computed is that part of a batch."""
    before = _part.set(part)
    try:
        yield
    finally:
        _part.reset(before)


def current_part() -> Part | None:
    """The part that is computed; None for a batch as a whole."""
    return _part.get()


@contextmanager
def alone() -> Iterator[None]:
    """Inside, this process is the only rank: for what every rank does with the same data, such as probes."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    grouped = dist.is_available() and dist.is_initialized() and not _alone
    return dist.get_world_size() if grouped else 1


def rank() -> int:
    """This process's place among the ranks, 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def all_reduce_sum(x: Tensor) -> Tensor:
    """Sum over ranks, outside the graph, in a new tensor."""
    total = x.detach().clone()
    if world_size() > 1:
        dist.all_reduce(total)
    return total


def gather_rows(x: Shaped[Tensor, "r *d"]) -> tuple[Shaped[Tensor, "n *d"], int]:
    """Rows of all ranks in rank order, and the index of this rank's first row among them.

    Every rank must call it, also with no rows. Gradients of all ranks' uses flow back to the rank that owns the row.
    """
    part = current_part()
    if part is not None:
        return part.gather(x)
    if world_size() == 1:
        return x, 0
    counts = [torch.zeros(1, dtype=torch.int64, device=x.device) for _ in range(world_size())]
    dist.all_gather(counts, torch.tensor([len(x)], device=x.device))
    sizes = [int(count) for count in counts]
    padded = torch.cat([x, x.new_zeros(max(sizes) - len(x), *x.shape[1:])])
    everyone = _AllGather.apply(padded)
    return torch.cat([everyone[r, :size] for r, size in enumerate(sizes)]), sum(sizes[: rank()])


class _AllGather(torch.autograd.Function):
    """[w, r, ...] of all ranks' equal-sized [r, ...]; backward sums over ranks what each asks of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        everyone = x.new_empty(world_size() * len(x), *x.shape[1:])
        dist.all_gather_into_tensor(everyone, x.contiguous())
        return everyone.view(world_size(), *x.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        own = grad.new_empty(grad.shape[1:])
        dist.reduce_scatter_tensor(own, grad.flatten(0, 1).contiguous())
        return own
