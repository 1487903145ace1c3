"""Rendering: a document as one row of tokens, in the layout an objective asks for.

LCL section 3.3 and figure 3 for the interleaved row, OpenGVLab/LCL src/training/interleaved.py for the two orders of a
pair and for the closing token. Spans and markers are inserted as integers; no string ever holds a special token.
Rendering is a pure function of (document, layout, slots, writing, doc_seed).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from data.batch import Layout, TokenType
from data.document import Image, Text
from data.loading.select import Sample, uniform
from data.tokenizer import SpecialTokens

# The layouts that write one image beside one caption; the other two take any document, pairs included.
PAIR_LAYOUTS = frozenset({Layout.TEXT_ONLY, Layout.IMAGE_FIRST, Layout.TEXT_FIRST, Layout.RANDOM_ORDER})
# The layouts in which an image is its <BoI> alone.
COLLAPSED = frozenset({Layout.TEXT_ONLY, Layout.MEDIA_TOKEN})

_TEXT, _BOS, _EOS = int(TokenType.TEXT), int(TokenType.BOS), int(TokenType.EOS)
_BOI, _IMG, _EOI = int(TokenType.BOI), int(TokenType.IMG), int(TokenType.EOI)


@dataclass(frozen=True, kw_only=True)
class Writing:
    """The choices about markers that neither the paper nor the code settles for every layout."""

    bos_before_leading_image: bool = True  # False: released LCL layout of an image-first pair
    eos_after_image: bool = True  # an interleaved row that ends with an image still gets EOS (released MMC4 layout)
    image_first_probability: float = 0.5  # RANDOM_ORDER


@dataclass
class Row:
    """One rendered document, or several behind one another; not yet padded."""

    ids: list[int] = field(default_factory=list)
    types: list[int] = field(default_factory=list)
    boi: list[int] = field(default_factory=list)  # column of each image's <BoI>
    has_ctx: list[bool] = field(default_factory=list)  # text or an image of its document stands before it
    documents: list[int] = field(default_factory=list)  # tokens of each document where there are several


def render(
    document: Sample, layout: Layout, slots: int, special: SpecialTokens, doc_seed: int, writing: Writing
) -> Row:
    """The document as one row. slots: <img> tokens per span. Raises ValueError for a page in a pair layout."""
    parts: Sequence[Text | Image] = document.segments
    bos, eos = True, False
    if layout in PAIR_LAYOUTS:
        text, image = _pair(document, layout)
        if layout is Layout.RANDOM_ORDER:
            leads = uniform(doc_seed, "random_order") < writing.image_first_probability
            layout = Layout.IMAGE_FIRST if leads else Layout.TEXT_FIRST
        parts = (text, image)
        if layout is Layout.IMAGE_FIRST:
            parts = (image, text)
            bos, eos = writing.bos_before_leading_image, not document.truncated
    else:
        ends_with_image = isinstance(parts[-1], Image)
        eos = not document.truncated and (writing.eos_after_image or not ends_with_image)
    return write(parts, None if layout in COLLAPSED else slots, special, bos, eos)


def _pair(document: Sample, layout: Layout) -> tuple[Text, Image]:
    texts = [part for part in document.segments if isinstance(part, Text)]
    images = [part for part in document.segments if isinstance(part, Image)]
    if len(texts) != 1 or len(images) != 1:
        raise ValueError(
            f"document {document.uid!r} has {len(texts)} texts and {len(images)} images, but layout {layout.value!r} "
            f"writes pairs. Use a corpus of pairs, or layout {Layout.INTERLEAVED.value!r}."
        )
    return texts[0], images[0]


def write(parts: Sequence[Text | Image], slots: int | None, special: SpecialTokens, bos: bool, eos: bool) -> Row:
    """Parts of one document in their order. slots: <img> tokens per span; None: an image is its <BoI> alone."""
    row = Row()
    ids, types = row.ids, row.types
    if bos:
        ids.append(special.bos)
        types.append(_BOS)
    seen = False
    for part in parts:
        if isinstance(part, Text):
            ids.extend(part.ids)
            types.extend([_TEXT] * len(part.ids))
        else:
            row.boi.append(len(ids))
            row.has_ctx.append(seen)
            ids.append(special.boi)
            types.append(_BOI)
            if slots is not None:
                ids.extend([special.img] * slots)
                ids.append(special.eoi)
                types.extend([_IMG] * slots)
                types.append(_EOI)
        seen = seen or not isinstance(part, Text) or bool(part.ids)  # an empty text is no context
    if eos:
        ids.append(special.eos)
        types.append(_EOS)
    return row
