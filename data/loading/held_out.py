"""A few documents of a corpus that no run trains on, so that probes of a run see pictures it never saw (our choice).

They are drawn by the number of documents alone: every seed and every row on a corpus holds out the same ones. Pairs are
views of documents, so a held-out document takes all of its pairs with it, and what a probe shows to a row of pairs is
in no training of a row of documents either. A folder of pairs of its own knows no documents; there a pair is one.
"""

import hashlib

import numpy as np

from data.document import Bad, Corpus, RawDocument
from data.readers.mmc4_pair import Mmc4Pairs
from data.seeds import generator

MOST = 128  # documents, enough for one probe of about as many pictures
SHARE = 20  # never more than one document in so many; a smaller corpus holds out none


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


def split(corpus: Corpus) -> tuple[Subset, Subset]:
    """What runs train on, and what is held out for probes; the second is empty where there are too few documents."""
    if isinstance(corpus, Mmc4Pairs):
        documents, document = corpus.documents, corpus.document
    else:
        documents, document = len(corpus), np.arange(len(corpus))
    chosen = generator("held out", documents).choice(documents, min(MOST, documents // SHARE), replace=False)
    held = np.isin(document, chosen)
    return Subset(corpus, np.flatnonzero(~held)), Subset(corpus, np.flatnonzero(held))
