"""MMC4-Pair (LCL section 4.1): the pictures that documents show with the sentences they matched, as pairs."""

import hashlib
from collections.abc import Callable, Sequence

import numpy as np

from data.document import Bad, Cause, Corpus, RawDocument


class Mmc4Pairs:
    """MMC4-Pair: each selected image with its matched sentence, as one-image one-sentence documents.

    `select` is the rule that interleaved sampling uses (threshold, one per sentence, at most six), keyed by doc_id, so
    that both corpora expose the same images. Documents and images that cannot be read stay in the list as their Bad.
    """

    def __init__(self, corpus: Corpus, select: Callable[[RawDocument], Sequence[int]], name: str = "mmc4-pair") -> None:
        """One pass over the documents; only (document, image) numbers are kept."""
        self.name = name
        self._corpus = corpus
        pairs: list[tuple[int, int]] = []
        self.documents_without_pairs = 0
        for at in range(len(corpus)):
            raw = corpus[at]
            # Images count from 0; what cannot be read has numbers below: the document -1, its k-th removed -2-k.
            kept = [-1] if isinstance(raw, Bad) else [*select(raw), *_unread_images(raw)]
            self.documents_without_pairs += not kept
            pairs += [(at, image) for image in kept]
        self._pairs = np.array(pairs, "<i4").reshape(-1, 2)
        self.digest = hashlib.sha256(corpus.digest.encode() + self._pairs.tobytes()).hexdigest()[:16]

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

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The pair at `index`, with doc_id "<doc>#<image_name>"."""
        document, image = self._pairs[index].tolist()
        raw = self._corpus[document]
        if isinstance(raw, Bad):
            return raw
        if image < 0:
            return raw.removed[-2 - image]
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


def _unread_images(raw: RawDocument) -> list[int]:
    return [-2 - k for k, bad in enumerate(raw.removed) if bad.cause is not Cause.BAD_SENTENCE]
