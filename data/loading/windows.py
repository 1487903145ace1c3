"""OBELICS's rows: documents one after the other, cut every so many tokens (LCL appendix A.1).

"We then sequentially extract 2048 tokens from the concatenated documents. If image tokens are truncated, the entire
image is moved to the next sample sequence." Our choices: documents are joined as `</s> ... </s>`, windows do not
overlap, and each step cuts its own documents, so that no window depends on the step before; only an image that moves
and the end of a step leave padding. Lengths are those of one slot per patch whatever an objective writes, so that every
row of a table has the same windows. A window may hold no image; it is read for its text.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from data.batch import Layout
from data.document import Image, Text
from data.loading.render import COLLAPSED, Row, write
from data.loading.select import Sample, text_hash
from data.seeds import stable_seed
from data.tokenizer import SpecialTokens


class Filling(StrEnum):
    """What a row of a batch holds."""

    DOCUMENT = "document"  # one document, cut where it no longer fits
    WINDOWS = "windows"  # documents one after the other, cut every `seq_len` tokens


@dataclass(frozen=True)
class Piece:
    """What a window holds of one document."""

    uid: str  # of the document, and behind "@" how many of its tokens came before where an earlier window began it
    seed: int  # of the document, or for the part in this window where an earlier one began it
    parts: tuple[Text | Image, ...]
    begins: bool  # its first token is here, a BOS before it
    ends: bool  # its last token is here, an EOS behind it


@dataclass(frozen=True)
class Window:
    """One row."""

    pieces: tuple[Piece, ...]

    @property
    def uid(self) -> str:
        """The documents it holds."""
        return "+".join(piece.uid for piece in self.pieces)

    @property
    def seed(self) -> int:
        """Names its random choices."""
        return self.pieces[0].seed

    @property
    def caption_hash(self) -> int:
        """Equal for equal text."""
        return text_hash([part for piece in self.pieces for part in piece.parts if isinstance(part, Text)])


def cut(documents: Sequence[Sample], seeds: Sequence[int], patches: int, seq_len: int) -> list[Window]:
    """The windows of documents that follow one another; seeds: of each document.

    Raises ValueError for an image that is longer than a window.
    """
    if patches + 2 > seq_len:
        raise ValueError(f"an image of {patches + 2} tokens fits into no window of {seq_len}; raise data.seq_len")
    filler = _Filler(patches + 2, seq_len)
    for sample, seed in zip(documents, seeds, strict=True):
        for number, parts in enumerate(_apart(sample.segments)):
            filler.add(
                parts, f"{sample.uid}/{number}" if number else sample.uid, stable_seed(seed, number) if number else seed
            )
    return filler.finish()


def _apart(segments: Sequence[Text | Image]) -> Iterator[list[Text | Image]]:
    """The documents of an entry: an empty text stands where another one begins."""
    parts: list[Text | Image] = []
    for segment in segments:
        if not isinstance(segment, Text) or segment.ids:
            parts.append(segment)
        elif parts:
            yield parts
            parts = []
    if parts:
        yield parts


class _Filler:
    """The window being filled, and those before it."""

    def __init__(self, span: int, seq_len: int) -> None:
        """span: tokens of an image with its markers."""
        self._span, self._seq_len, self._room = span, seq_len, seq_len
        self._windows: list[Window] = []
        self._pieces: list[Piece] = []
        self._parts: list[Text | Image] = []  # of the document being added, in this window
        self._uid, self._seed, self._tokens, self._start = "", 0, 0, 0

    def add(self, parts: Sequence[Text | Image], uid: str, seed: int) -> None:
        """Put one document behind the others."""
        if not self._room:
            self._turn()
        self._uid, self._seed, self._tokens, self._start = uid, seed, 0, 0
        self._spend(1)  # BOS
        for part in parts:
            if isinstance(part, Image):
                self._make_room(self._span)
                self._parts.append(part)
                self._spend(self._span)
                continue
            left = part.ids
            while left:
                self._make_room(1)
                taken, left = left[: self._room], left[self._room :]
                self._parts.append(Text(taken))
                self._spend(len(taken))
        self._make_room(1)
        self._spend(1)  # EOS
        self._close(ends=True)

    def finish(self) -> list[Window]:
        """All windows."""
        if self._pieces:
            self._turn()
        return self._windows

    def _spend(self, tokens: int) -> None:
        self._room -= tokens
        self._tokens += tokens

    def _make_room(self, tokens: int) -> None:
        """Go on in a window that has so much room."""
        if self._room < tokens:
            self._close(ends=False)
            self._turn()

    def _close(self, ends: bool) -> None:
        begins = not self._start
        uid = self._uid if begins else f"{self._uid}@{self._start}"
        seed = self._seed if begins else stable_seed(self._seed, "window", self._start)
        self._pieces.append(Piece(uid, seed, tuple(self._parts), begins, ends))
        self._parts, self._start = [], self._tokens

    def _turn(self) -> None:
        self._windows.append(Window(tuple(self._pieces)))
        self._pieces, self._room = [], self._seq_len


def render_window(window: Window, layout: Layout, slots: int, special: SpecialTokens) -> Row:
    """The window as one row. slots: <img> tokens per span."""
    row = Row()
    for piece in window.pieces:
        part = write(piece.parts, None if layout in COLLAPSED else slots, special, piece.begins, piece.ends)
        row.boi += [len(row.ids) + column for column in part.boi]
        row.ids += part.ids
        row.types += part.types
        row.has_ctx += part.has_ctx
        row.documents.append(len(part.ids))
    return row
