"""Mixtures: declared shares in every step, counts by part, and exact continuation."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image as Pil

from data.batch import Layout, TokenType
from data.document import Bad, Cause, ImageRef, RawDocument
from data.images import ImageTransform
from data.loading.loader import Loader
from data.loading.mixture import Mixture
from data.loading.select import PairOrder, Rules
from data.loading.windows import Filling
from data.seeds import generator
from data.tokenizer import Tokenizer

BYTES = Tokenizer.train_bpe([], 256)
WHOLE = ImageTransform(size=4, mean=(0.0,) * 3, std=(1.0,) * 3, scale=(1.0, 1.0), ratio=(1.0, 1.0))
PAIRS = Rules(text_len=12)
RANDOM = Rules(text_len=12, pair_order=PairOrder.RANDOM)


class Memory(list):
    """A corpus in a list."""

    def __init__(self, name, entries):
        super().__init__(entries)
        self.name, self.digest = name, f"{name}-{len(self)}"

    __hash__ = object.__hash__


def picture(number):
    def read():
        if number % 13 == 5:
            return b"<html>not found</html>"
        out = io.BytesIO()
        Pil.fromarray(np.full((4, 4, 3), number % 256, np.uint8)).save(out, "png")
        return out.getvalue()

    return ImageRef(read, f"{number}.png", number)


def pairs(count, broken=()):
    def entry(at):
        if at in broken:
            return Bad(f"pairs/{at}", Cause.BAD_UTF8, "not text")
        return RawDocument(f"pairs/{at}", (f"caption {at}",), (picture(13 * at),), (0,), (None,))

    return Memory("pairs", map(entry, range(count)))


def pages(count):
    rng = generator("pages")

    def entry(at):
        texts = tuple(f"{'word ' * rng.integers(1, 4)}{k}" for k in range(rng.integers(1, 9)))
        images = int(rng.integers(1, 9))
        anchors = tuple(int(k) for k in rng.integers(0, len(texts), images))
        return RawDocument(f"pages/{at}", texts, tuple(map(picture, range(images))), anchors, (0.3,) * images)

    return Memory("pages", map(entry, range(count)))


def load(corpus, rules=None, **changed):
    options = {"patches": 4, "slots": 4, "seq_len": 64, "images_per_step": 6, "total_images": 38, "seed": 0}
    return Loader(
        corpus,
        BYTES,
        WHOLE,
        layouts=(Layout.INTERLEAVED,),
        rules=rules or Rules(),
        max_broken=0.6,
        **(options | changed),
    )


def fingerprint(batch):
    """Everything a batch holds, comparable bit by bit."""
    (rows,) = batch.rows.values()
    held = [*vars(rows).values(), batch.images, batch.labels, batch.doc_seed, batch.caption_hash]
    return batch.doc_uid, [value.tolist() for value in held]


def mixture():
    """Eight images a step: 2 of pairs, 6 of pages; the pairs last for 4 steps of an epoch."""
    return Mixture(
        "pairs+3*pages",
        {
            "pairs": load(pairs(8, broken=(3,)), RANDOM, images_per_step=2, total_images=13),
            "pages": load(pages(30), images_per_step=6, total_images=38),
        },
    )


def test_every_step_holds_the_declared_images_of_each_part():
    seen = {"pairs": 0, "pages": 0}
    found = mixture()
    batches = list(found.batches())
    assert len(batches) == found.steps == 7
    for step, batch in enumerate(batches, 1):
        pairs_here = sum(uid.startswith("pairs/") for uid in batch.doc_uid)
        assert pairs_here == (2 if step < 7 else 1)
        seen["pairs"] += pairs_here
        seen["pages"] += len(batch.images) - pairs_here
        assert min(6 * step, 38) <= seen["pages"] < min(6 * step, 38) + 6
    assert seen == {"pairs": 13, "pages": 38}
    assert found.coverage["images"] == 51 and found.coverage["pairs:images"] == 13
    # A part that ends begins again, and what is skipped is counted where it lies.
    assert found.coverage["pairs:bad_utf8"] == 2 and found.coverage["pages:bad_utf8"] == 0
    assert found.coverage["skipped"] == found.coverage["pairs:skipped"] + found.coverage["pages:skipped"]


def test_a_joined_batch_is_its_parts_one_below_the_other():
    found = mixture()
    parts = [list(part.batches()) for part in found._parts.values()]
    for step, batch in enumerate(found.batches()):
        rows = batch[Layout.INTERLEAVED]
        above = images = 0
        for part in (parts[0][step], parts[1][step]):
            own = part[Layout.INTERLEAVED]
            count, width = own.input_ids.shape
            here, these = slice(above, above + count), slice(images, images + len(part.images))
            for name in ("input_ids", "attn_mask", "token_type", "doc_id"):
                assert torch.equal(getattr(rows, name)[here, :width], getattr(own, name)), name
            assert not rows.attn_mask[here, width:].any() and (rows.doc_id[here, width:] == -1).all()
            assert torch.equal(rows.img_row[these], own.img_row + above)
            assert torch.equal(batch.images[these], part.images) and batch.doc_uid[here] == part.doc_uid
            above, images = above + count, images + len(part.images)
        assert (rows.token_type[rows.img_row, rows.img_boi] == TokenType.BOI).all()
        assert (rows.position_ids == torch.arange(rows.input_ids.shape[1])).all()


@pytest.mark.parametrize("stop", range(8))
def test_a_mixture_goes_on_exactly(stop):
    whole = [fingerprint(batch) for batch in mixture().batches()]
    first = mixture()
    given = first.batches()
    for _ in range(stop):
        next(given)
    state = json.loads(json.dumps(first.state()))
    if stop:  # before the first batch there is nothing to go on from but the beginning
        again = mixture()
        assert [fingerprint(batch) for batch in again.batches(state)] == whole[stop:]
        assert again.coverage == (complete := mixture(), list(complete.batches()))[0].coverage
    assert [fingerprint(batch) for batch in mixture().batches(stop)] == whole[stop:]


def test_the_state_of_another_mixture_is_refused():
    state = mixture().state()
    one = Mixture("pairs", {"pairs": load(pairs(8), RANDOM, images_per_step=2, total_images=13)})
    with pytest.raises(ValueError, match=r"the state is of \['pairs', 'pages'\] in version 1, but 'pairs' mixes"):
        one.batches(state)


def test_the_digest_covers_parts_and_shares():
    def digest(first, second, share=2):
        parts = {
            "a": load(pairs(first), RANDOM, images_per_step=share, total_images=4),
            "b": load(pages(second), images_per_step=6, total_images=12),
        }
        return Mixture("a+b", parts).corpus.digest

    assert digest(8, 30) == digest(8, 30)
    assert len({digest(8, 30), digest(9, 30), digest(8, 31), digest(8, 30, share=3)}) == 4


def test_a_probe_shows_as_many_images_of_each_part():
    probe = mixture().once(7)
    assert probe is not None and len(probe.images) == 7
    assert sum(uid.startswith("pairs/") for uid in probe.doc_uid) == 3


def test_beside_documents_a_pair_has_its_image_before_or_after_its_caption():
    loader = load(pairs(400), RANDOM, images_per_step=400, total_images=400)
    (batch,) = loader.batches()
    leads = 1 - batch[Layout.INTERLEAVED].img_has_ctx.float().mean()
    assert abs(leads - 0.5) < 4 * (0.25 / 400) ** 0.5
    (first,) = load(pairs(400), PAIRS, images_per_step=400, total_images=400).batches()
    assert not first[Layout.INTERLEAVED].img_has_ctx.any()


def test_windows_stand_beside_documents():
    parts = {
        "pages": load(pages(30), images_per_step=6, total_images=12),
        "windows": load(pages(30), Rules(), filling=Filling.WINDOWS, seq_len=256, images_per_step=24, total_images=48),
    }
    for batch in Mixture("pages+windows", parts).batches():
        rows = batch[Layout.INTERLEAVED]
        assert int(rows.doc_id.max()) > 0 and len(batch.images) == len(rows.img_row) == int(
            (rows.token_type == 4).sum()
        )
    with pytest.raises(ValueError, match="windows hold documents, but rules.text_len=12 says pairs"):
        load(pairs(8), PAIRS, filling=Filling.WINDOWS)
