"""The statistics that decide over seeds: Student's t, Holm over a family, and how many seeds a claim would take.

Standard library only. Student's distribution function is the finite sum for whole degrees of freedom (Abramowitz and
Stegun 26.7.3 and 26.7.4), which is exact; its quantile is found by halving. Tests compare with scipy and statsmodels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

CONFIDENCE = 0.95
POWER = 0.8  # chance that the planned number of seeds decides, if effect and s.d. are as seen
MOST_SEEDS = 1000  # beyond this a number of seeds is no plan


@dataclass(frozen=True)
class TTest:
    """Student's t of differences that are paired by seed, against 0."""

    mean: float
    sd: float  # ddof 1
    n: int
    low: float  # of the 95 % interval of the mean
    high: float
    p_above: float  # of a mean at least so large if it were 0 or less
    p_below: float

    @property
    def p(self) -> float:
        """Two-sided."""
        return min(1.0, 2 * min(self.p_above, self.p_below))


def t_test(differences: Sequence[float]) -> TTest:
    """Test of at least two differences, one a seed. Differences that are all equal have no noise: p is 0, or 1 at 0.

    Raises ValueError for fewer: one seed has no standard deviation.
    """
    n = len(differences)
    if n < 2:
        raise ValueError(f"a t-test needs at least 2 seeds, got {n}; run more seeds")
    mean, sd = fmean(differences), stdev(differences)
    error = sd / math.sqrt(n)
    t = mean / error if error else math.copysign(math.inf, mean) if mean else 0.0
    half = t_quantile((1 + CONFIDENCE) / 2, n - 1) * error
    return TTest(mean, sd, n, mean - half, mean + half, 1 - t_cdf(t, n - 1), t_cdf(t, n - 1))


def t_cdf(t: float, df: int) -> float:
    """P(T <= t) of Student's distribution with `df` = 1, 2, ... degrees of freedom."""
    theta = math.atan(t / math.sqrt(df))
    sine, square = math.sin(theta), math.cos(theta) ** 2
    term, found = (math.cos(theta), 0.0) if df % 2 else (1.0, 0.0)
    for k in range(df % 2, df - 1, 2):  # powers 1, 3, ... or 0, 2, ... of the cosine, up to df - 2
        found += term
        term *= square * (k + 1) / (k + 2)
    within = 2 / math.pi * (theta + sine * found) if df % 2 else sine * found
    return min(1.0, max(0.0, 0.5 + within / 2))


@cache
def t_quantile(p: float, df: int) -> float:
    """The t that a share `p`, 0 < p < 1, of Student's distribution stays below; to 12 digits."""
    if p < 0.5:
        return -t_quantile(1 - p, df)
    low, high = 0.0, 1.0
    while t_cdf(high, df) < p:
        low, high = high, 2 * high
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, df) < p else (low, middle)
    return high


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given: each may be compared with the level of the whole family."""
    adjusted = [0.0] * len(ps)
    largest = 0.0
    for place, index in enumerate(sorted(range(len(ps)), key=lambda each: ps[each])):
        largest = max(largest, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = largest
    return adjusted


def seeds_needed(effect: float, sd: float, level: float) -> int | None:
    """Seeds that would show an effect, one-sided at `level`, four times in five; None where MOST_SEEDS would not do.

    The usual approximation: (t_{1 - level} + t_{power}) sd / sqrt(n) <= |effect|, t at n - 1 degrees of freedom.
    """

    def enough(n: int) -> bool:
        quantiles = t_quantile(1 - level, n - 1) + t_quantile(POWER, n - 1)
        return quantiles * sd <= abs(effect) * math.sqrt(n)

    if effect == 0 or not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
