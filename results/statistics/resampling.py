"""How sure a score is of the finite test set: bootstrap over images, and two checkpoints compared over the same items.

This is the variance of items, for one checkpoint as it is. It says nothing about another seed, which t_tests.py does.

A test set is resampled by image, as captions of one image are no independent items: each draw gives every image a
weight, and the metric is computed from weighted sums. Whatever a metric is relative to stays fixed: the gallery of a
retrieval, and the document frequencies of CIDEr, which come from the references of the whole set. BLEU is computed
anew from the summed counts of its n-grams, POPE's F1 from those of each of its files; CIDEr and shares are means.
scipy's bootstrap draws single observations and computes a statistic of them; it has no weights of clusters, and so this
one is our own. McNemar's test is statsmodels'.

Shape letters: g images, k sums, n draws.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from results.details.items import Scores
from results.schema import metric_key
from results.statistics.t_tests import CONFIDENCE

DRAWS = 10_000
CHUNK = 500  # draws at once: their weights stay below some megabytes
BLEU_SUMS = tuple(
    [f"bleu_{kind}_{n}" for kind in ("correct", "guess") for n in (1, 2, 3, 4)] + ["bleu_length", "bleu_reference"]
)
F1_FILES = 3  # of POPE
F1_SUMS = tuple(f"pope_{kind}_{n}" for kind in ("tp", "fp", "fn") for n in range(1, F1_FILES + 1))
_COUNTED = {**dict.fromkeys(BLEU_SUMS, "b4"), **dict.fromkeys(F1_SUMS, "pope")}  # scores that are counts of a metric
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sums:
    """What a metric is computed from, summed by image."""

    metric: str  # "coco/cider"
    groups: tuple[str, ...]
    sums: Floats  # g k
    of: Callable[[Floats], Floats]  # ... k -> ...: the metric of summed sums
    mean: bool  # it is a mean over items: sum and count
    hits: Mapping[str, bool] | None  # by item, where every score is a hit or a miss and every image has one item


@dataclass(frozen=True)
class Spread:
    """A value with its 95 % interval over test items."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Paired:
    """The difference of two checkpoints over the same items."""

    metric: str
    first: float
    second: float
    difference: Spread
    test: str
    p: float  # two-sided
    images: int


def metrics_of(scores: Scores) -> Iterator[Sums]:
    """Every metric that a run's item scores are enough for, in order."""
    tables: dict[str, dict[str, dict[tuple[str, str], float]]] = defaultdict(lambda: defaultdict(dict))
    for (dataset, score, group, item), value in scores.items():
        tables[metric_key(dataset, _COUNTED.get(score, score))][score][group, item] = float(value)
    for metric, columns in sorted(tables.items()):
        if metric.endswith("/b4"):
            yield _counted(metric, columns, BLEU_SUMS, _bleu4)
        elif metric.endswith("/pope"):
            yield _counted(metric, columns, F1_SUMS, _mean_f1)
        else:
            yield _mean(metric, next(iter(columns.values())))


def spread(sums: Sums) -> Spread:
    """A checkpoint's score with its interval."""
    return spreads([sums])[0]


def spreads(several: Sequence[Sums]) -> list[Spread]:
    """As `spread` of each: checkpoints in one metric on the same images, which every draw takes for all of them."""
    draws = [[sums.of(w @ sums.sums) for sums in several] for w in _weights(several[0])]
    return [_spread(_whole(sums), np.concatenate(d)) for sums, d in zip(several, zip(*draws, strict=True), strict=True)]


