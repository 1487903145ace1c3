"""Bootstrap over images and comparisons item by item: by hand, by simulation, and against the committed records."""

import random
from collections.abc import Iterator

import numpy as np
import pytest
from scipy.stats import permutation_test

from results import publish
from results.details import items
from results.details.items import Scores
from results.schema import Status
from results.statistics import resampling
from results.statistics.resampling import Sums, compare, mcnemar, metrics_of, spread


@pytest.fixture
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "DRAWS", 1000)


def captions(name: str, values: dict[str, list[float]]) -> Sums:
    """A metric with several items an image."""
    scores = {
        ("coco", name, image, f"{image}/{n}"): f"{value:.6g}"
        for image, each in values.items()
        for n, value in enumerate(each)
    }
    (found,) = metrics_of(scores)
    return found


@pytest.mark.parametrize(
    # twice the binomial tail by hand: (10, 2) is 2 (1 + 12 + 66) / 2^12
    ("b", "c", "p"),
    [(10, 2, 0.03857421875), (6, 0, 0.03125), (40, 20, 0.01348929373119186), (5, 5, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int, p: float) -> None:
    assert mcnemar(b, c) == mcnemar(c, b) == pytest.approx(p, rel=1e-9)


def test_every_metric_of_the_committed_records_is_the_records_own() -> None:
    """BLEU from its summed counts, everything else as a mean."""
    folder = publish.ROOT / "records"
    publication = publish.load(folder / "table1.jsonl")
    checked = 0
    for run_id, scores in list(items.load(folder / f"table1{items.SUFFIX}").items())[::9]:
        record = publication.records[run_id]
        assert record.status is Status.DONE
        for each in metrics_of(scores):
            assert float(each.of(each.sums.sum(axis=0))) == pytest.approx(record.metrics[each.metric], rel=1e-5)
            checked += 1
    assert checked > 20


def test_captions_of_one_image_are_drawn_together() -> None:
    """Five equal captions of an image say no more than one."""
    draw = random.Random(0)
    values = {f"i{n}": draw.choice([0.0, 100.0]) for n in range(50)}
    five, one = (captions("ir1", {image: [v] * n for image, v in values.items()}) for n in (5, 1))
    assert spread(five) == spread(one)
    assert spread(one).high - spread(one).low == pytest.approx(2 * 196 * (0.25 / 50) ** 0.5, rel=0.1)


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
def test_intervals_cover() -> None:
    draw, trials, covered = random.Random(1), 500, 0
    for trial in range(trials):
        values = {}
        for image in range(150):
            ease = draw.choice([0.2, 0.8])
            values[f"i{image}"] = [100.0 * (draw.random() < ease) for _ in range(5)]
        found = spread(captions(f"ir{trial}", values))
        covered += found.low <= 50 <= found.high
    assert 0.93 <= covered / trials <= 0.97


@pytest.mark.slow
@pytest.mark.usefixtures("few_draws")
@pytest.mark.parametrize(("several", "test"), [(5, "sign flips"), (1, "McNemar")])
def test_equal_checkpoints_differ_at_most_once_in_twenty(several: int, test: str) -> None:
    draw, trials, found = random.Random(2), 500, 0
    for trial in range(trials):
        ease = [draw.choice([0.2, 0.8]) for _ in range(150)]
        pair = compare(*(captions(f"ir{trial}", answers(draw, ease, several)) for _ in range(2)))
        assert pair.test == test
        found += pair.p <= 0.05
    assert found / trials <= 0.06


def answers(draw: random.Random, ease: list[float], several: int) -> dict[str, list[float]]:
    return {f"i{n}": [100.0 * (draw.random() < each) for _ in range(several)] for n, each in enumerate(ease)}


def test_a_small_difference_on_the_same_images_is_found() -> None:
    draw = random.Random(3)
    base = {f"i{n}": [draw.gauss(50, 30)] for n in range(200)}
    better = {image: [value + draw.gauss(1, 1)] for image, (value,) in base.items()}
    pair = compare(captions("cider", better), captions("cider", base))
    assert pair.p < 0.001 and 0.8 < pair.difference.low < 1 < pair.difference.high < 1.2
    assert pair.first - pair.second == pytest.approx(pair.difference.value)


def test_sign_flips_are_those_of_scipy() -> None:
    draw = random.Random(4)
    base = {f"i{n}": [draw.gauss(50, 30) for _ in range(n % 3 + 1)] for n in range(40)}
    other = {image: [value + draw.gauss(1, 8) for value in values] for image, values in base.items()}
    pair = compare(captions("cider", other), captions("cider", base))
    sums = [sum(other[image]) - sum(base[image]) for image in base]
    found = permutation_test(
        (sums,), lambda x, axis: x.sum(axis=axis), permutation_type="samples", n_resamples=20_000, vectorized=True,
        rng=np.random.default_rng(1),
    )  # fmt: skip
    assert pair.test == "sign flips" and 0.01 < pair.p < 0.9
    assert pair.p == pytest.approx(found.pvalue, abs=0.015)


def test_equal_checkpoints_are_no_difference() -> None:
    same = {f"i{n}": [float(n)] for n in range(20)}
    assert compare(captions("cider", same), captions("cider", same)).p == 1


def test_other_images_and_half_a_bleu_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be compared item by item"):
        compare(captions("cider", {"a": [1.0]}), captions("cider", {"b": [1.0]}))
    lonely: Scores = {("coco", "bleu_correct_1", "a", "a"): "1"}
    with pytest.raises(ValueError, match="items have no bleu_correct_2"):
        list(metrics_of(lonely))


def bleu(
    correct: list[int], guess: list[int], length: int, reference: int, image: str
) -> Iterator[tuple[items.Key, str]]:
    names = [f"bleu_{kind}_{n}" for kind in ("correct", "guess") for n in (1, 2, 3, 4)]
    numbers = dict(zip(names, correct + guess, strict=True)) | {"bleu_length": length, "bleu_reference": reference}
    yield from ((("coco", name, image, image), str(number)) for name, number in numbers.items())


def test_bleu_is_that_of_the_summed_counts() -> None:
    first = bleu([4, 3, 2, 1], [5, 4, 3, 2], 5, 6, "a")
    second = bleu([5, 4, 2, 0], [5, 4, 3, 2], 5, 6, "b")
    (found,) = metrics_of(dict([*first, *second]))
    expected = 100 * (9 / 10 * 7 / 8 * 4 / 6 * 1 / 4) ** 0.25 * 2.718281828459045 ** (1 - 12 / 10)
    assert found.metric == "coco/b4" and spread(found).value == pytest.approx(expected)
    (nothing,) = metrics_of(dict(bleu([4, 3, 2, 0], [5, 4, 3, 2], 5, 6, "a")))
    assert spread(nothing).value == 0.0
