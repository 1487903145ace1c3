"""Rows and batches: a worked example of the layouts (LCL paper 3.3, Figure 2), and what holds for every row."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import Layout, TokenType
from data.document import Image, ImageRef, Text
from data.images import ImageTransform
from data.loading.collate import collate
from data.loading.item import Item
from data.loading.render import COLLAPSED, PAIR_LAYOUTS, Writing, render
from data.loading.select import Sample
from data.tokenizer import SpecialTokens

SPECIAL = SpecialTokens(pad=1, bos=2, eos=2, boi=90, eoi=91, img=92, mask=93, vocab_size=96)
TRANSFORM = ImageTransform(size=4)
LETTER = {"PAD": ".", "TEXT": "t", "BOS": "B", "EOS": "E", "BOI": "<", "IMG": "i", "EOI": ">"}
IMAGE = Image(ImageRef(lambda: b"", "x.png", 7))
PAIR = (IMAGE, Text((11, 12, 13)))
PAGE = (Text((11,)), IMAGE, Text((12,)), IMAGE, IMAGE, Text((13,)))


def doc(segments, uid="w/0", **facts):
    return Sample(uid, tuple(segments), caption_hash=5, **facts)


def kinds(types):
    return "".join(LETTER[TokenType(int(t)).name] for t in types)


def row(segments, layout, slots=2, writing=None, doc_seed=0, **facts):
    return render(doc(segments, **facts), layout, slots, SPECIAL, doc_seed, writing or Writing())


def batch(documents, layouts, slots=2, seq_len=64):
    items = [
        Item(d, tuple(np.full((4, 4, 3), 10 * i + j, np.uint8) for j in range(count(d))), i)
        for i, d in enumerate(documents)
    ]
    return collate(
        items,
        layouts=layouts,
        slots=slots,
        patches=slots,
        seq_len=seq_len,
        special=SPECIAL,
        transform=TRANSFORM,
        writing=Writing(),
    )


def count(document):
    return sum(isinstance(part, Image) for part in document.segments)


# -- rows ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("segments", "layout", "expected", "boi", "context"),
    [
        (PAIR, Layout.TEXT_FIRST, "Bttt<ii>", [4], [True]),
        (PAIR, Layout.IMAGE_FIRST, "B<ii>tttE", [1], [False]),
        (PAIR, Layout.TEXT_ONLY, "Bttt<", [4], [True]),
        (PAGE, Layout.INTERLEAVED, "Bt<ii>t<ii><ii>tE", [2, 7, 11], [True, True, True]),
        (PAGE, Layout.MEDIA_TOKEN, "Bt<t<<tE", [2, 4, 5], [True, True, True]),
        ((IMAGE, IMAGE, Text((3,))), Layout.INTERLEAVED, "B<ii><ii>tE", [1, 5], [False, True]),
        ((IMAGE, IMAGE, Text((3,))), Layout.MEDIA_TOKEN, "B<<tE", [1, 2], [False, True]),
        ((Text(()), IMAGE, Text((3,)), IMAGE), Layout.INTERLEAVED, "B<ii>t<ii>E", [1, 6], [False, True]),  # no context
        (PAIR, Layout.INTERLEAVED, "B<ii>tttE", [1], [False]),  # a pair is written image first
    ],
)
def test_worked_examples(segments, layout, expected, boi, context):
    written = row(segments, layout)
    assert kinds(written.types) == expected
    assert (written.boi, written.has_ctx) == (boi, context)


@pytest.mark.parametrize(
    "layout", [Layout.IMAGE_FIRST, Layout.RANDOM_ORDER, Layout.INTERLEAVED, Layout.MEDIA_TOKEN, Layout.TEXT_FIRST]
)
def test_a_cut_caption_has_no_eos_in_any_layout(layout):
    image_first = Writing(image_first_probability=1.0)
    whole, cut = row(PAIR, layout, writing=image_first), row(PAIR, layout, writing=image_first, truncated=True)
    assert kinds(cut.types) == kinds(whole.types).rstrip("E")
    if layout is not Layout.TEXT_FIRST:
        assert kinds(whole.types).endswith("E")


def test_open_choices_are_one_flag_away():
    official = Writing(bos_before_leading_image=False, eos_after_image=False)
    assert kinds(row(PAIR, Layout.IMAGE_FIRST, writing=official).types) == "<ii>tttE"
    assert kinds(row(PAIR[::-1], Layout.INTERLEAVED, writing=official).types) == "Bttt<ii>"
    assert kinds(row(PAIR[::-1], Layout.INTERLEAVED).types) == "Bttt<ii>E"
    assert kinds(row(PAGE, Layout.INTERLEAVED, writing=official).types).endswith("tE")


def test_random_order_is_a_fair_coin_of_the_document():
    first = [row(PAIR, Layout.RANDOM_ORDER, doc_seed=s).has_ctx == [False] for s in range(4000)]
    assert abs(sum(first) - 2000) <= 4 * math.sqrt(1000)
    assert first[:50] == [row(PAIR, Layout.RANDOM_ORDER, doc_seed=s).has_ctx == [False] for s in range(50)]
    always = Writing(image_first_probability=1.0)
    assert all(not row(PAIR, Layout.RANDOM_ORDER, doc_seed=s, writing=always).has_ctx[0] for s in range(50))


@pytest.mark.parametrize("layout", sorted(PAIR_LAYOUTS, key=lambda each: each.value))
def test_pages_are_refused_by_pair_layouts(layout):
    with pytest.raises(ValueError, match=r"'w/0' has 3 texts and 3 images"):
        row(PAGE, layout)


parts = st.lists(
    st.one_of(st.just(IMAGE), st.lists(st.integers(3, 80), min_size=1, max_size=5).map(lambda x: Text(tuple(x)))),
    min_size=1,
    max_size=9,
).filter(lambda segments: IMAGE in segments)


@settings(max_examples=80, deadline=None)
@given(st.lists(parts, min_size=1, max_size=4), st.integers(1, 5))
def test_every_batch_is_well_formed(pages, slots):
    documents = [doc(segments, uid=f"w/{i}") for i, segments in enumerate(pages)]
    layouts = (Layout.INTERLEAVED, Layout.MEDIA_TOKEN)
    made = batch(documents, layouts, slots, seq_len=256)
    images = [count(d) for d in documents]
    texts = [[i for p in d.segments if isinstance(p, Text) for i in p.ids] for d in documents]
    for layout in layouts:
        rows = made[layout]
        ids, types = rows.input_ids.numpy(), rows.token_type.numpy()
        written = [kinds(each) for each in types]
        span = "<" if layout in COLLAPSED else "<" + "i" * slots + ">"
        for text, n, line in zip(texts, images, written, strict=True):
            body = line.rstrip(".")
            assert body[0] == "B" and body[-1] == "E"
            assert body[1:-1].replace(span, "") == "t" * len(text)  # whole spans only, nothing nested or loose
            assert body.count("<") == n
        fixed = {"PAD": 1, "BOS": 2, "EOS": 2, "BOI": 90, "EOI": 91, "IMG": 92}
        for name, token in fixed.items():
            assert (ids[types == TokenType[name]] == token).all()
        for line, text in zip(range(len(documents)), texts, strict=True):
            assert ids[line][types[line] == TokenType.TEXT].tolist() == text
        assert (rows.attn_mask.numpy() == (types != TokenType.PAD)).all()
        assert (rows.doc_id.numpy() == np.where(types == TokenType.PAD, -1, 0)).all()
        assert (rows.position_ids.numpy() == np.arange(ids.shape[1])).all()
        assert ids.shape[1] % 16 == 0 and ids.shape[1] < max(map(len, (w.rstrip(".") for w in written))) + 16
        where = list(zip(rows.img_row.tolist(), rows.img_boi.tolist(), strict=True))
        assert where == list(map(tuple, np.argwhere(types == TokenType.BOI).tolist()))  # document-major, in order
        context = [bool(set(written[r][:c]) & {"t", "<"}) for r, c in where]
        assert rows.img_has_ctx.tolist() == context
    assert len(made.images) == len(made.labels) == sum(images)


# -- batches ---------------------------------------------------------------------------------------------------------


def test_batch_carries_images_labels_and_provenance():
    unlabelled = Image(ImageRef(lambda: b"", "y.png"))
    made = batch([doc(PAGE, "a"), doc((unlabelled, Text((3,))), "b")], (Layout.INTERLEAVED,))
    assert made.images.shape == (4, 3, 4, 4) and made.images.dtype is torch.float32
    pixels = made.images[:, 0, 0, 0] * TRANSFORM.std[0] + TRANSFORM.mean[0]
    assert (pixels * 255).round().tolist() == [0, 1, 2, 10]
    assert made.labels.tolist() == [7, 7, 7, -1]
    assert (made.doc_uid, made.doc_seed.tolist(), made.caption_hash.tolist()) == (("a", "b"), [0, 1], [5, 5])


def test_width_is_a_multiple_of_sixteen_but_never_beyond_the_row_length():
    page = doc((Text(tuple(range(3, 14))), IMAGE))  # 11 + 4 + 2 = 17 positions
    assert batch([page], (Layout.INTERLEAVED,))[Layout.INTERLEAVED].input_ids.shape == (1, 32)
    assert batch([page], (Layout.INTERLEAVED,), seq_len=18)[Layout.INTERLEAVED].input_ids.shape == (1, 18)
    with pytest.raises(ValueError, match="17 tokens exceeds seq_len 16"):
        batch([page], (Layout.INTERLEAVED,), seq_len=16)


def test_layouts_of_one_batch_carry_the_same_text_and_images():
    made = batch([doc(PAIR, f"w/{i}") for i in range(5)], tuple(Layout))
    for layout in Layout:
        rows = made[layout]
        assert rows.input_ids[rows.token_type == TokenType.TEXT].tolist() == [11, 12, 13] * 5
        assert rows.img_row.tolist() == [0, 1, 2, 3, 4]
        slots = 0 if layout in COLLAPSED else 10
        assert int((rows.token_type == TokenType.IMG).sum()) == slots


def test_misfits_are_refused():
    options = {"layouts": (Layout.INTERLEAVED,), "slots": 2, "patches": 2, "seq_len": 64, "special": SPECIAL}
    options |= {"transform": TRANSFORM, "writing": Writing()}
    with pytest.raises(ValueError, match="at least 1 document"):
        collate([], **options)
    with pytest.raises(ValueError, match="'w/0' has 3 images, but 0 were decoded"):
        collate([Item(doc(PAGE), (), 0)], **options)


def test_a_document_is_never_changed_by_rendering():
    document = doc(PAGE)
    before = dataclasses.astuple(document)
    for layout in (Layout.INTERLEAVED, Layout.MEDIA_TOKEN):
        render(document, layout, 2, SPECIAL, 0, Writing())
    assert dataclasses.astuple(document) == before
