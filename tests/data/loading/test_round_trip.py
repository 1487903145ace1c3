"""Random documents through tokenising, placing, cutting, rendering and collating, and back: nothing lost or made up."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_helpers import sample

from data.batch import Layout, TokenType
from data.document import Bad, Cause, Image, ImageRef, RawDocument, Text
from data.images import ImageTransform
from data.loading.collate import collate
from data.loading.item import Item
from data.loading.render import Writing
from data.loading.select import Rules, choose_images
from data.tokenizer import Tokenizer

BYTES = Tokenizer.train_bpe([], 256)
TRANSFORM = ImageTransform(size=2, mean=(0.0,) * 3, std=(1.0,) * 3)
MARKS = st.sampled_from(["</s>", "<BoI>", "<img>", "&lt;IMG&gt;", "<pad>", "[MASK]", "\u2028", "  ", "é", "\x00", "囍"])
SENTENCES = st.lists(st.one_of(st.text(max_size=12), MARKS), min_size=1, max_size=8)


@st.composite
def documents(draw, number):
    """A page with sentences of any characters and images of any score on any of them."""
    segments = draw(SENTENCES)
    images = draw(st.integers(0, 9))
    anchors = draw(st.lists(st.integers(0, len(segments) - 1), min_size=images, max_size=images))
    scores = draw(st.lists(st.sampled_from([0.1, 0.2399, 0.24, 0.3, None]), min_size=images, max_size=images))
    refs = tuple(ImageRef(lambda: b"", f"{number}-{at}", at) for at in range(images))
    return RawDocument(f"web/0/{number}", tuple(segments), refs, tuple(anchors), tuple(scores))


@st.composite
def batches(draw):
    """Up to four pages and the lengths they are read with."""
    pages = [draw(documents(number)) for number in range(draw(st.integers(1, 4)))]
    patches = draw(st.integers(1, 5))
    return pages, patches, draw(st.integers(1, patches)), draw(st.integers(patches + 4, 90)), draw(st.integers(0, 9))


@pytest.mark.slow
@settings(max_examples=2_000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(batches())
def test_documents_come_back_from_a_batch_as_they_were_sampled(drawn):
    pages, patches, slots, seq_len, seed = drawn
    rules = Rules()
    kept = []
    for raw in pages:
        found = sample(raw, rules, BYTES, patches=patches, seq_len=seq_len, seed=seed, epoch=0)
        chosen = choose_images(raw, rules, seed)
        assert len(chosen) <= 6 and all(raw.scores[at] is not None and raw.scores[at] >= 0.24 for at in chosen)
        assert [raw.anchors[at] for at in chosen] == sorted(raw.anchors[at] for at in chosen)
        if isinstance(found, Bad):
            assert found.cause in (Cause.NOT_CHOSEN, Cause.NO_IMAGE_LEFT, Cause.EMPTY_TEXT)
            assert not chosen or found.cause is Cause.NOT_CHOSEN
            continue
        kept.append((raw, found))
    if not kept:
        return
    items = []
    for _, document in kept:
        images = sum(isinstance(part, Image) for part in document.segments)
        items.append(Item(document, tuple(np.full((2, 2, 3), at, np.uint8) for at in range(images)), seed))
    for layout in (Layout.INTERLEAVED, Layout.MEDIA_TOKEN):
        batch = collate(
            items, layouts=(layout,), slots=slots,
            patches=patches, seq_len=seq_len, special=BYTES.special, transform=TRANSFORM,
            writing=Writing(),
        )  # fmt: skip
        rows = batch[layout]
        assert rows.input_ids.shape[1] <= seq_len
        assert len(batch.images) == len(rows.img_boi) == int((rows.token_type == TokenType.BOI).sum())
        image = 0
        for row, (raw, document) in enumerate(kept):
            ids, types = rows.input_ids[row].tolist(), rows.token_type[row].tolist()
            length = int(rows.attn_mask[row].sum())
            assert rows.attn_mask[row, :length].all() and set(types[length:]) <= {TokenType.PAD}
            assert types[0] == TokenType.BOS and types.count(TokenType.BOS) == 1
            at = 1
            words: list[int] = []
            for part in document.segments:
                if isinstance(part, Text):
                    assert ids[at : at + len(part.ids)] == list(part.ids)
                    assert set(types[at : at + len(part.ids)]) == {TokenType.TEXT}
                    words += part.ids
                    at += len(part.ids)
                    continue
                assert types[at] == TokenType.BOI and (int(rows.img_row[image]), int(rows.img_boi[image])) == (row, at)
                assert bool(rows.img_has_ctx[image]) == (at > 1)
                assert batch.labels[image] == part.ref.label
                image += 1
                span = slots if layout is Layout.INTERLEAVED else 0
                assert types[at + 1 : at + 1 + span] == [TokenType.IMG] * span
                assert not span or types[at + 1 + span] == TokenType.EOI
                at += span + 2 if span else 1
            assert types[at] == TokenType.EOS and at + 1 == length
            assert BYTES.special.ids.isdisjoint(words)
            whole = " ".join(text.strip() for text in raw.segments if text.strip())
            text = BYTES.decode(words)
            if document.hard_split:
                assert whole.encode().startswith(bytes(text, "utf-8").rstrip("\ufffd".encode()))
            else:
                assert text in (whole, "") or whole.startswith(text + " ")
        assert image == len(batch.images)
