"""The rows of a corpus that is read in windows: those that the steps of a run cut, counted and not kept."""

from collections.abc import Sequence

from data.document import Image, Text
from data.loading.select import Sample
from data.loading.windows import Window, cut


class Windows:
    """Documents in, numbers of windows out: one a window in each of the lists.

    Documents follow one another as they are given, which is the order of the corpus and not a run's. A step ends as
    `data/loading/loader.py` ends it, with the document that brings the images to its share.
    """

    def __init__(self, patches: int, seq_len: int, images_per_step: int) -> None:
        """patches: positions of an image in a row, less its two markers."""
        self._patches, self._seq_len, self._images_per_step = patches, seq_len, images_per_step
        self._step: list[Sample] = []
        self._given = self._due = 0  # images of all documents, and of the steps that are cut
        self.tokens: list[int] = []  # padding left out
        self.images: list[int] = []
        self.documents: list[int] = []  # of which the window holds any part

    def add(self, document: Sample) -> None:
        """The next document, whole."""
        self._step.append(document)
        self._given += _images(document.segments)
        if self._given >= self._due + self._images_per_step:
            self.finish()
            self._due += self._images_per_step

    def finish(self) -> None:
        """Cut what has been given since the last step."""
        for window in cut(self._step, [0] * len(self._step), self._patches, self._seq_len):
            self.tokens.append(_tokens(window, self._patches))
            self.images.append(sum(_images(piece.parts) for piece in window.pieces))
            self.documents.append(len(window.pieces))
        self._step = []


def _images(parts: Sequence[Text | Image]) -> int:
    return sum(isinstance(part, Image) for part in parts)


def _tokens(window: Window, patches: int) -> int:
    text = sum(len(part.ids) for piece in window.pieces for part in piece.parts if isinstance(part, Text))
    images = sum(_images(piece.parts) for piece in window.pieces)
    return text + images * (patches + 2) + sum(piece.begins + piece.ends for piece in window.pieces)
