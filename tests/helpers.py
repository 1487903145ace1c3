"""Small valid batches for tests: a slow reference renderer that shares no code with `data/loading/render.py`.

A test document is written as a tuple of text segments (tuples of ids) and IMAGE; `batch` renders it as any layout, one
position at a time. Pixels, seeds and caption hashes depend on the document's own name, so documents can be permuted,
added and removed without changing each other.

Shape letters: m images, b documents, t tokens, k image slots, s image side.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from backbones.build import build_language, build_vision, init_stream
from backbones.sizes import SIZES
from data.batch import Batch, Layout, Rows, TokenType
from data.seeds import stable_seed, torch_generator
from experiments.configuration.overrides import change
from experiments.configuration.recipe import SCALES
from objectives.base import Objective
from objectives.registry import get


@dataclass(frozen=True)
class Special:
    """Special ids as in OPT: `</s>` is both BOS and EOS; the image markers are the last rows of the vocabulary."""

    pad: int = 1
    bos: int = 2
    eos: int = 2
    boi: int = 60
    eoi: int = 61
    img: int = 62
    mask: int = 63


SPECIAL = Special()
VOCABULARY = 64  # embedding rows; ordinary text ids are 3..59
FIRST_TEXT, LAST_TEXT = 3, 59
IMAGE = None  # a segment that is an image

Segment = tuple[int, ...] | None


@dataclass(frozen=True)
class Doc:
    """A test document. `cut` says that its end was truncated away, so there is no EOS."""

    uid: str
    segments: tuple[Segment, ...]
    cut: bool = False
    label: int = -1  # class of every image of the document

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(segment is IMAGE for segment in self.segments)

    @property
    def text(self) -> tuple[int, ...]:
        """All text ids, in reading order."""
        return tuple(token for segment in self.segments if segment is not None for token in segment)

    def pixels(self, side: int) -> Tensor:
        """Images [m, 3, s, s] that depend on the document's name and the image's place only."""
        if not self.images:
            return torch.zeros(0, 3, side, side)
        streams = (torch_generator("pixels", self.uid, k) for k in range(self.images))
        return torch.stack([torch.randn(3, side, side, generator=stream) for stream in streams])


def words(*name: str | int, length: int) -> tuple[int, ...]:
    """`length` ordinary text ids, a pure function of the name."""
    ids = torch.randint(FIRST_TEXT, LAST_TEXT + 1, (length,), generator=torch_generator("words", *name))
    return tuple(ids.tolist())


def pairs(count: int, text_first: bool = False, lengths: Sequence[int] = (3, 5, 4, 6), start: int = 0) -> list[Doc]:
    """Image-caption pairs with ragged captions; under RANDOM_ORDER each is read in its own order of segments."""
    docs = []
    for i in range(start, start + count):
        text = words("pair", i, length=lengths[i % len(lengths)])
        docs.append(Doc(f"pair-{i}", (text, IMAGE) if text_first else (IMAGE, text), label=i % 3))
    return docs


def documents(copies: int = 1) -> list[Doc]:
    """Interleaved documents that show every case: leading, consecutive and final images, and one without any image.

    copies: how many times the four cases occur, each time with other text and pixels.
    """
    docs = []
    for copy in range(copies):
        end = f"-{copy}" if copy else ""
        lengths = zip("abcdefghi", (3, 2, 2, 4, 1, 5, 3, 2, 2), strict=True)
        a, b, c, d, e, f, g, h, i = (words(letter + end, length=length) for letter, length in lengths)
        docs += [
            Doc("middle" + end, (a, IMAGE, b, IMAGE, IMAGE, c), label=0),
            Doc("leading" + end, (IMAGE, d, IMAGE, e), label=1),
            Doc("all-text" + end, (f, g)),
            Doc("final" + end, (h, i, IMAGE), label=2),
        ]
    return docs


def batch(docs: Sequence[Doc], layouts: Sequence[Layout], slots: int, side: int = 32, epoch: int = 0) -> Batch:
    """The documents as one Batch, rendered as each layout.

    slots: image slots of a span (0 is refused: a span has at least one); ignored by TEXT_ONLY and MEDIA_TOKEN.
    Raises ValueError where a pair layout meets a document that is not a pair.
    """
    if slots < 1:
        raise ValueError(f"an image span needs at least one slot, got slots={slots}")
    return Batch(
        images=torch.cat([doc.pixels(side) for doc in docs]) if docs else torch.zeros(0, 3, side, side),
        rows={layout: _rows([[doc] for doc in docs], layout, slots) for layout in layouts},
        labels=torch.tensor([doc.label for doc in docs for _ in range(doc.images)], dtype=torch.int64),
        doc_uid=tuple(doc.uid for doc in docs),
        doc_seed=torch.tensor([stable_seed(0, epoch, doc.uid) for doc in docs], dtype=torch.int64),
        caption_hash=torch.tensor([_hash(doc.text) for doc in docs], dtype=torch.int64),
    )


def packed(docs: Sequence[Doc], layout: Layout, slots: int, side: int = 32) -> Batch:
    """The documents behind one another in a single row, as OBELICS is read; positions count along the row."""
    return Batch(
        images=torch.cat([doc.pixels(side) for doc in docs]),
        rows={layout: _rows([list(docs)], layout, slots)},
        labels=torch.tensor([doc.label for doc in docs for _ in range(doc.images)], dtype=torch.int64),
        doc_uid=("+".join(doc.uid for doc in docs),),
        doc_seed=torch.tensor([stable_seed(0, 0, *(doc.uid for doc in docs))]),
        caption_hash=torch.tensor([_hash(tuple(token for doc in docs for token in doc.text))]),
    )


def with_images(of: Batch, images: Tensor) -> Batch:
    """The same batch with other pixels."""
    return replace(of, images=images)


def with_ids(of: Batch, layout: Layout, row: int, column: int, token: int) -> Batch:
    """The same batch with one token id replaced in one layout."""
    ids = of[layout].input_ids.clone()
    ids[row, column] = token
    return replace(of, rows={**of.rows, layout: replace(of[layout], input_ids=ids)})


def _hash(text: tuple[int, ...]) -> int:
    return int.from_bytes(hashlib.sha256(repr(text).encode()).digest()[:8], "big") >> 1


def _marks(doc: Doc, layout: Layout, slots: int) -> list[tuple[int, TokenType]]:
    """One document as (id, type) pairs: the definition of each layout, written out."""
    bos, eos = (SPECIAL.bos, TokenType.BOS), (SPECIAL.eos, TokenType.EOS)
    boi, eoi = (SPECIAL.boi, TokenType.BOI), (SPECIAL.eoi, TokenType.EOI)
    span = [boi, *[(SPECIAL.img, TokenType.IMG)] * slots, eoi]
    text = [(token, TokenType.TEXT) for token in doc.text]
    end = [] if doc.cut else [eos]
    if layout in (Layout.INTERLEAVED, Layout.MEDIA_TOKEN):
        image = [boi] if layout is Layout.MEDIA_TOKEN else span
        marks = [bos]
        for segment in doc.segments:
            marks += image if segment is None else [(token, TokenType.TEXT) for token in segment]
        return marks + end
    if doc.images != 1 or len(doc.segments) != 2:
        raise ValueError(f"layout {layout.value!r} reads pairs, but {doc.uid!r} has segments {doc.segments}")
    if layout is Layout.TEXT_ONLY:
        return [bos, *text, boi]
    text_first = doc.segments[1] is IMAGE if layout is Layout.RANDOM_ORDER else layout is Layout.TEXT_FIRST
    return [bos, *text, *span] if text_first else [bos, *span, *text, *end]


def _rows(held: Sequence[Sequence[Doc]], layout: Layout, slots: int) -> Rows:
    """held: the documents of each row."""
    marked = [[_marks(doc, layout, slots) for doc in docs] for docs in held]
    width = max((sum(map(len, docs)) for docs in marked), default=1)
    ids = torch.full((len(held), width), SPECIAL.pad)
    types = torch.full((len(held), width), int(TokenType.PAD))
    doc_id = torch.full((len(held), width), -1)
    row, boi, context = [], [], []
    for i, docs in enumerate(marked):
        j = 0
        for number, marks in enumerate(docs):
            seen = False  # text or an image of this document so far
            for token, kind in marks:
                ids[i, j], types[i, j], doc_id[i, j] = token, int(kind), number
                if kind is TokenType.BOI:
                    row.append(i)
                    boi.append(j)
                    context.append(seen)
                seen = seen or kind in (TokenType.TEXT, TokenType.BOI)  # a media token is its image
                j += 1
    return Rows(
        input_ids=ids,
        attn_mask=types != TokenType.PAD,
        token_type=types,
        position_ids=torch.arange(width).expand(len(held), width).clone(),
        doc_id=doc_id,
        img_row=torch.tensor(row, dtype=torch.int64),
        img_boi=torch.tensor(boi, dtype=torch.int64),
        img_has_ctx=torch.tensor(context, dtype=torch.bool),
    )


def at_tiny(group: str, kind: Any) -> Any:
    """The Config of an objective (group "objectives") or a transfer task ("transfer") at the scale `tiny`."""
    return change(kind.Config(), getattr(SCALES["tiny"].config, group).get(kind.name, {}))


def build(name: str, seed: int = 0, **overrides: Any) -> Objective:
    """A registered objective at the scale `tiny`, in fp32 and eval mode, with fields of its Config overridden."""
    size, kind = SIZES["tiny"], get(name)
    with init_stream(seed, "init", "heads", name):
        vision, language = build_vision(size, seed), build_language(size, VOCABULARY, seed)
        return kind(replace(at_tiny("objectives", kind), **overrides), vision, language, SPECIAL).eval()


def share_weights(of: Objective, to: Objective) -> None:
    """Copy every parameter of `of` into `to`, which has at least these."""
    missing = to.load_state_dict(of.state_dict(), strict=False)
    if missing.unexpected_keys:
        raise ValueError(f"{to.name} has no {missing.unexpected_keys} to copy from {of.name}")


def batch_for(
    objective: Objective, docs: Sequence[Doc], layouts: Sequence[Layout] | None = None, epoch: int = 0
) -> Batch:
    """The documents rendered as the objective reads them (or as `layouts`), with its own number of slots."""
    size = objective.vision.size
    slots = objective.slots(objective.config, size.num_patches)
    return batch(docs, layouts or objective.layouts_for(objective.config), slots, size.image_size, epoch)


def gradients(objective: Objective, loss: Tensor) -> dict[str, Tensor]:
    """Gradient of `loss` to every trainable parameter, zeros where it does not arrive."""
    parameters = {name: p for name, p in objective.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True, allow_unused=True)
    pairs_of = zip(parameters.items(), found, strict=True)  # cloned: autograd may return views of one tensor
    return {name: torch.zeros_like(p) if grad is None else grad.clone() for (name, p), grad in pairs_of}


def norm(of: dict[str, Tensor], *prefixes: str) -> float:
    """Norm of the gradients whose parameter's name starts with one of the prefixes; exactly 0 where all are."""
    chosen = [grad for name, grad in of.items() if name.startswith(prefixes)]
    if not chosen:
        raise ValueError(f"no parameter starts with {prefixes}; there are {sorted(of)}")
    return float(torch.stack([grad.norm() for grad in chosen]).norm())
