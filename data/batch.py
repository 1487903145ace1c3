"""Batch: the one type objectives and transfer tasks see of the data layer (spec of the fields in docs/architecture.md).

Shape letters: m images in the batch, b documents (one per row), t tokens of a row, s image side.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import Enum, IntEnum

from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

_APART = 0x1E3779B97F4A7C15  # odd and large: sums with the numbers of documents in a row are no other row's seeds


class TokenType(IntEnum):
    """What a position holds. Losses select by type, never by id: `</s>` is both BOS and EOS in OPT."""

    PAD = 0
    TEXT = 1
    BOS = 2
    EOS = 3
    BOI = 4
    IMG = 5
    EOI = 6


class Layout(Enum):
    """How a document is written as one row of tokens; an objective declares the layouts it reads."""

    TEXT_ONLY = "text_only"  # </s> text <BoI>: the image is read out at <BoI>, its slots are not in the row
    IMAGE_FIRST = "image_first"  # </s> <BoI> <img>*K <EoI> text </s>
    TEXT_FIRST = "text_first"  # </s> text <BoI> <img>*K <EoI>
    RANDOM_ORDER = "random_order"  # IMAGE_FIRST or TEXT_FIRST, by a coin keyed on the document
    INTERLEAVED = "interleaved"  # </s> segments and image spans in reading order </s>
    MEDIA_TOKEN = "media_token"  # as INTERLEAVED, each span collapsed to its <BoI>


@dataclass(frozen=True)
class Rows:
    """One layout's rendering of the batch's documents, one document a row, right-padded."""

    input_ids: Int[Tensor, "b t"]  # image slots hold <img>, which is never embedded
    attn_mask: Bool[Tensor, "b t"]  # True on every position that is not padding
    token_type: Int[Tensor, "b t"]  # TokenType values
    position_ids: Int[Tensor, "b t"]  # 0.. along the row
    doc_id: Int[Tensor, "b t"]  # index of the document inside the row, -1 on padding
    img_row: Int[Tensor, " m"]  # row of each image's <BoI>, in the order of Batch.images
    img_boi: Int[Tensor, " m"]  # column of each image's <BoI>
    img_has_ctx: Bool[Tensor, " m"]  # text or an image of the same document stands before its <BoI>

    def to(self, device: str) -> "Rows":
        """The same rows on another device."""
        return Rows(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True)
class Batch:
    """Images of a few documents and their renderings. Images are document-major, in reading order."""

    images: Float[Tensor, "m 3 s s"]  # normalised by the encoder's own mean and std
    rows: Mapping[Layout, Rows]
    labels: Int[Tensor, " m"]  # class of each image where the corpus declares one, else -1 (control rows only)
    doc_uid: tuple[str, ...]  # provenance, one a row
    doc_seed: Int[Tensor, " b"]  # hash(seed, epoch, doc_uid): the key of every random choice an objective makes
    caption_hash: Int[Tensor, " b"]  # equal for equal text: BLIP-2 must not draw a twin caption as a negative

    def __getitem__(self, layout: Layout) -> Rows:
        try:
            return self.rows[layout]
        except KeyError:
            held = ", ".join(sorted(each.value for each in self.rows)) or "none"
            raise KeyError(
                f"this batch was not rendered as {layout.value!r} (it holds: {held}); add it to the objective's layouts"
            ) from None

    def image_document(self, rows: Rows) -> Int[Tensor, " m"]:
        """A key of each image's document, equal for those of one document: a window of OBELICS holds several.

        Of a document that two windows share, each has a key of its own.
        """
        return self.doc_seed[rows.img_row] + rows.doc_id[rows.img_row, rows.img_boi] * _APART

    def to(self, device: str) -> "Batch":
        """The same batch on another device."""
        return replace(
            self,
            images=self.images.to(device),
            rows={layout: rows.to(device) for layout, rows in self.rows.items()},
            labels=self.labels.to(device),
            doc_seed=self.doc_seed.to(device),
            caption_hash=self.caption_hash.to(device),
        )


@dataclass(frozen=True)
class Split:
    """One split of a downstream set, as a transfer task sees it: items in a fixed order, images loaded on demand."""

    name: str  # "coco/test"
    digest: str  # hash of the ordered item ids, labels and captions
    item_ids: tuple[str, ...]
    load: Callable[[int], Image.Image]  # the i-th image, RGB, before any transform
    labels: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None
    captions: tuple[tuple[str, ...], ...] | None = None  # every reference of every image
    coverage: Mapping[str, int] = field(default_factory=dict)  # of a training set: used, skipped, and every cause met

    def __len__(self) -> int:
        return len(self.item_ids)
