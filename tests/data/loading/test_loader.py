"""The loader: exact budgets, exact resuming, one order for all, and an error policy that never loops."""

import io
import itertools
import json
import math
import operator
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image as Pil

from data.batch import Layout, TokenType
from data.document import Bad, Cause, ImageRef, RawDocument
from data.errors import BadImage
from data.images import Centred, ImageTransform
from data.loading import cache
from data.loading.cache import Bounded, Pictures
from data.loading.held_out import MOST, split
from data.loading.loader import Loader
from data.loading.order import Shuffled
from data.loading.select import Rules, choose_images
from data.readers.mmc4_pair import Mmc4Pairs
from data.seeds import generator
from data.tokenizer import Tokenizer

BYTES = Tokenizer.train_bpe([], 256)
WHOLE = ImageTransform(size=4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=(1.0, 1.0), ratio=(1.0, 1.0))
PAIRS = Rules(text_len=12)
LCL = (Layout.INTERLEAVED,)
TOLERANT = {"max_broken": 0.6}  # the faulty pages below are worse than the default bears


def png(number):
    """A uniform 4 x 4 picture whose colour spells the number."""
    pixels = np.full((4, 4, 3), (number % 256, number // 256, 7), np.uint8)
    out = io.BytesIO()
    Pil.fromarray(pixels).save(out, "png")
    return out.getvalue()


class Memory:
    """A corpus in a list; labels number its images, so that a batch says which images it holds."""

    def __init__(self, items, name="web"):
        self.name, self.items, self.reads = name, items, Counter()
        self.digest = f"{name}-{len(items)}"

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]

    def ref(self, number, data=None):
        def read():
            self.reads[number] += 1
            if data is None:
                return png(number)
            if isinstance(data, Exception):
                raise data
            return data

        return ImageRef(read, f"{number}.png", number)


def pairs(count, broken=()):
    corpus = Memory([])
    for i in range(count):
        if i in broken:
            corpus.items.append(Bad(f"web/{i}", Cause.BAD_UTF8, "not text"))
        else:
            text = f"caption {i}"
            corpus.items.append(RawDocument(f"web/{i}", (text,), (corpus.ref(i),), (0,), (None,)))
    return corpus


def pages(count, seed=0, faults=False):
    """Documents of 1-8 sentences and 1-8 images; with faults, every kind of them somewhere."""
    rng = generator("pages", seed)
    corpus = Memory([])
    number = 0
    for i in range(count):
        if faults and i % 11 == 3:
            corpus.items.append(Bad(f"web/{i}", Cause.BAD_JSON, "half a line"))
            continue
        segments = tuple(f"{'word ' * rng.integers(1, 4)}{j}" for j in range(rng.integers(1, 9)))
        images = int(rng.integers(1, 9))
        refs = []
        for _ in range(images):
            data = None
            if faults and number % 13 == 5:
                data = b"<html>not found</html>"
            if faults and number % 13 == 7:
                data = BadImage(Cause.MISSING_IMAGE, "no such file")
            refs.append(corpus.ref(number, data))
            number += 1
        anchors = tuple(int(a) for a in rng.integers(0, len(segments), images))
        scores = tuple(float(s) for s in rng.uniform(0.2, 0.4, images))
        corpus.items.append(RawDocument(f"web/{i}", segments, tuple(refs), anchors, scores))
    return corpus


def load(corpus, rules=None, layouts=None, **changed):
    rules = rules or Rules()
    options = {"patches": 4, "slots": 4, "seq_len": 64, "images_per_step": 8, "total_images": 50, "seed": 0}
    return Loader(corpus, BYTES, WHOLE, layouts=LCL if layouts is None else layouts, rules=rules, **(options | changed))


def fingerprint(batch):
    """Everything a batch holds, comparable bit by bit."""
    rows = {
        layout.value: {name: value.tolist() for name, value in vars(each).items()}
        for layout, each in batch.rows.items()
    }
    names = ("images", "labels", "doc_seed", "caption_hash")
    return rows, batch.doc_uid, {name: getattr(batch, name).tolist() for name in names}


# -- budget ----------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(6, 20), st.integers(1, 150), st.booleans())
@example(2, 11, 78, False)  # step 7 would reach all 78 images and leave nothing for the eighth
def test_images_are_exact_and_steps_are_filled_to_the_document(seed, per_step, total, faults):
    loader = load(pages(40, seed % 7, faults), images_per_step=per_step, total_images=total, seed=seed, **TOLERANT)
    seen = 0
    batches = list(loader.batches())
    for step, batch in enumerate(batches, 1):
        seen += len(batch.images)
        target = min(step * per_step, total)
        assert target <= seen < target + 6
        last = int((batch[Layout.INTERLEAVED].img_row == len(batch.doc_uid) - 1).sum())
        assert seen - last < target  # without its last document the step would not be full
    assert seen == total == loader.coverage["images"]
    assert len(batches) == loader.steps == math.ceil(total / per_step)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_fill_every_step_exactly(seed):
    sizes = [len(b.images) for b in load(pairs(30), PAIRS, total_images=53, seed=seed).batches()]
    assert sizes == [8] * 6 + [5]


def test_the_surplus_of_the_last_document_goes_and_its_text_stays():
    corpus = Memory([])
    corpus.items = [
        RawDocument("web/0", ("a", "b", "c"), tuple(corpus.ref(i) for i in range(3)), (0, 1, 2), (0.3,) * 3)
    ]
    (batch,) = load(corpus, total_images=2).batches()
    rows = batch[Layout.INTERLEAVED]
    assert batch.labels.tolist() == [0, 1] and len(rows.img_boi) == 2
    assert BYTES.decode(rows.input_ids[rows.token_type == TokenType.TEXT].tolist()) == "a b c"


# -- order -----------------------------------------------------------------------------------------------------------


def uids(loader):
    return [uid for batch in loader.batches() for uid in batch.doc_uid]


def test_each_document_comes_once_per_epoch_in_an_order_of_its_own():
    read = uids(load(pairs(40), PAIRS, total_images=120))
    epochs = [read[i : i + 40] for i in (0, 40, 80)]
    assert all(sorted(e) == sorted(epochs[0]) and len(set(e)) == 40 for e in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != uids(load(pairs(40), PAIRS, total_images=40, seed=1))


def test_orders_of_epochs_and_seeds_overlap_by_chance_only():
    orders = {
        (seed, epoch): [Shuffled(1000, seed).index(epoch, at) for at in range(1000)]
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    }
    for left, right in ((orders[0, 0], orders[0, 1]), (orders[0, 0], orders[1, 0])):
        assert sum(map(operator.eq, left, right)) < 10  # expected 1
        assert abs(len(set(left[:300]) & set(right[:300])) - 90) < 45


def test_same_seed_gives_identical_batches_in_two_loaders_with_and_without_caches():
    first = [fingerprint(b) for b in load(pages(20, faults=True), total_images=150, **TOLERANT).batches()]
    again = load(pages(20, faults=True), total_images=150, cache_documents=0, pictures=Pictures(0), **TOLERANT)
    assert first == [fingerprint(b) for b in again.batches()]


def test_objectives_with_other_layouts_and_slots_read_the_same_text_and_images():
    def content(layouts, slots):
        for batch in load(pages(30), layouts=layouts, slots=slots, seq_len=40).batches():
            rows = batch[layouts[0]]
            yield batch.images.tolist(), batch.doc_uid, rows.input_ids[rows.token_type == TokenType.TEXT].tolist()

    lcl, emu, flamingo = (list(content(*each)) for each in ((LCL, 4), (LCL, 2), ((Layout.MEDIA_TOKEN,), 1)))
    assert lcl == emu == flamingo


def test_interleaved_and_paired_views_draw_on_one_pool_of_images():
    corpus, seed = pages(30), 5
    paired = Mmc4Pairs(corpus, partial(choose_images, rules=Rules(), seed=seed))
    pool = {int(raw.images[0].label) for raw in (paired[i] for i in range(len(paired)))}
    loader = load(corpus, total_images=len(pool), seq_len=2000, seed=seed)
    assert {n for batch in loader.batches() for n in batch.labels.tolist()} == pool
    loader = load(paired, PAIRS, (Layout.IMAGE_FIRST,), total_images=len(pool), seed=seed)
    assert {n for batch in loader.batches() for n in batch.labels.tolist()} == pool


def test_every_image_is_the_one_its_label_names():
    for batch in load(pages(20), total_images=60).batches():
        red, green = (batch.images[:, channel, 0, 0] * 255 for channel in (0, 1))
        assert (red + 256 * green).round().tolist() == batch.labels.tolist()


def test_coins_and_crops_change_between_epochs():
    corpus = Memory([])
    noise = io.BytesIO()
    Pil.fromarray(generator("noise").integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(noise, "png")
    corpus.items = [RawDocument("web/0", ("a",), (corpus.ref(0, noise.getvalue()),), (0,), (None,))]
    loader = Loader(
        corpus, BYTES, ImageTransform(size=4), layouts=(Layout.RANDOM_ORDER,), patches=4, slots=4, seq_len=64,
        images_per_step=1, total_images=12, seed=0, rules=PAIRS,
    )  # fmt: skip
    batches = list(loader.batches())
    assert len({tuple(b.images.flatten().tolist()) for b in batches}) > 6
    assert len({int(b.doc_seed) for b in batches}) == 12
    assert len({bool(b[Layout.RANDOM_ORDER].img_has_ctx) for b in batches}) == 2


def test_every_image_has_a_crop_of_its_own():
    noise = io.BytesIO()
    Pil.fromarray(generator("noise").integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(noise, "png")
    corpus = Memory([])
    refs = [corpus.ref(i, noise.getvalue()) for i in range(4)]
    corpus.items = [RawDocument(f"web/{i}", ("a", "b"), tuple(refs), (0, 0, 1, 1), (0.3,) * 4) for i in range(2)]
    loader = Loader(
        corpus, BYTES, ImageTransform(size=4), layouts=LCL, patches=4, slots=4, seq_len=64,
        images_per_step=8, total_images=8, seed=0, rules=Rules(dedup_per_segment=False),
    )  # fmt: skip
    (batch,) = loader.batches()
    assert len({tuple(image.flatten().tolist()) for image in batch.images}) == 8


# -- resuming --------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 20), st.booleans())
def test_resuming_by_state_or_by_step_continues_bit_for_bit(seed, at, faults):
    options = {"total_images": 160, "seed": seed, **TOLERANT}
    whole = load(pages(25, faults=faults), **options)
    expected = [fingerprint(b) for b in whole.batches()]

    stopped = load(pages(25, faults=faults), **options)
    assert [fingerprint(b) for b in itertools.islice(stopped.batches(), at)] == expected[:at]
    saved = json.loads(json.dumps(stopped.state()))
    for start in (saved, at):
        resumed = load(pages(25, faults=faults), **options)
        assert [fingerprint(b) for b in resumed.batches(start)] == expected[at:]
        assert resumed.coverage == whole.coverage
        assert resumed.state() == whole.state()


def test_a_state_is_a_copy_and_belongs_to_its_run():
    loader = load(pages(25, faults=True), **TOLERANT)
    batches = loader.batches()
    next(batches)
    saved = loader.state()
    frozen = json.dumps(saved)
    list(batches)
    assert json.dumps(saved) == frozen
    with pytest.raises(ValueError, match="seed: 0 saved, 1 now"):
        load(pages(25), seed=1).batches(saved)
    with pytest.raises(ValueError, match="version 0"):
        loader.batches({**saved, "version": 0})
    with pytest.raises(ValueError, match="steps 0 to 7"):
        loader.batches(8)
    assert list(loader.batches(7)) == []


# -- held out of training ---------------------------------------------------------------------------------------------


def views(corpus, seed=0):
    """The corpus as documents and as pairs."""
    return corpus, Mmc4Pairs(corpus, partial(choose_images, rules=Rules(), seed=seed))


def page_ids(part):
    return {part[i].doc_id.partition("#")[0] for i in range(len(part))}


@pytest.mark.parametrize("count, held", [(1, 0), (19, 0), (20, 1), (60, 3), (2559, 127), (3000, MOST)])
def test_few_documents_are_held_out_and_none_is_lost(count, held):
    training, out = split(pairs(count))
    assert (len(training), len(out)) == (count - held, held)
    assert page_ids(training) | page_ids(out) == {f"web/{i}" for i in range(count)}
    assert out.digest == split(pairs(count))[1].digest != training.digest


def test_a_document_is_held_out_of_both_views_and_whatever_the_seed():
    corpus, _ = views(pages(100))
    for seed in range(3):
        (documents, out), (paired, paired_out) = (split(view) for view in views(corpus, seed))
        assert page_ids(documents).isdisjoint(page_ids(paired_out))
        assert page_ids(paired).isdisjoint(page_ids(out))
        assert len(out) == 5 and page_ids(paired_out) <= page_ids(out)


def test_training_never_reads_what_is_held_out():
    for view, rules, layouts in zip(views(pages(60)), (Rules(), PAIRS), (LCL, (Layout.IMAGE_FIRST,)), strict=True):
        training, out = split(view)
        loader = load(training, rules, layouts, total_images=400)
        read = {uid.partition("#")[0] for batch in loader.batches() for uid in batch.doc_uid}
        assert loader.coverage["documents"] > len(training)  # every document at least once
        assert len(read) > 50 and read.isdisjoint(page_ids(out))


@pytest.mark.parametrize("images", [1, 5, 9, 1000])
def test_both_views_give_the_same_held_out_images_in_the_same_order(images):
    options = {"seq_len": 2000, "images_per_step": 8}
    corpus, paired = (split(view)[1] for view in views(pages(100)))
    one = load(corpus, **options).once(images)
    two = load(paired, PAIRS, (Layout.IMAGE_FIRST,), **options).once(images)
    assert one.labels.tolist() == two.labels.tolist() and torch.equal(one.images, two.images)
    assert len(one.images) == min(images, len(paired)) and len(paired) > 9


def test_once_reads_each_document_once_skips_what_is_bad_and_leaves_the_run_alone():
    corpus = pages(40, faults=True)
    loader, fresh = load(corpus, total_images=40, max_broken=0.6), load(corpus, total_images=40)
    batch = loader.once(10_000)
    assert len(set(batch.doc_uid)) == len(batch.doc_uid) and len(set(batch.labels.tolist())) == len(batch.labels)
    assert loader.state() == fresh.state()
    assert load(pairs(3, broken=range(3)), PAIRS, (Layout.IMAGE_FIRST,)).once(5) is None
    again = load(corpus, total_images=40, max_broken=0.6)
    assert [fingerprint(b) for b in loader.batches()] == [fingerprint(b) for b in again.batches()]


def test_a_centred_crop_leaves_nothing_to_chance():
    image = Pil.fromarray(generator("noise").integers(0, 255, (60, 50, 3), dtype=np.uint8))
    crops = [ImageTransform(size=8).train(image, generator(i)) for i in range(2)]
    centred = [Centred(size=8).train(image, generator(i)) for i in range(2)]
    assert (crops[0] != crops[1]).any()
    assert (centred[0] == centred[1]).all() and (centred[0] == ImageTransform(size=8).eval(image)).all()


# -- errors ----------------------------------------------------------------------------------------------------------


def test_each_fault_is_counted_once_in_its_class_and_the_run_goes_on():
    corpus = pairs(10, broken=(2,))
    for i, data in ((4, b"<html>"), (5, BadImage(Cause.MISSING_IMAGE, "gone"))):
        corpus.items[i] = RawDocument(f"web/{i}", ("text",), (corpus.ref(i, data),), (0,), (None,))
    corpus.items[6] = RawDocument("web/6", ("  ",), (corpus.ref(6),), (0,), (None,))
    loader = load(corpus, PAIRS, total_images=6, images_per_step=6, max_broken=0.4)
    (batch,) = loader.batches()
    assert sorted(batch.doc_uid) == ["web/0", "web/1", "web/3", "web/7", "web/8", "web/9"]
    whole = load(corpus, PAIRS, total_images=12, images_per_step=6, max_broken=0.4)
    list(whole.batches())
    causes = {"bad_utf8", "decode_error", "missing_image", "empty_text"}
    assert set(whole.coverage) == {"documents", "images", "skipped", *causes}
    assert whole.coverage["documents"] == whole.coverage["images"] == 12
    assert {whole.coverage[cause] for cause in causes} <= {1, 2}
    assert whole.coverage["skipped"] == sum(whole.coverage[cause] for cause in causes)
    assert whole.state()["progress"]["examples"]["bad_utf8"] == ["web/2: not text"]  # met in both epochs, shown once


def test_an_image_that_does_not_decode_gives_its_place_to_what_follows():
    corpus = Memory([])
    refs = (corpus.ref(0, b"junk"), corpus.ref(1), corpus.ref(2))
    corpus.items = [RawDocument("web/0", ("a", "b", "c"), refs, (0, 1, 2), (0.3,) * 3)]
    # room for two images and three letters: without image 0 the rest fits, with it the row ends before image 2
    loader = load(corpus, seq_len=2 + 2 * 6 + 5, total_images=2, images_per_step=6)
    (batch,) = loader.batches()
    assert batch.labels.tolist() == [1, 2]
    assert loader.coverage == {"documents": 1, "images": 2, "decode_error": 1}


def test_a_page_without_any_decodable_image_is_no_image_left():
    corpus = Memory([])
    refs = [corpus.ref(i, None if i else b"junk") for i in range(8)]
    corpus.items = [RawDocument(f"web/{i}", ("a",), (ref,), (0,), (0.3,)) for i, ref in enumerate(refs)]
    loader = load(corpus, total_images=40)
    list(loader.batches())
    assert loader.coverage["no_image_left"] == loader.coverage["skipped"] == loader.coverage["decode_error"] > 0
    assert "web/0" not in uids(loader)


def test_a_hard_split_is_counted_on_a_document_that_is_used():
    corpus = Memory([])
    corpus.items = [RawDocument("web/0", ("x" * 99,), (corpus.ref(0),), (0,), (0.3,))]
    loader = load(corpus, Rules(before_probability=1.0), total_images=3, images_per_step=6)
    assert [batch[Layout.INTERLEAVED].input_ids.shape for batch in loader.batches()] == [(3, 64)]
    assert loader.coverage == {"documents": 3, "images": 3, "segment_hard_split": 3}


@pytest.mark.parametrize(
    ("corpus", "options", "message"),
    [
        (pairs(500, broken=range(500)), {}, "100 consecutive documents are broken.*bad_utf8 100.*web/"),
        (pairs(9, broken=range(9)), {}, "whole epoch of 9 documents gave not one.*bad_utf8 9"),
        (
            pairs(20, broken=range(0, 20, 2)),
            {"max_broken": 0.4},
            "10 of 20 documents are broken, 50%.*data.max_broken=0.4.*web/.*not text.*--set data.max_broken=0.6",
        ),
        (
            pairs(40, broken=range(0, 40, 8)),
            {"max_broken": 0.1},
            "5 of 40 documents are broken, 12%.*Most is broken in web ",
        ),
    ],
)
def test_broken_corpora_stop_the_run_and_say_why(corpus, options, message):
    loader = load(corpus, PAIRS, total_images=1000, **options)
    with pytest.raises(ValueError, match=f"^corpus 'web'.*{message}.*\\.$"):  # one line: all that a record keeps
        list(loader.batches())


def test_a_bearable_share_of_faults_goes_on():
    assert sum(len(b.images) for b in load(pairs(40, broken=range(0, 40, 8)), PAIRS, total_images=200).batches()) == 200


def test_many_faults_far_apart_are_no_streak():
    loader = load(pairs(600, broken=range(0, 600, 5)), PAIRS, total_images=480)
    assert sum(len(b.images) for b in loader.batches()) == 480
    assert loader.coverage["skipped"] >= 100


def test_a_corpus_that_goes_away_between_epochs_stops_the_run():
    corpus = pairs(9)
    batches = load(corpus, PAIRS, total_images=100, images_per_step=9, cache_documents=0).batches()
    next(batches)
    corpus.items = [Bad(f"web/{i}", Cause.MISSING_SHARD, "unmounted") for i in range(9)]
    with pytest.raises(ValueError, match="whole epoch of 9 documents gave not one.*missing_shard 9"):
        next(batches)


def test_programming_errors_are_not_data_errors():
    corpus = pairs(5)
    corpus.items[3] = RawDocument("web/3", ("text",), (corpus.ref(3, TypeError("a bug")),), (0,), (None,))
    with pytest.raises(TypeError, match="a bug"):
        list(load(corpus, PAIRS).batches())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"corpus": Memory([])}, "corpus is empty"),
        ({"layouts": (Layout.TEXT_ONLY,)}, r"\['text_only'\] write pairs"),
        ({"slots": 5}, "slots is 5"),
        ({"seq_len": 7}, "seq_len is 7.*need 8"),
        ({"rules": PAIRS, "seq_len": 19}, "need 20"),
        ({"images_per_step": 5}, "one document may hold 6"),
        ({"total_images": 0}, "total_images is 0"),
    ],
)
def test_pieces_that_do_not_fit_are_refused_at_once(changed, message):
    options = {"corpus": pages(3), "layouts": LCL, "rules": Rules(), "patches": 4, "slots": 4, "seq_len": 64}
    options |= {"images_per_step": 8, "total_images": 50, "seed": 0} | changed
    with pytest.raises(ValueError, match=message):
        Loader(tokenizer=BYTES, transform=WHOLE, **options)


