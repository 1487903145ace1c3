"""Captions and answers of other images: how much of a score belongs to the image that was looked at.

Scores of transfer/metrics/shuffled.py and of questions asked about another picture, which runs recorded beside their
metrics since there were any; a run from before has none, and a page of such runs has no such section.
"""

from collections.abc import Sequence
from statistics import fmean
from typing import NamedTuple

from results.frame import Filled
from results.page.markdown import DASH, escape
from results.page.markdown import table as markdown_table
from results.schema import BLIND, Column, Kind, Row, metric_key

_CAPTIONS = (
    "## Captions of other images",
    "The score, and after the slash that of the same captions each given to another test image: what a head earns "
    "without looking at the image, however well it has learned what captions look like. Means over seeds.",
)
_ANSWERS = (
    "## Answers about other images",
    "The score, and after the slash that of the same questions asked about another image of the test set: what a model "
    "earns without looking, however well it knows what is asked and answered. Means over seeds.",
)


def shuffled(filled: Filled) -> list[str]:
    """Every column that has a shuffled twin, captions and answers apart."""
    talks = [column for column in filled.columns if column.task == Kind.DIALOGUE]
    others = [column for column in filled.columns if column.task != Kind.DIALOGUE]
    parts = [_section(filled, others, *_CAPTIONS), _section(filled, talks, *_ANSWERS)]
    return [line for number, part in enumerate(filter(None, parts)) for line in ([""] if number else []) + part]


def _section(filled: Filled, among: Sequence[Column], title: str, about: str) -> list[str]:
    """Each column twice: about the image itself, and about another."""
    pairs = {(row.label, column.key): _both(filled, row, column) for row in filled.rows for column in among}
    columns = [column for column in among if any(pairs[row.label, column.key] for row in filled.rows)]
    rows = [row for row in filled.rows if any(pairs[row.label, column.key] for column in columns)]
    if not columns:
        return []
    few = {each.fewer for column in columns for row in rows if (each := pairs[row.label, column.key])}
    everywhere = few.pop() if len(few) == 1 else ""
    about += f" Here over {everywhere}." if everywhere else ""
    lines = []
    for column in columns:
        found = [pairs[row.label, column.key] for row in rows]
        cells = ((each.text if everywhere else each.with_seeds) if each else DASH for each in found)
        lines.append([escape(column.name(filled.scale)), *cells])
    header = ["column", *(escape(row.label) for row in rows)]
    absent = [row.label for row in filled.rows if row not in rows and _asked(filled, row, columns)]
    note = ["", f"Runs from before there was such a score: {', '.join(map(escape, absent))}."] if absent else []
    return [title, "", about, "", *markdown_table(header, lines, left=1), *note]


def _asked(filled: Filled, row: Row, columns: Sequence[Column]) -> bool:
    """Whether a row has numbers in these columns, and looks at images."""
    return row.mode != BLIND and any(column.asked_of(row) and filled.values(row, column) for column in columns)


class Both(NamedTuple):
    """A score and its shuffled twin, over the seeds that have both."""

    own: float
    other: float
    seeds: int
    of: int  # seeds that have the score

    @property
    def fewer(self) -> str:
        """Of how many seeds, where those are fewer than the table's."""
        return f"{self.seeds} of {self.of} seeds" if self.seeds < self.of else ""

    @property
    def text(self) -> str:
        """As printed."""
        return f"{self.own:.1f} / {self.other:.1f}"

    @property
    def with_seeds(self) -> str:
        """As printed where others are means over other seeds."""
        return f"{self.text} ({self.fewer})" if self.fewer else self.text


def _both(filled: Filled, row: Row, column: Column) -> Both | None:
    twin = metric_key(column.dataset, f"shuffled_{column.metric}")
    seeds = [seed for seed in filled.seeds(row, column) if seed.value is not None]
    found = [
        (seed.value, seed.record.metrics[twin])
        for seed in seeds
        if seed.value is not None and seed.record is not None and twin in seed.record.metrics
    ]
    if not found:
        return None
    return Both(fmean(own for own, _ in found), fmean(other for _, other in found), len(found), len(seeds))
