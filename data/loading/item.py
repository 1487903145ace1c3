"""A document as readers give it to the loader; known to processes without torch."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import UInt8

from data.document import Image
from data.loading.select import Sample


@dataclass(frozen=True)
class Item:
    """One document ready to be collated."""

    document: Sample
    images: tuple[UInt8[np.ndarray, "s s 3"], ...]  # one for each Image segment, transformed, not yet normalised
    doc_seed: int

    def first(self, images: int) -> "Item":
        """The same document with at most that many images, the first ones; its text stays."""
        if images >= len(self.images):
            return self
        position = 0
        kept = []
        for part in self.document.segments:
            position += isinstance(part, Image)
            if not isinstance(part, Image) or position <= images:
                kept.append(part)
        return replace(self, document=replace(self.document, segments=tuple(kept)), images=self.images[:images])
