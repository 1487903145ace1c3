"""How sure one checkpoint's scores are of the finite test sets: its 95 % intervals over images.

One seed a row: this is the variance of items, and another seed may differ by more (the s.d. of the measured table).
"""

from collections import defaultdict
from collections.abc import Mapping

from results.details.items import Scores
from results.frame import Filled
from results.html.grid import Cell, Grid
from results.page.markdown import DASH
from results.schema import Row
from results.statistics.resampling import DRAWS, Spread, Sums, metrics_of, spreads

ABOUT = (
    "The finite test set: one checkpoint a row, its first seed, with the 95 % interval over test images "
    f"({DRAWS:,} draws of images; the gallery of a retrieval and the document frequencies of CIDEr stay fixed). "
    "Nothing here says what another seed would score."
)


def intervals(filled: Filled, scores: Mapping[str, Scores]) -> Grid | None:
    """A line a row that has scores of single items; None where no row has any. scores: by run."""
    first = {row.label: _first(filled, row, scores) for row in filled.rows}
    kept = [row for row in filled.rows if first[row.label][1]]
    if not kept:
        return None
    found = _spreads({row.label: first[row.label][1] for row in kept})
    lines = []
    for row in kept:
        spread = [found.get((row.label, column.metric_key)) for column in filled.columns]
        lines.append((Cell(row.label), Cell(str(first[row.label][0])), *map(_cell, spread)))
    header = ("method", "seed", *(column.title(filled.scale) for column in filled.columns))
    return Grid(ABOUT, header, tuple(lines))


def _first(filled: Filled, row: Row, scores: Mapping[str, Scores]) -> tuple[int, Scores]:
    """The smallest seed of a row with item scores, and all that its transfers have; no scores where there is none."""
    slots = [slot for slot in filled.publication.slots if slot.row == row.label and scores.get(slot.run_id)]
    seed = min((slot.seed for slot in slots), default=0)
    together: Scores = {}
    for slot in slots:
        if slot.seed == seed:
            together |= scores[slot.run_id]
    return seed, together


def _spreads(scores: Mapping[str, Scores]) -> dict[tuple[str, str], Spread]:
    """By row and metric. Rows of one metric on the same images share their draws, which are most of the work."""
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[str, Sums]]] = defaultdict(list)
    for label, each in scores.items():
        for sums in metrics_of(each):
            groups[sums.metric, sums.groups].append((label, sums))
    return {
        (label, metric): spread
        for (metric, _), several in groups.items()
        for (label, _), spread in zip(several, spreads([sums for _, sums in several]), strict=True)
    }


def _cell(spread: Spread | None) -> Cell:
    return (
        Cell(DASH)
        if spread is None
        else Cell(f"{spread.value:.1f} [{spread.low:.1f}, {spread.high:.1f}]", spread.value)
    )
