"""What readers yield and what sampling makes of it.

A reader gives a RawDocument (every image and sentence of a page, nothing decoded, nothing chosen) or a Bad (why there
is none); sampling turns a RawDocument into a Document, the ordered text and image segments all objectives see.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable


class Cause(StrEnum):
    """The closed set of reasons for which something is counted; anything else is a programming error.

    NOT_CHOSEN is no fault: the rules of sampling want nothing of a sound document. Every other one is broken data,
    of which only so much is borne, except SEGMENT_HARD_SPLIT, whose document is used.
    """

    NOT_CHOSEN = "not_chosen"
    MISSING_SHARD = "missing_shard"
    BAD_TAR = "bad_tar"
    MISSING_IMAGE = "missing_image"
    DECODE_ERROR = "decode_error"
    OVERSIZE = "oversize"
    EMPTY_TEXT = "empty_text"
    BAD_UTF8 = "bad_utf8"
    BAD_JSON = "bad_json"
    SCHEMA = "schema"
    BAD_IMAGE_ENTRY = "bad_image_entry"  # what a document says of one image; the rest of it is used
    BAD_SENTENCE = "bad_sentence"  # one sentence of a document; the rest of it is used
    NO_SCORE = "no_score"  # one image of a scored corpus has none
    DOT_IN_KEY = "dot_in_key"
    NO_IMAGE_LEFT = "no_image_left"
    SPECIAL_TOKEN_IN_TEXT = "special_token_in_text"
    SEGMENT_HARD_SPLIT = "segment_hard_split"
    TOO_SHORT = "too_short"


LABELS = range(-(2**63), 2**63)  # what a batch can hold of a class


def encodable(text: str) -> bool:
    """Whether a text has bytes: JSON can escape lone surrogates, which no tokenizer and no file name takes."""
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class ImageRef:
    """An image nobody has decoded yet. Readers make `read` cheap to hold: a closure over (file, offset, size)."""

    read: Callable[[], bytes] = field(repr=False, compare=False)  # raises BadImage when the bytes cannot be had
    name: str
    label: int | None = None  # class where the corpus declares one (control rows only)


@dataclass(frozen=True)
class RawDocument:
    """A page or a pair before sampling. A pair is a document with one segment, one image and anchor 0."""

    doc_id: str  # stable, unique in the corpus: "<corpus>/<shard>/<key or line>"
    segments: tuple[str, ...]  # text units in reading order: sentences, paragraphs or one caption
    images: tuple[ImageRef, ...]
    anchors: tuple[int | None, ...]  # per image: the segment it belongs to; None = placed by `order`
    scores: tuple[float | None, ...]  # per image: similarity to its anchor; None = not given
    # Explicit interleaving: k >= 0 is segment k, k < 0 is image -1-k; an empty segment: another document begins there.
    order: tuple[int, ...] | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    removed: tuple["Bad", ...] = ()  # its images and sentences that cannot be used; they are not among the above

    def __post_init__(self) -> None:
        if not len(self.images) == len(self.anchors) == len(self.scores):
            raise ValueError(
                f"{self.doc_id}: {len(self.images)} images, {len(self.anchors)} anchors and {len(self.scores)} scores; "
                "a document needs one anchor and one score (or None) for each image"
            )


@dataclass(frozen=True)
class Bad:
    """A sample that cannot be used: it is counted by cause, never replaced by another one."""

    doc_id: str
    cause: Cause
    message: str
    lost: int = 1  # samples that are gone with it: a shard that cannot be read counts for what it held


@dataclass(frozen=True)
class Text:
    """A run of ordinary token ids; never a special one. Without any: another document begins here."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Image:
    """An image in its place in the document."""

    ref: ImageRef


@dataclass(frozen=True)
class Document:
    """The canonical document, after sampling: what every layout renders and every objective shares."""

    uid: str
    segments: tuple[Text | Image, ...]
    caption_hash: int  # stable 63-bit hash of the concatenated text


class Corpus(Protocol):
    """Random access to the raw documents of a folder, in an order that depends on its content only."""

    name: str

    @property
    def digest(self) -> str:
        """Equal for equal content."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> RawDocument | Bad: ...


@runtime_checkable
class Sharded(Protocol):
    """A corpus that says how its documents lie."""

    @property
    def shard_sizes(self) -> Sequence[int]:
        """Documents of each shard, in the order of the corpus."""

    @property
    def window(self) -> int | None:
        """How many shards are read together; None where any order is cheap."""
