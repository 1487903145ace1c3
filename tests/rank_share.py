"""A rank's block of a batch that every rank made whole, so that all blocks together are the batch.

In production the loader gives each rank its share (data/loading/ranks.py); here batches are made by hand.
"""

from collections.abc import Iterator
from typing import Any

from data.batch import Batch
from data.block import block
from experiments.running.fit import Stream
from objectives.gather import rank, world_size


class Shared:
    """A stream of batches, of which each rank gets its block of documents. Its `state()` is that of all ranks."""

    def __init__(self, whole: Stream) -> None:
        self.whole, self.steps = whole, whole.steps

    def state(self) -> Any:
        """Where the whole stream stands."""
        return self.whole.state()

    def batches(self, start: Any = 0) -> Iterator[Batch]:
        """This rank's blocks, the batches themselves where there is one rank."""
        for batch in self.whole.batches(start):
            yield block(batch, rank(), world_size())
