"""The statistics that decide over seeds: Student's t, Holm over a family, and how many seeds a claim would take.

The numbers are scipy's and statsmodels'. Both are imported where they are used: importing them takes longer than
printing a page.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean, stdev

CONFIDENCE = 0.95
POWER = 0.8  # chance that the planned number of seeds decides, if effect and s.d. are as seen
MOST_SEEDS = 1000  # beyond this a number of seeds is no plan
LARGEST = 1000.0  # effect in s.d.: two or three seeds show it, and beyond it scipy's noncentral t loses its digits


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
    from scipy.special import stdtr
    from scipy.stats import ttest_1samp

    n = len(differences)
    if n < 2:
        raise ValueError(f"a t-test needs at least 2 seeds, got {n}; run more seeds")
    mean, sd = fmean(differences), stdev(differences)
    if sd == 0:  # scipy has no statistic without noise
        above, below = (0.5, 0.5) if mean == 0 else (float(mean < 0), float(mean > 0))
        return TTest(mean, sd, n, mean, mean, above, below)
    found = ttest_1samp(differences, 0.0)
    low, high = found.confidence_interval(CONFIDENCE)
    above, below = (float(stdtr(n - 1, sign * found.statistic)) for sign in (-1, 1))
    return TTest(mean, sd, n, float(low), float(high), above, below)


@cache
def t_quantile(p: float, df: int) -> float:
    """The t that a share `p`, 0 < p < 1, of Student's distribution stays below."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the order given: each may be compared with the level of the whole family."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(ps, method="holm")[1]] if ps else []


def seeds_needed(effect: float, sd: float, level: float) -> int | None:
    """Seeds at which a one-sided t-test at `level` shows an effect four times in five; None beyond MOST_SEEDS."""
    from statsmodels.stats.power import TTestPower

    if effect == 0:
        return None
    size, power = min(LARGEST, abs(effect) / sd if sd else math.inf), TTestPower()

    def enough(n: int) -> bool:
        return bool(power.power(size, n, level, alternative="larger") >= POWER)

    low, high = 1, 2
    while not enough(high):  # from below: far beyond the answer statsmodels' power is no number
        low, high = high, 2 * high
        if low >= MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high if high <= MOST_SEEDS else None
