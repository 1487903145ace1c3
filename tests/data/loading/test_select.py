"""Sampling rules of LCL paper 4.1 and A.1: which images, where, and how much text."""

import math
from collections import Counter
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_helpers import sample

from data.document import Bad, Cause, Image, ImageRef, RawDocument, Text
from data.loading.select import CapPolicy, Rules, Sample, choose_images, place, prepare, truncate
from data.tokenizer import Tokenizer

BYTES = Tokenizer.train_bpe([], 256)  # one token per byte: lengths can be read off the text

# Document golden/1 with ten images, seed 0. A change here changes every run: it must be deliberate.
GOLDEN_IMAGES = (0, 1, 2, 3, 8, 9)
GOLDEN_ORDERS = [
    (0, -1, 1, -2, 2, -3, -4, 3, 4, 5, 6, 7, -5, 8, -6, 9),
    (0, -1, 1, -2, 2, -3, 3, -4, 4, 5, 6, 7, -5, 8, 9, -6),
]


def page(segments, anchors, scores=None, doc_id="web/0", order=None):
    images = tuple(ImageRef(lambda: b"", f"{i}.png") for i in range(len(anchors)))
    scores = tuple(scores) if scores is not None else (0.3,) * len(anchors)
    return RawDocument(doc_id, tuple(segments), images, tuple(anchors), scores, order)


def shape(document):
    """A document as strings: decoded text, or <name> for an image."""
    assert isinstance(document, Sample)
    return [BYTES.decode(p.ids) if isinstance(p, Text) else f"<{p.ref.name[:-4]}>" for p in document.segments]


def take(raw, rules=None, seq_len=512, patches=2, seed=0, epoch=0):
    return sample(raw, rules or Rules(), BYTES, patches=patches, seq_len=seq_len, seed=seed, epoch=epoch)


def near(count, trials, probability):
    return abs(count - trials * probability) <= 4 * math.sqrt(trials * probability * (1 - probability))


# -- which images ----------------------------------------------------------------------------------------------------


def test_threshold_is_inclusive():
    raw = page("abc", [0, 1, 2], [0.24, 0.2399, 0.5])
    assert choose_images(raw, Rules(), 0) == (0, 2)


def test_an_image_without_a_score_is_counted_and_its_document_stays():
    raw = page("abc", [0, 1, 2], [None, 0.3, 0.1])
    assert choose_images(raw, Rules(), 0) == (1,)
    assert [bad.cause for bad in prepare(raw, Rules(), BYTES, 0).removed] == [Cause.NO_SCORE]
    assert choose_images(raw, Rules(sim_threshold=None), 0) == (0, 1, 2)
    assert prepare(raw, Rules(sim_threshold=None), BYTES, 0).removed == ()
    assert prepare(page("a", [0], [None]), Rules(), BYTES, 0).cause is Cause.NO_IMAGE_LEFT


def test_seven_images_on_one_sentence_leave_one_chosen_at_random():
    kept = Counter(choose_images(page("ab", [1] * 7, doc_id=f"w/{i}"), Rules(), 0) for i in range(2000))
    assert set(kept) == {(i,) for i in range(7)}
    assert all(near(count, 2000, 1 / 7) for count in kept.values())
    assert len(choose_images(page("ab", [1] * 7), Rules(dedup_per_segment=False), 0)) == 6


def test_each_of_many_images_is_kept_with_probability_six_over_n():
    trials, images = 3000, 10
    kept = Counter(
        i for d in range(trials) for i in choose_images(page("abcdefghij", range(images), doc_id=f"w/{d}"), Rules(), 0)
    )
    assert sum(kept.values()) == 6 * trials
    assert all(near(kept[i], trials, 0.6) for i in range(images))


def test_other_cap_policies():
    raw = page("abcdefg", [6, 5, 4, 3, 2, 1, 0])
    assert choose_images(raw, Rules(cap_policy=CapPolicy.FIRST), 0) == (6, 5, 4, 3, 2, 1)
    assert choose_images(raw, Rules(cap_policy=CapPolicy.DROP), 0) == ()
    assert len(choose_images(page("abcdef", range(6)), Rules(cap_policy=CapPolicy.DROP), 0)) == 6