def compare(first: Sums, second: Sums) -> Paired:
    """Two checkpoints in one metric, first minus second; every draw takes the same images for both.

    A metric of hits and misses, one an image, is tested by McNemar's exact test, any other mean over items by flipping
    the sign of each image's difference, and what is no mean by the draws on either side of 0.

    Raises ValueError where they were not scored on the same images.
    """
    if first.metric != second.metric or first.groups != second.groups:
        raise ValueError(
            f"{first.metric} on {len(first.groups)} images and {second.metric} on {len(second.groups)} images cannot "
            "be compared item by item; take two runs scored on the same test set"
        )
    draws = np.concatenate([first.of(w @ first.sums) - second.of(w @ second.sums) for w in _weights(first)])
    a, b = _whole(first), _whole(second)
    if first.hits is not None and second.hits is not None:
        test, p = "McNemar", mcnemar(*_discordant(first.hits, second.hits))
    elif first.mean and np.array_equal(first.sums[:, 1], second.sums[:, 1]):
        test, p = "sign flips", sign_flips(first.sums[:, 0] - second.sums[:, 0], first.metric)
    else:
        tail = min(int((draws <= 0).sum()), int((draws >= 0).sum()))
        test, p = "bootstrap", min(1.0, 2 * (tail + 1) / (len(draws) + 1))
    return Paired(first.metric, a, b, _spread(a - b, draws), test, p, len(first.groups))


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test: items that only the first, and only the second, of two checkpoints hits."""
    from statsmodels.stats.contingency_tables import mcnemar as exact

    return float(exact([[0, only_first], [only_second, 0]], exact=True).pvalue)


def sign_flips(differences: Floats, metric: str) -> float:
    """Two-sided p of a sum of differences, one an image, if each might as well have had the other sign."""
    stream, seen, extreme = _stream("sign flips", metric), abs(differences.sum()), 0
    for _ in range(DRAWS // CHUNK):
        signs = 2.0 * stream.integers(2, size=(CHUNK, len(differences))) - 1
        extreme += int((np.abs(signs @ differences) >= seen * (1 - 1e-12)).sum())  # equal sums may differ in a last bit
    return (extreme + 1) / (DRAWS + 1)


def _mean(metric: str, values: Mapping[tuple[str, str], float]) -> Sums:
    groups = tuple(sorted({group for group, _ in values}))
    place = {group: number for number, group in enumerate(groups)}
    sums = np.zeros((len(groups), 2))
    for (group, _), value in values.items():
        sums[place[group]] += value, 1
    shares = len(values) == len(groups) and set(values.values()) <= {0.0, 100.0}
    hits = {item: value > 0 for (_, item), value in values.items()} if shares else None
    return Sums(metric, groups, sums, lambda total: total[..., 0] / total[..., 1], True, hits)


def _counted(
    metric: str,
    columns: Mapping[str, Mapping[tuple[str, str], float]],
    names: Sequence[str],
    of: Callable[[Floats], Floats],
) -> Sums:
    """A metric of summed counts. Raises ValueError where a count is missing."""
    if missing := set(names) - columns.keys():
        raise ValueError(f"{metric}: items have no {', '.join(sorted(missing))}; it cannot be computed from the rest")
    groups = tuple(sorted({group for group, _ in columns[names[0]]}))
    place = {group: number for number, group in enumerate(groups)}
    sums = np.zeros((len(groups), len(names)))
    for k, name in enumerate(names):
        for (group, _), value in columns[name].items():
            sums[place[group], k] += value
    return Sums(metric, groups, sums, of, False, None)


def _mean_f1(total: Floats) -> Floats:
    """Mean over POPE's files of F1 × 100, 0 where nothing is there or said to be."""
    tp, fp, fn = (total[..., kind * F1_FILES : (kind + 1) * F1_FILES] for kind in range(3))
    below = 2 * tp + fp + fn
    found: Floats = 100 * np.divide(2 * tp, below, out=np.zeros_like(tp), where=below > 0).mean(axis=-1)
    return found


def _bleu4(total: Floats) -> Floats:
    """BLEU-4 × 100 of summed counts, 0 without a common 4-gram."""
    correct, guess, length, reference = total[..., :4], total[..., 4:8], total[..., 8], total[..., 9]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = np.exp(np.log(correct / guess).mean(axis=-1))
        brevity = np.exp(np.minimum(0.0, 1 - reference / length))
    found: Floats = 100 * np.nan_to_num(precision * brevity)
    return found


def _weights(sums: Sums) -> Iterator[Floats]:
    """How often each draw takes each image."""
    stream, g = _stream("bootstrap", sums.metric), len(sums.groups)
    for _ in range(DRAWS // CHUNK):
        drawn = stream.integers(g, size=(CHUNK, g)) + g * np.arange(CHUNK)[:, None]  # counted at once, faster than
        yield np.bincount(drawn.ravel(), minlength=CHUNK * g).reshape(CHUNK, g).astype(np.float64)  # a multinomial


def _stream(use: str, metric: str) -> np.random.Generator:
    """Named after its use: equal records give equal digits."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(f"{use} {metric}".encode()).digest()[:8]))


def _whole(sums: Sums) -> float:
    return float(sums.of(sums.sums.sum(axis=0)))


def _spread(value: float, draws: Floats) -> Spread:
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Spread(value, float(low), float(high))


def _discordant(first: Mapping[str, bool], second: Mapping[str, bool]) -> tuple[int, int]:
    only_first = sum(first[item] and not second[item] for item in first)
    return only_first, sum(second[item] and not first[item] for item in first)
