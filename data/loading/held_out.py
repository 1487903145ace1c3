"""A few documents of a corpus that no run trains on, so that probes of a run see pictures it never saw (our choice).

They are drawn by the number of documents alone: every seed and every row on a corpus holds out the same ones. Pairs are
views of documents, so a held-out document takes all of its pairs with it, and what a probe shows to a row of pairs is
in no training of a row of documents either. A folder of pairs of its own knows no documents; there a pair is one.
"""

import hashlib
from functools import cached_property

import numpy as np

from data.document import Bad, Corpus, RawDocument, Sharded
from data.readers.mmc4_pair import Mmc4Pairs
from data.seeds import generator

MOST = 128  # documents, enough for one probe of about as many pictures
SHARE = 20  # never more than one document in so many; a smaller corpus holds out none
CHUNK = 1 << 20  # entries hashed at a time


class Subset:
    """Some entries of a corpus as a corpus, in the order given."""

    def __init__(self, corpus: Corpus, indices: np.ndarray) -> None:
        """indices: [n] entries of the corpus."""
        self.name = corpus.name
        self.digest = hashlib.sha256(corpus.digest.encode() + indices.astype("<i8").tobytes()).hexdigest()[:16]
        self._corpus, self._indices = corpus, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The entry at `index` of the subset."""
        return self._corpus[int(self._indices[index])]


class Rest:
    """All entries of a corpus but a few, in its order; a corpus of a hundred million takes no more room than those."""

    def __init__(self, corpus: Corpus, without: np.ndarray) -> None:
        """without: [n] entries left out, ascending."""
        self.name = corpus.name
        self._corpus, self._without = corpus, without
        self._before = without - np.arange(len(without))  # entries kept before each one left out

    def __len__(self) -> int:
        return len(self._corpus) - len(self._without)

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The entry at `index` of what is kept."""
        return self._corpus[index + int(np.searchsorted(self._before, index, side="right"))]

    @cached_property
    def digest(self) -> str:
        """As of a `Subset` of the same entries."""
        found = hashlib.sha256(self._corpus.digest.encode())
        for start in range(0, len(self._corpus), CHUNK):
            entries = np.arange(start, min(start + CHUNK, len(self._corpus)))
            found.update(np.setdiff1d(entries, self._without, assume_unique=True).astype("<i8").tobytes())
        return found.hexdigest()[:16]

    @property
    def window(self) -> int | None:
        """As of the corpus."""
        return self._corpus.window if isinstance(self._corpus, Sharded) else None

    @cached_property
    def shard_sizes(self) -> tuple[int, ...]:
        """Entries kept of each shard."""
        sizes = np.array(self._corpus.shard_sizes if isinstance(self._corpus, Sharded) else [len(self._corpus)])
        shard = np.searchsorted(np.cumsum(sizes), self._without, side="right")
        return tuple((sizes - np.bincount(shard, minlength=len(sizes))).tolist())


def split(corpus: Corpus) -> tuple[Rest, Subset]:
    """What runs train on, and what is held out for probes; the second is empty where there are too few documents."""
    documents = corpus.documents if isinstance(corpus, Mmc4Pairs) else len(corpus)
    chosen = generator("held out", documents).choice(documents, min(MOST, documents // SHARE), replace=False)
    held = np.sort(chosen)
    if isinstance(corpus, Mmc4Pairs):
        held = np.flatnonzero(np.isin(corpus.document, chosen))
    return Rest(corpus, held), Subset(corpus, held)