def test_choice_depends_on_seed_and_document_but_not_on_the_epoch():
    names = [f"w/{d}" for d in range(20)]

    def choices(seed):
        return [choose_images(page("abcdefghij", range(10), doc_id=name), Rules(), seed) for name in names]

    assert choices(0) == choices(0) != choices(1)
    assert len(set(choices(0))) > 10
    raw = page("abcdefghij", range(10))
    pools = {frozenset(p for p in shape(take(raw, epoch=e)) if p[0] == "<") for e in range(5)}
    assert len(pools) == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.floats(0, 1)), min_size=0, max_size=12), st.integers(1, 6), st.booleans()
)
def test_kept_images_obey_every_rule(images, most, dedup):
    raw = page("abcdefgh", [a for a, _ in images], [s for _, s in images])
    kept = choose_images(raw, Rules(max_images=most, dedup_per_segment=dedup), 3)
    anchors = [raw.anchors[i] for i in kept]
    assert len(kept) <= most and len(set(kept)) == len(kept)
    assert all(raw.scores[i] >= 0.24 for i in kept)
    assert anchors == sorted(anchors)
    assert not dedup or len(set(anchors)) == len(anchors)
    passing = [a for a, s in images if s >= 0.24]
    assert len(kept) == min(most, len(set(passing)) if dedup else len(passing))


def test_images_of_blank_sentences_are_kept_in_neither_view():
    assert choose_images(page(["a", "  ", "c"], [1, 2]), Rules(), 0) == (1,)


# -- where they stand ------------------------------------------------------------------------------------------------


def test_placement_is_a_fair_coin_for_each_image_on_its_own():
    counts = Counter()
    for d in range(2500):
        order = shape(take(page("abcd", range(4), doc_id=f"w/{d}")))
        counts[tuple(order.index(f"<{i}>") < order.index(("a", " b", " c", " d")[i]) for i in range(4))] += 1
    assert near(sum(sum(sides) * n for sides, n in counts.items()), 10_000, 0.5)
    assert len(counts) == 16 and all(near(n, 2500, 1 / 16) for n in counts.values())


def test_placement_changes_with_epoch_and_seed_only():
    raw = page("abcdef", range(6))
    assert shape(take(raw)) == shape(take(raw))
    assert len({tuple(shape(take(raw, epoch=e))) for e in range(8)}) > 4
    assert len({tuple(shape(take(raw, seed=s))) for s in range(8)}) > 4


@pytest.mark.parametrize(
    ("probability", "expected"), [(1.0, ["<0>", "a", "<1>", " b"]), (0.0, ["a", "<0>", " b", "<1>"])]
)
def test_before_probability_at_its_ends(probability, expected):
    assert shape(take(page("ab", [0, 1]), Rules(before_probability=probability))) == expected


def test_explicit_order_is_followed_and_a_missing_image_leaves_the_text_on_both_sides():
    raw = page(["a", " ", "b", "c"], [None] * 3, [0.3, 0.1, 0.3], order=(-1, 0, 1, -2, 2, -3, 3))
    assert shape(take(raw)) == ["<0>", "a", " b", "<2>", " c"]


# -- text ------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=6), st.integers(0, 5))
def test_removing_the_images_gives_back_the_text(segments, anchor):
    raw = page(segments, [anchor % len(segments)])
    document = take(raw)
    if not segments[anchor % len(segments)].strip():
        assert isinstance(document, Bad)
        return
    ids = [i for part in document.segments if isinstance(part, Text) for i in part.ids]
    assert BYTES.decode(ids) == " ".join(s.strip() for s in segments if s.strip())


def test_no_text_can_write_a_special_token():
    marks = ["</s>", "<BoI>", "<img>", "&lt;IMG&gt;", "<pad>", "[MASK]", "<|endoftext|>", "<Img_Placehold>"]
    document = take(page(marks, [0]))
    ids = {i for part in document.segments if isinstance(part, Text) for i in part.ids}
    assert ids.isdisjoint(BYTES.special.ids)


def test_a_tokenizer_that_does_write_one_is_counted_in_its_class(monkeypatch):
    monkeypatch.setattr(BYTES, "encode", lambda text: [BYTES.special.img])
    assert take(page("a", [0])).cause is Cause.SPECIAL_TOKEN_IN_TEXT


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (page(["a"], []), Cause.NOT_CHOSEN),
        (page(["a"], [0], [0.1]), Cause.NOT_CHOSEN),
        (page(["x" * 80, "b"], [1]), Cause.NOT_CHOSEN),
        (page([" ", ""], [None], order=(0, -1, 1)), Cause.EMPTY_TEXT),
    ],
)
def test_documents_without_images_or_text_are_bad(raw, cause):
    result = take(raw, seq_len=64)
    assert isinstance(result, Bad) and result.cause is cause and result.doc_id == raw.doc_id


