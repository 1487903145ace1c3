"""Captions and answers of other images: how much of a score belongs to the image that was looked at.

Scores of transfer/metrics/shuffled.py and of questions asked about another picture, which runs recorded beside their
metrics since there were any; a run from before has none, and a page of such runs has no such section.
"""

from collections.abc import Sequence
from statistics import fmean

from results.frame import Filled
from results.page.markdown import DASH, escape
from results.page.markdown import table as markdown_table
from results.schema import Column, Kind, Row, metric_key

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
    lines = []
    for column in columns:
        found = [pairs[row.label, column.key] for row in rows]
        cells = (f"{each[0]:.1f} / {each[1]:.1f}" if each else DASH for each in found)
        lines.append([escape(column.name(filled.scale)), *cells])
    header = ["column", *(escape(row.label) for row in rows)]
    return [title, "", about, "", *markdown_table(header, lines, left=1)]


def _both(filled: Filled, row: Row, column: Column) -> tuple[float, float] | None:
    """Means of the score and of its shuffled twin over the seeds that have both."""
    twin = metric_key(column.dataset, f"shuffled_{column.metric}")
    found = [
        (seed.value, seed.record.metrics[twin])
        for seed in filled.seeds(row, column)
        if seed.value is not None and seed.record is not None and twin in seed.record.metrics
    ]
    return (fmean(own for own, _ in found), fmean(other for _, other in found)) if found else None