# -- cost ------------------------------------------------------------------------------------------------------------


def test_a_small_corpus_is_decoded_once_and_read_lazily():
    corpus = pages(10)
    loader = load(corpus, total_images=8)
    assert not corpus.reads
    list(loader.batches())
    assert max(corpus.reads.values()) == 1
    list(load(corpus_again := pages(10), total_images=300).batches())
    assert max(corpus_again.reads.values()) == 1
    kept = {i for raw in corpus_again.items for i in (raw.images[j].label for j in choose_images(raw, Rules(), 0))}
    assert set(corpus_again.reads) <= kept


def test_the_cache_keeps_to_its_budget():
    cache: Bounded[str, int] = Bounded(10)
    cache.put("a", 1, 6)
    cache.put("b", 2, 6)
    cache.put("c", 3, 4)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_without_layouts_a_batch_holds_the_images_alone():
    plain, written = (next(load(pages(5), layouts=layouts).batches()) for layouts in ((), LCL))
    assert plain.rows == {} and written.rows
    assert torch.equal(plain.images, written.images) and torch.equal(plain.labels, written.labels)


def test_images_are_normalised_float_tensors():
    batch = next(load(pages(5)).batches())
    assert batch.images.dtype is torch.float32 and batch.images.is_contiguous()


def test_loaders_of_a_process_decode_a_picture_once(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, held, opened = pages(6), Pictures(2**20), []
    decode = cache.open_image
    monkeypatch.setattr(cache, "open_image", lambda ref: (opened.append(ref.name), decode(ref))[1])
    first, second = (list(load(corpus, total_images=24, pictures=held).batches()) for _ in range(2))
    assert len(opened) == len(set(opened)) > 0
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one.images, other.images)


def test_pictures_beyond_the_budget_are_decoded_again_and_equal() -> None:
    corpus = pages(6)
    one, other = (list(load(corpus, total_images=24, pictures=Pictures(size)).batches()) for size in (0, 2**20))
    assert all(torch.equal(a.images, b.images) for a, b in zip(one, other, strict=True))
