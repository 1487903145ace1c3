"""OBELICS's windows: cut from the stream, nothing lost or doubled, no image split or in the wrong document.

WINDOWS=2000 asks for more random streams.
"""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import Layout, TokenType
from data.document import Image, ImageRef, RawDocument, Text
from data.images import ImageTransform
from data.loading.collate import collate
from data.loading.item import Item
from data.loading.render import Writing
from data.loading.select import Rules, Sample, place, prepare
from data.loading.windows import Filling, cut
from data.tokenizer import Tokenizer

BYTES = Tokenizer.train_bpe([], 256)
TRANSFORM = ImageTransform(size=2, mean=(0.0,) * 3, std=(1.0,) * 3)
BOUNDARY = Text(())


def doc(uid, *parts):
    """A document of texts by length, images (None) and boundaries (0); token ids count up."""
    ids = iter(range(10, 10_000))
    segments = tuple(
        Image(ImageRef(bytes, f"{uid}-{at}")) if part is None else Text(tuple(next(ids) for _ in range(part)))
        for at, part in enumerate(parts)
    )
    return Sample(uid, segments, 0)


def shape(windows):
    """Each window as its pieces: B begins, E ends, i an image, a number of text tokens."""
    marks = []
    for window in windows:
        pieces = []
        for piece in window.pieces:
            inner = ["i" if isinstance(part, Image) else str(len(part.ids)) for part in piece.parts]
            pieces.append(" ".join(["B"] * piece.begins + inner + ["E"] * piece.ends))
        marks.append(" | ".join(pieces))
    return marks


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ([("a", 3)], ["B 3 E"]),
        ([("a", 14)], ["B 9", "5 E"]),
        ([("a", 8)], ["B 8 E"]),  # exactly full
        ([("a", 9)], ["B 9", "E"]),
        ([("a", 8), ("b", 1)], ["B 8 E", "B 1 E"]),
        ([("a", 5, None)], ["B 5 i E"]),
        ([("a", 6, None)], ["B 6 i", "E"]),  # an image that just fits
        ([("a", 7, None)], ["B 7", "i E"]),  # one short: it moves whole, the window is padded
        ([("a", 7, None), ("b", 4)], ["B 7", "i E | B 4 E"]),
        ([("a", 2), ("b", 30)], ["B 2 E | B 5", "10", "10", "5 E"]),  # no image in four windows
        ([("a", 2, 0, 3)], ["B 2 E | B 3 E"]),  # another document begins inside the page
        ([("a", 0, 2, 0, 0, None, 0)], ["B 2 E | B i E"]),
    ],
)
def test_windows_are_cut_where_the_paper_says(documents, expected):
    """Ten tokens a window, an image takes three."""
    windows = cut([doc(*each) for each in documents], list(range(len(documents))), patches=1, seq_len=10)
    assert shape(windows) == expected


def test_an_image_longer_than_a_window_is_refused():
    with pytest.raises(ValueError, match="an image of 12 tokens fits into no window of 11; raise data.seq_len"):
        cut([doc("a", None)], [0], patches=10, seq_len=11)


def stream(documents):
    """The documents one after the other, every token as (kind, value)."""
    for document in documents:
        parts = list(document.segments)
        while parts:
            ours = []
            while parts and parts[0] != BOUNDARY:
                ours.append(parts.pop(0))
            parts = parts[1:]
            if ours:
                yield "B", None
                for part in ours:
                    if isinstance(part, Image):
                        yield "i", part.ref.name
                    else:
                        yield from (("t", token) for token in part.ids)
                yield "E", None


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("WINDOWS", "300")), deadline=None)
@given(
    st.lists(st.lists(st.one_of(st.none(), st.integers(0, 25)), min_size=1, max_size=6), min_size=1, max_size=6),
    st.integers(1, 4),
    st.integers(0, 30),
)
def test_all_windows_together_are_the_documents(parts, patches, more):
    seq_len = patches + 2 + more
    documents = [doc(str(at), *each) for at, each in enumerate(parts)]
    windows = cut(documents, list(range(len(documents))), patches, seq_len)
    found = []
    for at, window in enumerate(windows):
        length = 0
        for piece in window.pieces:
            found += [("B", None)] * piece.begins
            length += piece.begins + piece.ends
            for part in piece.parts:
                if isinstance(part, Image):
                    found.append(("i", part.ref.name))
                    length += patches + 2
                else:
                    found += [("t", token) for token in part.ids]
                    length += len(part.ids)
            found += [("E", None)] * piece.ends
        assert 0 < length <= seq_len
        if at + 1 < len(windows):  # padding only where an image moved, and less than an image
            following = windows[at + 1].pieces[0]
            moved = bool(following.parts) and isinstance(following.parts[0], Image) and not following.begins
            assert seq_len - length < (patches + 2 if moved else 1)
    assert found == list(stream(documents))
    assert len({window.seed for window in windows}) == len(windows)


