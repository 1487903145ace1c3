"""Which of the paper's orderings of two rows come out in the measured numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from results.frame import mean_sd
from results.statistics.noise import Standing, standing

# Points by which the paper must separate two rows before their order is asked for here. It prints single runs without
# error bars; the test set alone moves a difference of two of its COCO TR@1 by 2 points (5,000 images, 95 %).
PAPER_GAP = 2.0


class Ordering(NamedTuple):
    """One pair of rows that the paper separates, in one column."""

    better: str  # row the paper puts ahead
    worse: str
    paper_gap: float  # in the direction that is better, >= PAPER_GAP
    gap: float  # measured, in the same direction
    standing: Standing  # of `better` to `worse`: above comes out, below is reversed


@dataclass(frozen=True)
class Ranked:
    """A row as the orderings see it."""

    label: str
    values: tuple[float, ...]  # measured, one a seed
    paper: float | None


def orderings(rows: Sequence[Ranked], higher_is_better: bool) -> list[Ordering]:
    """Every pair of measured rows that the paper separates by PAPER_GAP or more, its largest gap first."""
    sign = 1 if higher_is_better else -1
    usable = [row for row in rows if row.paper is not None and row.values]
    found = []
    for a in usable:
        for b in usable:
            paper_gap = round(sign * ((a.paper or 0.0) - (b.paper or 0.0)), 6)  # 34.5 - 32.5 is 2.0
            if paper_gap >= PAPER_GAP:
                gap = sign * (mean_sd(a.values)[0] - mean_sd(b.values)[0])
                how = standing(a.values, b.values, higher_is_better)
                found.append(Ordering(a.label, b.label, paper_gap, gap, how))
    return sorted(found, key=lambda each: (-each.paper_gap, each.better, each.worse))