def test_caption_hash_is_equal_for_equal_text_only():
    one, twin, other = (
        take(page([t], [0], doc_id=f"w/{i}"), Rules(text_len=9)) for i, t in enumerate(["ab", "ab ", "b"])
    )
    assert one.caption_hash == twin.caption_hash != other.caption_hash
    assert 0 <= one.caption_hash < 2**63


# -- pairs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("length", "kept", "truncated"), [(7, 7, False), (8, 8, False), (9, 8, True)])
def test_captions_are_cut_at_t_max_and_say_so(length, kept, truncated):
    document = take(page(["x" * length], [0], [None]), Rules(text_len=8))
    assert shape(document) == ["<0>", "x" * kept]
    assert document.truncated is truncated


def test_pairs_that_are_none():
    rules = Rules(text_len=8)
    assert take(page([" "], [0]), rules).cause is Cause.EMPTY_TEXT
    assert take(page(["a"], []), rules).cause is Cause.NO_IMAGE_LEFT
    with pytest.raises(ValueError, match="2 segments and 1 images.*text_len=None"):
        take(page(["a", "b"], [0]), rules)


# -- truncation ------------------------------------------------------------------------------------------------------
# Two patches: an image takes 4 positions. Text 0 has 3 tokens, text 1 has 5; BOS and EOS take 2.


@pytest.mark.parametrize(
    ("seq_len", "codes", "kept", "cut"),
    [
        (9, (0, -1), (0, -1), None),  # <EoI> and EOS end exactly at L
        (8, (0, -1), (0,), None),  # one short: EOS would have to replace <EoI>
        (6, (0, -1), (0,), None),  # <BoI> would be the last position
        (5, (0, -1), (0,), None),  # the text ends exactly at L
        (4, (0, -1), (0,), 2),  # the first segment alone is too long: cut inside
        (13, (0, -1, 1), (0, -1), None),  # a later segment is never cut
        (14, (0, -1, 1), (0, -1, 1), None),
        (6, (-1, 0, 1), (-1,), None),  # too long for what is left, but not alone: kept whole or not at all
        (6, (-1, 1), (-1,), None),
        (5, (-1, 0), (), None),
        (6, (1, 0), (1,), 4),
        (100, (), (), None),
    ],
)
def test_truncation_edge_cases(seq_len, codes, kept, cut):
    assert truncate(codes, (3, 5), 2, seq_len) == (kept, cut)


def test_a_long_first_segment_behind_an_image_fills_the_row():
    assert truncate((-1, 0, -2), (50,), 2, 16) == ((-1, 0), 10)
    document = take(page(["x" * 50], [0], doc_id="w/1"), Rules(before_probability=1.0), seq_len=16)
    assert shape(document) == ["<0>", "x" * 10] and document.hard_split and not document.truncated


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-3, 3), max_size=10), st.integers(1, 4), st.integers(6, 40))
def test_truncation_keeps_the_longest_prefix_of_whole_atoms(codes, patches, seq_len):
    lengths = (1, 3, 6, 9)
    kept, cut = truncate(codes, lengths, patches, seq_len)
    sizes = [patches + 2 if c < 0 else lengths[c] for c in codes]
    whole = sum(total + 2 <= seq_len for total in accumulate(sizes))
    if cut is None:
        assert list(kept) == codes[:whole]
    else:
        assert list(kept) == codes[: whole + 1] and kept[-1] >= 0 and all(c < 0 for c in kept[:-1])
        assert sum(sizes[:whole]) + cut + 2 == seq_len and sizes[whole] + 2 > seq_len


def test_place_reads_only_what_prepare_kept():
    prepared = prepare(page(["a", "b"], [1, 0]), Rules(before_probability=0.0), BYTES, 0)
    assert place(prepared, Rules(before_probability=0.0), 0, 0) == (0, -1, 1, -2)
    assert [ref.name for ref in prepared.images] == ["1.png", "0.png"]


def test_choices_are_the_same_on_every_machine_and_in_every_process():
    raw = page("abcdefghij", range(10), doc_id="golden/1")
    assert choose_images(raw, Rules(), 0) == GOLDEN_IMAGES
    prepared = prepare(raw, Rules(), BYTES, 0)
    assert [place(prepared, Rules(), 0, epoch) for epoch in (0, 1)] == GOLDEN_ORDERS


def test_rules_refuse_nonsense():
    for wrong in ({"max_images": 0}, {"before_probability": 1.5}, {"text_len": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Rules(**wrong)


def test_images_are_segments_of_the_document():
    document = take(page("ab", [0]))
    assert sum(isinstance(part, Image) for part in document.segments) == 1
