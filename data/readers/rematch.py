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

from data.document import Bad, RawDocument
from data.files import is_there
from data.readers.mmc4 import Mmc4Corpus
from data.readers.mmc4_tars import Mmc4TarCorpus

WORST = -1.0  # a cosine is no less; stands for what is no number


class Rematched:
    """Documents with their images matched again; a document without a matrix keeps what was published."""

    def __init__(self, corpus: Mmc4Corpus | Mmc4TarCorpus) -> None:
        self.name = corpus.name
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
        anchors = match(similarity, here)
        scores = tuple(float(row[anchor]) for row, anchor in zip(similarity, anchors, strict=True))
        return replace(raw, anchors=anchors, scores=scores)

    @property
    def shard_sizes(self) -> Sequence[int]:
        """As of the corpus."""
        return self._corpus.shard_sizes

    @cached_property
    def window(self) -> int | None:
        """As of the corpus."""
        return self._corpus.window


def match(similarity: NDArray[np.float64], here: NDArray[np.bool_]) -> tuple[int, ...]:
    """For each image the number of its sentence: one to one among those that are there, with the largest sum.

    similarity: [images, sentences]; here: [images].
    """
    anchors = similarity.argmax(axis=1)
    rows = np.flatnonzero(here)
    chosen, sentences = linear_sum_assignment(similarity[rows], maximize=True)
    anchors[rows[chosen]] = sentences
    return tuple(anchors.tolist())


def _numbers(matrix: Sequence[Sequence[Any]], segments: Sequence[str]) -> NDArray[np.float64]:
    """The matrix as numbers, [images, sentences]."""
    found = np.full((len(matrix), len(segments)), WORST)
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            if type(value) in (int, float) and segments[column].strip():
                found[row, column] = value
    return np.where(np.isfinite(found), np.clip(found, WORST, 1.0), WORST)
