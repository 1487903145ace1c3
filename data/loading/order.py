"""In which order an epoch reads a corpus: a function of (seed, epoch), so that a position is all there is to remember.

A corpus that can be read anywhere at no cost is permuted whole. One of too many shards is read in windows: the shards
in random order, so many at a time, the documents of those permuted. Then every shard is opened once an epoch, what has
to be held is a window, and no order is longer than that. The rule: `window` of the corpus (our choice).
"""

from collections.abc import Sequence

import numpy as np

from data.document import Corpus, Sharded
from data.seeds import generator


class Shuffled:
    """One permutation an epoch."""

    name = "shuffled"

    def __init__(self, documents: int, seed: int) -> None:
        self._documents, self._seed = documents, seed
        self._held: tuple[int, np.ndarray] | None = None

    def index(self, epoch: int, at: int) -> int:
        """The entry of the corpus that is read at position `at` of an epoch."""
        if self._held is None or self._held[0] != epoch:
            self._held = epoch, generator(self._seed, "order", epoch).permutation(self._documents)
        return int(self._held[1][at])

    def home(self, epoch: int, at: int) -> int:
        """Equal for what one reader had better read: an entry, which it may have kept since the last epoch."""
        return self.index(epoch, at)

    @property
    def readers(self) -> int:
        """How many readers there is work for."""
        return self._documents


class Windows:
    """Shards permuted, then the documents of so many of them at a time."""

    def __init__(self, sizes: Sequence[int], window: int, seed: int) -> None:
        """sizes: documents of each shard; window: shards read together."""
        self.name = f"windows of {window} shards"
        self._window, self._seed = window, seed
        self._sizes = np.asarray(sizes, np.int64)
        self._first = np.cumsum(self._sizes) - self._sizes  # entry of the corpus at which each shard begins
        self._ends = np.cumsum(self._sizes)
        self._place: tuple[int, np.ndarray] | None = None  # epoch, place of each shard in it
        self._shards: tuple[int, np.ndarray, np.ndarray] | None = None  # epoch, shards in order, where windows end
        self._held: tuple[int, int, np.ndarray] | None = None  # epoch, window, entries in order

    def index(self, epoch: int, at: int) -> int:
        """The entry of the corpus that is read at position `at` of an epoch."""
        if self._shards is None or self._shards[0] != epoch:
            shards = generator(self._seed, "shards", epoch).permutation(len(self._sizes))
            ends = np.add.reduceat(self._sizes[shards], np.arange(0, len(shards), self._window)).cumsum()
            self._shards = epoch, shards, ends
        _, shards, ends = self._shards
        number = int(np.searchsorted(ends, at, side="right"))
        if self._held is None or self._held[:2] != (epoch, number):
            chosen = shards[number * self._window : (number + 1) * self._window]
            entries = np.concatenate([np.arange(self._first[s], self._first[s] + self._sizes[s]) for s in chosen])
            self._held = epoch, number, generator(self._seed, "window", epoch, number).permutation(entries)
        start = int(ends[number - 1]) if number else 0
        return int(self._held[2][at - start])

    def home(self, epoch: int, at: int) -> int:
        """Equal for what one reader had better read: the documents of a shard, which it holds open or unpacked."""
        shard = int(np.searchsorted(self._ends, self.index(epoch, at), side="right"))
        if self._place is None or self._place[0] != epoch:
            assert self._shards is not None  # of this epoch, since `index` was asked
            self._place = epoch, np.argsort(self._shards[1])
        return int(self._place[1][shard])  # its place in the epoch: those of a window are spread evenly over readers

    @property
    def readers(self) -> int:
        """How many readers there is work for: one opens a shard, and a window is read at a time."""
        return min(self._window, len(self._sizes))


def order_of(corpus: Corpus, seed: int) -> Shuffled | Windows:
    """The order in which a corpus is read."""
    if isinstance(corpus, Sharded) and corpus.window is not None:
        return Windows(corpus.shard_sizes, corpus.window, seed)
    return Shuffled(len(corpus), seed)


def too_many_readers(order: Shuffled | Windows, workers: int, ranks: int = 1) -> str | None:
    """What to say where some of the readers would never get anything to read; None where all of them do.

    workers: processes that read for each rank; 0 is the rank itself.
    """
    readers, work = ranks * max(1, workers), order.readers
    if readers == 1 or readers <= work:
        return None
    read = f"in {order.name}, each shard by one reader" if isinstance(order, Windows) else "entry by entry"
    advice = f"set data.workers to at most {work // ranks}" if work >= ranks else f"use at most {work} ranks"
    return (
        f"data.workers={workers} on {ranks} ranks makes {readers} readers, but it is read {read}, which is work for "
        f"{work}; {advice}"
    )
