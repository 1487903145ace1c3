"""When a difference of two rows counts: the one rule of noise behind bold print, findings and orderings.

A difference of means counts when it exceeds t √(s₁²/n₁ + s₂²/n₂): s the standard deviation over the n seeds of either
row, t Student's 97.5 % point at the smaller n - 1 degrees of freedom, which is conservative where the s.d. differ. It
is the 95 % interval of one comparison: not corrected for the number of comparisons, and blind to the finite test set
that all seeds share. It describes a page, whose rows may have different seeds; the paper's claims are decided by paired
seeds in results/statistics/hypotheses.py.
"""

import math
from collections.abc import Sequence
from enum import Enum

from results.frame import mean_sd
from results.statistics.t_tests import t_quantile


class Standing(Enum):
    """How a row stands to another in one column, in the direction that is better."""

    ABOVE = "above"
    BELOW = "below"
    UNDECIDED = "undecided"


def quantile(seeds: int) -> float:
    """t for a row of that many seeds, at least 2. Raises ValueError for fewer: one seed has no s.d."""
    if seeds < 2:
        raise ValueError(f"noise needs at least 2 seeds, got {seeds}")
    return t_quantile(0.975, seeds - 1)


def needed(a: Sequence[float], b: Sequence[float]) -> float | None:
    """What the difference of two rows' means must exceed to count; None where a row has fewer than two seeds."""
    if min(len(a), len(b)) < 2:
        return None
    variance = sum(float(mean_sd(each)[1] or 0.0) ** 2 / len(each) for each in (a, b))
    return quantile(min(len(a), len(b))) * math.sqrt(variance)


def standing(a: Sequence[float], b: Sequence[float], higher_is_better: bool) -> Standing:
    """How values `a` stand to values `b`, each one or more; undecided where the noise is not known."""
    gap = (mean_sd(a)[0] - mean_sd(b)[0]) * (1 if higher_is_better else -1)
    noise = needed(a, b)
    if noise is None or abs(gap) <= noise:
        return Standing.UNDECIDED
    return Standing.ABOVE if gap > 0 else Standing.BELOW
