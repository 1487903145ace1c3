"""MMC4's matching of images with sentences, made again: the optimum of the similarities that a document brings along.

The published `matched_text_index` is the optimum over all images a page once had (allenai/mmc4,
scripts/compute_assignments.py). Of those many are gone by now, and a sentence that a lost image held can go to another:
mlfoundations/open_flamingo (train/data.py) therefore matches what is there, and so does this. Where a document has more
images than sentences, those without one of their own get the most similar. Blank sentences get none.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from data.document import Bad, Cause, RawDocument
from data.files import is_there
from data.readers.mmc4 import Mmc4Corpus
from data.readers.mmc4_record import finite
from data.readers.mmc4_tars import Mmc4TarCorpus

WORST = -1.0  # a cosine is no less; stands for what is no number


class Rematched:
    """Documents with their images matched again; a document without a matrix keeps what was published."""

    def __init__(self, corpus: Mmc4Corpus | Mmc4TarCorpus, wanted: float | None = None) -> None:
        """wanted: similarity from which an image that is gone counts as missing; None: each does."""
        self.name = corpus.name
        self.wanted = wanted
        self.digest = hashlib.sha256(f"{corpus.digest} rematched".encode()).hexdigest()[:16]
        self._corpus = corpus

    def __len__(self) -> int:
        return len(self._corpus)

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The document at `index`."""
        raw = self._corpus[index]
        if isinstance(raw, Bad) or raw.meta["similarity_matrix"] is None or not raw.images:
            return raw
        here = np.array([is_there(image.read) for image in raw.images])
        similarity = _numbers(raw.meta["similarity_matrix"], raw.segments)
        gone = [_gone(raw, at) for at in np.flatnonzero(~here).tolist() if self._wants(similarity[at])]
        return self._matched(_among(raw, np.flatnonzero(here).tolist(), gone), similarity[here])

    def _wants(self, similarities: NDArray[np.float64]) -> bool:
        return self.wanted is None or bool(similarities.max() >= self.wanted)

    def _matched(self, raw: RawDocument, similarity: NDArray[np.float64]) -> RawDocument:
        anchors = match(similarity)
        scores = tuple(float(row[anchor]) for row, anchor in zip(similarity, anchors, strict=True))
        return replace(raw, anchors=anchors, scores=scores)

    @property
    def images(self) -> str:
        """Another text after images were added or taken away: what was matched without them no longer holds."""
        return self._corpus.layout.state() if isinstance(self._corpus, Mmc4Corpus) else ""

    @property
    def shard_sizes(self) -> Sequence[int]:
        """As of the corpus."""
        return self._corpus.shard_sizes

    @cached_property
    def window(self) -> int | None:
        """As of the corpus."""
        return self._corpus.window


def match(similarity: NDArray[np.float64]) -> tuple[int, ...]:
    """For each image the number of its sentence: one to one, with the largest sum.

    similarity: [images, sentences].
    """
    anchors = similarity.argmax(axis=1)
    chosen, sentences = linear_sum_assignment(similarity, maximize=True)
    anchors[chosen] = sentences
    return tuple(anchors.tolist())


def _gone(raw: RawDocument, at: int) -> Bad:
    return Bad(raw.doc_id, Cause.MISSING_IMAGE, f"{raw.images[at].name} is not there, so others are matched")


def _among(raw: RawDocument, here: Sequence[int], gone: Sequence[Bad]) -> RawDocument:
    """The document with these of its images. The others would compete for sentences, and win some of them."""
    if len(here) == len(raw.images):
        return raw
    meta = {**raw.meta}
    for name in ("dom_order", "similarity_matrix"):
        if meta[name] is not None:
            meta[name] = type(meta[name])(meta[name][at] for at in here)
    return replace(
        raw,
        images=tuple(raw.images[at] for at in here),
        anchors=tuple(raw.anchors[at] for at in here),
        scores=tuple(raw.scores[at] for at in here),
        meta=meta,
        removed=(*raw.removed, *gone),
    )


def _numbers(matrix: Sequence[Sequence[Any]], segments: Sequence[str]) -> NDArray[np.float64]:
    """The matrix as numbers, [images, sentences]."""
    found = np.full((len(matrix), len(segments)), WORST)
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            number = finite(value) if segments[column].strip() else None
            if number is not None:
                found[row, column] = number
    return np.clip(found, WORST, 1.0)