@pytest.mark.parametrize("layout", [Layout.INTERLEAVED, Layout.MEDIA_TOKEN])
@pytest.mark.parametrize("slots", [1, 2])
def test_a_batch_of_windows_says_where_each_document_and_image_is(layout, slots):
    documents = [doc("a", 3, None), doc("b", None, 4), doc("c", 6, None, 0, None)]
    items = [
        Item(d, tuple(np.full((2, 2, 3), at, np.uint8) for s in d.segments if isinstance(s, Image)), 100 + at)
        for at, d in enumerate(documents)
    ]
    batch = collate(
        items, layouts=(layout,), slots=slots, patches=2, seq_len=20, special=BYTES.special, transform=TRANSFORM,
        writing=Writing(), filling=Filling.WINDOWS,
    )  # fmt: skip
    rows = batch[layout]
    # a: 1+3+4+1, b: 1+4+4+1, c: 1 | 6+4+1, then its second document 1+4+1
    assert batch.doc_uid == ("a+b+c", "c@1+c/1") and batch.doc_seed.tolist()[0] == 100
    assert len(batch.doc_seed) == len(batch.caption_hash) == len(set(batch.doc_seed.tolist())) == 2
    assert rows.img_row.tolist() == [0, 0, 1, 1] and rows.img_has_ctx.tolist() == [True, False, True, False]
    types, ids = rows.token_type, rows.input_ids
    assert (types[rows.img_row, rows.img_boi] == TokenType.BOI).all()
    for kind, id_ in ((TokenType.BOS, BYTES.special.bos), (TokenType.EOS, BYTES.special.eos)):
        assert (ids[types == kind] == id_).all()
    assert [(types[row] == TokenType.BOS).sum().item() for row in (0, 1)] == [3, 1]
    assert [(types[row] == TokenType.EOS).sum().item() for row in (0, 1)] == [2, 2]
    for row, count in ((0, 3), (1, 2)):
        inside = rows.doc_id[row][rows.attn_mask[row]]
        assert inside.unique().tolist() == list(range(count)) and (inside.diff() >= 0).all()
    assert (rows.doc_id[~rows.attn_mask] == -1).all() and torch.equal(types == TokenType.PAD, ~rows.attn_mask)


def test_windows_do_not_depend_on_the_slots_of_a_row():
    documents = [doc(str(at), 7, None, 5, None, 9) for at in range(5)]
    items = [Item(d, (np.zeros((2, 2, 3), np.uint8),) * 2, at) for at, d in enumerate(documents)]
    made = [
        collate(
            items, layouts=(Layout.INTERLEAVED,), slots=slots, patches=8, seq_len=24, special=BYTES.special,
            transform=TRANSFORM, writing=Writing(), filling=Filling.WINDOWS,
        )
        for slots in (1, 8)
    ]  # fmt: skip
    texts = [
        [row[types == TokenType.TEXT].tolist() for row, types in zip(r.input_ids, r.token_type, strict=True)]
        for r in (batch[Layout.INTERLEAVED] for batch in made)
    ]
    assert texts[0] == texts[1] and made[0].doc_uid == made[1].doc_uid


def test_an_empty_segment_of_an_ordered_page_begins_another_document():
    image = ImageRef(bytes, "a.jpg")
    raw = RawDocument("o/0", ("one", "", "two"), (image,), (None,), (None,), order=(0, 1, -1, 2))
    prepared = prepare(raw, Rules(sim_threshold=None), BYTES, 0)
    assert [BYTES.decode(text.ids) for text in prepared.texts] == [
        "one",
        "",
        "two",
    ]  # no space before "two": it is first
    assert place(prepared, Rules(), 0, 0) == (0, 1, -1, 2)
