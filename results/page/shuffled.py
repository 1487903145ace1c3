"""Captions of other images: how much of a captioning score belongs to the image that was looked at.

Scores of transfer/metrics/shuffled.py, which runs recorded beside their metrics since there were any; a run from before
has none, and a page of such runs has no such section.
"""

from statistics import fmean

from results.frame import Filled
from results.markdown import DASH, escape
from results.markdown import table as markdown_table
from results.schema import Column, Row, metric_key


def shuffled(filled: Filled) -> list[str]:
    """Each captioning column twice: scored against the image's own references, and with captions of another image."""
    pairs = {(row.label, column.key): _both(filled, row, column) for row in filled.rows for column in filled.columns}
    columns = [column for column in filled.columns if any(pairs[row.label, column.key] for row in filled.rows)]
    rows = [row for row in filled.rows if any(pairs[row.label, column.key] for column in columns)]
    if not columns:
        return []
    about = (
        "The score, and after the slash that of the same captions each given to another test image: what a head earns "
        "without looking at the image, however well it has learned what captions look like. Means over seeds."
    )
    lines = []
    for column in columns:
        found = [pairs[row.label, column.key] for row in rows]
        cells = (f"{each[0]:.1f} / {each[1]:.1f}" if each else DASH for each in found)
        lines.append([escape(column.name(filled.scale)), *cells])
    header = ["column", *(escape(row.label) for row in rows)]
    return ["## Captions of other images", "", about, "", *markdown_table(header, lines, left=1)]


def _both(filled: Filled, row: Row, column: Column) -> tuple[float, float] | None:
    """Means of the score and of its shuffled twin over the seeds that have both."""
    twin = metric_key(column.dataset, f"shuffled_{column.metric}")
    found = [
        (seed.value, seed.record.metrics[twin])
        for seed in filled.seeds(row, column)
        if seed.value is not None and seed.record is not None and twin in seed.record.metrics
    ]
    return (fmean(own for own, _ in found), fmean(other for _, other in found)) if found else None
