"""Publication -> Markdown and CSV. Equal records give equal bytes: no dates, no timings, nothing typed by hand.

Measured numbers and the paper's stand in tables of their own. A cell without a number says why. The sections below the
tables (results/sections.py) are computed from the records' specs.
"""

import csv
import io
from collections.abc import Mapping, Sequence

from results import sections
from results.frame import grid, mean_sd
from results.markdown import DASH, escape
from results.markdown import table as markdown_table
from results.paper import value as paper_value
from results.schema import Cell, Column, Publication, Row, Table

CSV_COLUMNS = (
    *("table", "scale", "row", "control", "column", "dataset", "metric"),
    *("mean", "sd", "n", "missing", "paper", "run_ids"),  # sd: over seeds, ddof 1
)
REDUCED = "NOT THE PAPER'S RECIPE, not comparable with the paper"


def render(table: Table, publication: Publication) -> str:
    """The whole page of one table."""
    cells = grid(table, publication)
    warning = publication.warning or (REDUCED if sections.changes(publication) else "")
    parts = [
        _head(table, warning),
        _measured("Measured here", table, table.columns, publication, cells),
        _paper(table, publication),
        [] if warning else _deltas(table, publication, cells),
        sections.orderings(table, publication, cells),
        _measured("Also measured", table, table.more_columns, publication, cells) if table.more_columns else [],
        sections.cost(table, publication),
        sections.pretraining(table, publication),
        sections.recipe(publication),
        sections.row_differences(table, publication),
        sections.legend(table, publication, cells),
        sections.provenance(publication),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def render_csv(table: Table, publication: Publication) -> str:
    """One line per cell: mean, s.d., n, what is missing, the paper's value in a column of its own, the runs."""
    cells = grid(table, publication)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in table.rows_at(publication.scale):
        for column in (*table.columns, *table.more_columns):
            cell = cells[row.label, column.key]
            mean, sd = mean_sd(cell.values) if cell.values else (None, None)
            printed = paper_value(table.paper_csv, row.paper, column.key) if column in table.columns else None
            writer.writerow(
                [table.name, publication.scale, row.label, int(row.control), column.key, column.dataset, column.metric]
                + ["" if number is None else f"{number:.6g}" for number in (mean, sd)]
                + [len(cell.values), "; ".join(dict.fromkeys(cell.missing)), "" if printed is None else printed]
                + [" ".join(cell.run_ids)]
            )
    return text.getvalue()


class Notes:
    """Footnotes of one table: equal reasons share a letter."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, reasons: Sequence[str]) -> str:
        """The letters of these reasons: "a" or "a, c"."""
        for reason in reasons:
            self._marks.setdefault(reason, _letters(len(self._marks)))
        return ", ".join(dict.fromkeys(self._marks[reason] for reason in reasons))

    def lines(self) -> list[str]:
        """One line a note."""
        return ["", *(f"({mark}) {escape(reason)}  " for reason, mark in self._marks.items())] if self._marks else []


def _letters(index: int) -> str:
    return (_letters(index // 26 - 1) if index >= 26 else "") + chr(ord("a") + index % 26)


def _head(table: Table, warning: str) -> list[str]:
    lines = [f"# {table.title}: {warning}" if warning else f"# {table.title}", "", table.caption]
    if warning:
        lines += [
            "",
            f"> **{warning}.** Read the orderings, not the levels; what differs from the paper is listed below.",
        ]
    return lines


def _measured(
    title: str,
    table: Table,
    columns: Sequence[Column],
    publication: Publication,
    cells: Mapping[tuple[str, str], Cell],
) -> list[str]:
    notes = Notes()
    rows = table.rows_at(publication.scale)
    best = _best(rows, columns, cells)
    header = ["method", "task", "pre-training data", "seeds", *(c.title(publication.scale) for c in columns)]

    def line(row: Row) -> list[str]:
        found = [cells[row.label, column.key] for column in columns]
        seeds = max((len(cell.values) + len(cell.missing) for cell in found if cell.values), default=0)
        numbers = []
        for column in columns:
            cell = cells[row.label, column.key]
            text = _number(cell, seeds, notes)
            numbers.append(f"**{text}**" if (row.label, column.key) in best else text)
        return [*_labels(row, publication.data_prefix), str(seeds or DASH), *numbers]

    empty = [""] * (len(header) - 1)
    lines = [line(row) for row in rows if not row.control]
    if controls := [line(row) for row in rows if row.control]:
        lines += [["*controls (no methods of the paper)*", *empty], *controls]
    lines.append(["*chance*", "", "", "", *(sections.chance(publication, column) for column in columns)])
    about = (
        "Mean ± standard deviation over seeds (ddof 1; one seed has none); × 100 as in the paper. Best mean in bold."
    )
    return [f"## {title}", "", about, "", *markdown_table(header, lines, left=3), *notes.lines()]


def _paper(table: Table, publication: Publication) -> list[str]:
    rows = [row for row in table.rows_at(publication.scale) if row.paper]
    lines = []
    for row in rows:
        printed = [paper_value(table.paper_csv, row.paper, column.key) for column in table.columns]
        numbers = [DASH if number is None else f"{number:.1f}" for number in printed]
        lines.append([*_labels(row), escape(", ".join(row.paper.values())), *numbers])
    header = [
        "row above",
        "task",
        "pre-training data",
        "line in the paper",
        *(f"paper: {c.label}" for c in table.columns),
    ]
    about = f"As printed in the paper's {table.title}: single runs, no error bars. **Nothing of it was measured here.**"
    return ["## The paper's numbers", "", about, "", *markdown_table(header, lines, left=4)] if lines else []


def _deltas(table: Table, publication: Publication, cells: Mapping[tuple[str, str], Cell]) -> list[str]:
    lines = []
    for row in (row for row in table.rows_at(publication.scale) if row.paper):
        numbers = []
        for column in table.columns:
            cell, printed = cells[row.label, column.key], paper_value(table.paper_csv, row.paper, column.key)
            known = cell.values and printed is not None
            numbers.append(f"{mean_sd(cell.values)[0] - printed:+.1f}" if known and printed is not None else DASH)
        lines.append([escape(row.label), *numbers])
    header = ["method", *(column.label for column in table.columns)]
    about = "The paper gives one number per cell, so this is a difference and no test."
    return ["## Measured minus the paper", "", about, "", *markdown_table(header, lines)] if lines else []


def _labels(row: Row, data_prefix: str = "") -> list[str]:
    data = DASH if row.objective is None else data_prefix + row.data
    return [escape(row.label), escape(row.task), escape(data if row.mode == "frozen" else f"{data}, {row.mode}")]


def _number(cell: Cell, seeds: int, notes: Notes) -> str:
    """A measured cell; with another number of seeds than its row it says so and why."""
    if not cell.values:
        return f"{DASH} ({notes.mark(cell.missing)})"
    mean, sd = mean_sd(cell.values)
    text = f"{mean:.1f}" if sd is None else f"{mean:.1f} ± {sd:.1f}"
    short = [f"{len(cell.values)} of {seeds}"] if len(cell.values) != seeds else []
    why = [notes.mark(cell.missing)] if cell.missing else []
    return f"{text} ({', '.join(short + why)})" if short or why else text


def _best(
    rows: Sequence[Row], columns: Sequence[Column], cells: Mapping[tuple[str, str], Cell]
) -> set[tuple[str, str]]:
    """Cells with the best mean as printed, among methods transferred in one mode; none where only one is measured."""
    best: set[tuple[str, str]] = set()
    for mode in {row.mode for row in rows}:
        for column in columns:
            sign = 1 if column.higher_is_better else -1
            group = [row.label for row in rows if row.mode == mode and not row.control]
            means = {
                label: sign * round(mean_sd(cells[label, column.key].values)[0], 1)
                for label in group
                if cells[label, column.key].values
            }
            if len(means) > 1:
                best |= {(label, column.key) for label, mean in means.items() if mean == max(means.values())}
    return best
