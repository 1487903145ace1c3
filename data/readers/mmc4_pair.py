"""MMC4-Pair (LCL section 4.1): the pictures that documents show with the sentences they matched, as pairs."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.document import Bad, Cause, Corpus, RawDocument, Sharded


def _none(raw: RawDocument) -> tuple[Bad, ...]:
    return ()


class Mmc4Pairs:
    """MMC4-Pair: each selected image with its matched sentence, as one-image one-sentence documents.

    `select` is the rule that interleaved sampling uses (threshold, one per sentence, at most six), keyed by doc_id, so
    that both corpora expose the same images. Documents and images that cannot be read or judged stay in the list as
    their Bad; a document counts for as many pairs as one gives that can be read.
    """

    def __init__(
        self,
        corpus: Corpus,
        select: Callable[[RawDocument], Sequence[int]],
        name: str = "mmc4-pair",
        saved: Path | None = None,
        unjudged: Callable[[RawDocument], Sequence[Bad]] = _none,
    ) -> None:
        """One pass over the documents; only (document, image) numbers are kept.

        Args:
            corpus: the documents.
            select: chooses the images of a document.
            name: prefix of messages about the pairs.
            saved: file of the numbers, for this corpus and this `select`: read where it exists, else written.
            unjudged: images of a document on which `select` cannot decide; picklable where other processes read pairs.
        """
        self.name = name
        self._corpus = corpus
        self._unjudged = unjudged
        if saved is not None and saved.is_file():
            self._pairs = np.load(saved, mmap_mode="r", allow_pickle=False)
        else:
            # One at a time: as a list of Python's numbers they would take fifteen times as much.
            self._pairs = np.fromiter(self._numbers(select), np.dtype(("<i4", 2)))
            if saved is not None:
                _save(saved, self._pairs)
        digest = hashlib.sha256(corpus.digest.encode())
        digest.update(self._pairs.reshape(-1))
        self.digest = digest.hexdigest()[:16]
        unread = int(np.count_nonzero(self._pairs[:, 1] == -1))
        self._each = (len(self._pairs) - unread) / max(1, len(corpus) - unread)

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def documents(self) -> int:
        """How many documents the pairs come from, those without pairs included."""
        return len(self._corpus)

    @property
    def document(self) -> np.ndarray:
        """Index of each pair's document, [pairs], ascending."""
        return self._pairs[:, 0]

    @property
    def window(self) -> int | None:
        """As of the documents."""
        return self._corpus.window if isinstance(self._corpus, Sharded) else None

    @cached_property
    def shard_sizes(self) -> tuple[int, ...]:
        """Pairs of each shard of the documents."""
        sizes = self._corpus.shard_sizes if isinstance(self._corpus, Sharded) else [len(self._corpus)]
        ends = np.searchsorted(self.document, np.cumsum(sizes))
        return tuple(np.diff(ends, prepend=0).tolist())

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The pair at `index`, with doc_id "<doc>#<image_name>"."""
        document, image = self._pairs[index].tolist()
        raw = self._corpus[document]
        if isinstance(raw, Bad):
            return self._in_pairs(raw)
        if image < 0:
            return self._unread(raw)[-2 - image]
        ref, anchor = raw.images[image], raw.anchors[image]
        twins = sum(earlier.name == ref.name for earlier in raw.images[:image])
        doc_id = f"{raw.doc_id}#{ref.name}" + (f"#{twins + 1}" if twins else "")
        if anchor is None:
            return Bad(doc_id, Cause.SCHEMA, "the image has no matched sentence, so it makes no pair")
        text = raw.segments[anchor].strip()
        if not text:
            return Bad(doc_id, Cause.EMPTY_TEXT, f"matched sentence {anchor} is empty")
        meta = {"url": raw.meta.get("url")}
        return RawDocument(doc_id, (text,), (ref,), (0,), (raw.scores[image],), meta=meta)

    def _numbers(self, select: Callable[[RawDocument], Sequence[int]]) -> Iterator[tuple[int, int]]:
        """(document, image) of every pair; what cannot be read is below 0: a document -1, its k-th unread -2-k."""
        for at in tqdm(range(len(self._corpus)), unit="document", desc="pairs", disable=None, leave=False):
            raw = self._corpus[at]
            if isinstance(raw, Bad):
                yield at, -1
                continue
            yield from ((at, image) for image in select(raw))
            unread = enumerate(self._unread(raw))
            yield from ((at, -2 - k) for k, bad in unread if bad.cause is not Cause.BAD_SENTENCE)

    def _unread(self, raw: RawDocument) -> tuple[Bad, ...]:
        return (*raw.removed, *self._unjudged(raw))

    def _in_pairs(self, bad: Bad) -> Bad:
        """A lost document at what it would have given: other losses, and all that is used, are counted in pairs."""
        lost = max(1, round(bad.lost * self._each))
        if lost == bad.lost:
            return bad
        estimate = f"about {lost} pairs are lost, as other documents give {self._each:.2g} each"
        return replace(bad, lost=lost, message=f"{bad.message}; {estimate}")


def _save(path: Path, pairs: np.ndarray) -> None:
    """At once, as other processes may read or write it too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        np.save(file, pairs, allow_pickle=False)
    os.replace(file.name, path)
