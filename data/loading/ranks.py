"""Which of the processes that train together this one is, and what all of them say to one another."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from torch import distributed as dist

T = TypeVar("T")
_whole = False  # of this process


@contextmanager
def whole() -> Iterator[None]:
    """Inside, this process reads all documents, as the only rank: for what one rank does for all."""
    global _whole
    before, _whole = _whole, True
    try:
        yield
    finally:
        _whole = before


def rank() -> tuple[int, int]:
    """(number of this process, how many there are); (0, 1) without a process group, and inside `whole`."""
    if _whole or not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def told_by_all(value: T) -> list[T]:
    """The values of all ranks, in their order. Every rank must call it."""
    heard: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(heard, value)
    return cast(list[T], heard)
