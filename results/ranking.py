"""Which of the paper's orderings of two rows come out in the measured numbers."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from results.frame import mean_sd


class Verdict(NamedTuple):
    """One pair of rows that the paper ranks, in one column."""

    better: str  # row the paper puts ahead
    worse: str
    paper_gap: float  # in the direction that is better, > 0
    gap: float  # measured, in the same direction
    noise: float | None  # s.d. of the difference of two runs; None when a row has one seed

    @property
    def within_noise(self) -> bool:
        """The measured difference is no larger than its s.d.; without one, only if there is no difference."""
        return abs(self.gap) <= (self.noise or 0.0)


@dataclass(frozen=True)
class Ranked:
    """A row as the orderings see it."""

    label: str
    values: tuple[float, ...]  # measured, one a seed
    paper: float | None


def orderings(rows: Sequence[Ranked], higher_is_better: bool) -> list[Verdict]:
    """Every pair of measured rows that the paper ranks, largest gap of the paper first; its ties rank nothing."""
    sign = 1 if higher_is_better else -1
    found = []
    usable = [(row, row.paper, mean_sd(row.values)) for row in rows if row.paper is not None and row.values]
    for i, (a, paper_a, (mean_a, sd_a)) in enumerate(usable):
        for b, paper_b, (mean_b, sd_b) in usable[i + 1 :]:
            gap, paper_gap = sign * (mean_a - mean_b), sign * (paper_a - paper_b)
            noise = None if sd_a is None or sd_b is None else math.hypot(sd_a, sd_b)
            if paper_gap > 0:
                found.append(Verdict(a.label, b.label, paper_gap, gap, noise))
            elif paper_gap < 0:
                found.append(Verdict(b.label, a.label, -paper_gap, -gap, noise))
    return sorted(found, key=lambda verdict: (-verdict.paper_gap, verdict.better, verdict.worse))
