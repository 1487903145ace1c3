"""The measured table, its footnotes, the paper's table, and the difference of the two at a scale of the paper."""

from collections.abc import Sequence
from typing import NamedTuple

from results.frame import Filled, mean_sd
from results.page.markdown import DASH, escape, spread
from results.page.markdown import table as markdown_table
from results.paper import value as paper_value
from results.schema import Cell, Column, Row
from results.statistics.noise import Standing, standing


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


def measured(filled: Filled) -> list[str]:
    """Every row and column of the paper's table as measured here; controls below the methods, chance at the end."""
    columns, notes = filled.table.columns, Notes()
    header = ["method", "task", "pre-training data", "seeds", *(column.title(filled.scale) for column in columns)]

    def line(row: Row) -> list[str]:
        cells = [filled.cells[row.label, column.key] for column in columns]
        seeds = max((len(cell.values) + len(cell.missing) for cell in cells if cell.values), default=0)
        numbers = []
        for column, cell in zip(columns, cells, strict=True):
            text = number(cell, seeds, notes)
            numbers.append(f"**{text}**" if leads(filled, row, column) else text)
        return [*_labels(row, filled), str(seeds or DASH), *numbers]

    empty = [""] * (len(header) - 1)
    lines = [line(row) for row in filled.methods]
    if controls := [line(row) for row in filled.rows if row.control]:
        lines += [["*controls (no methods of the paper)*", *empty], *controls]
    lines.append(["*chance*", "", "", "", *(chance(filled, column) for column in columns)])
    about = (
        "Mean ± standard deviation over seeds (ddof 1; one seed has none); × 100 as in the paper. In bold: ahead of "
        "every other method by more than the noise."
    )
    return ["## Measured here", "", about, "", *markdown_table(header, lines, left=3), *notes.lines()]


def number(cell: Cell, seeds: int, notes: Notes) -> str:
    """A measured cell; with another number of seeds than its row it says so and why."""
    if not cell.values:
        return f"{DASH} ({notes.mark(cell.missing)})"
    mean, sd = mean_sd(cell.values)
    text = f"{mean:.1f}" if sd is None else f"{mean:.1f} ± {sd:.1f}"
    short = [f"{len(cell.values)} of {seeds}"] if len(cell.values) != seeds else []
    why = [notes.mark(cell.missing)] if cell.missing else []
    return f"{text} ({', '.join(short + why)})" if short or why else text


def leads(filled: Filled, row: Row, column: Column) -> bool:
    """Whether a method is ahead of every other one, of which there is one, beyond the noise."""
    others = [other for other in filled.methods if other is not row]
    rivals = [values for other in others if (values := filled.values(other, column))]
    values = filled.values(row, column)
    if row.control or not values or not rivals:
        return False
    return all(standing(values, rival, column.higher_is_better) is Standing.ABOVE for rival in rivals)


def chance(filled: Filled, column: Column) -> str:
    """The value of an encoder that knows nothing, as the task computed it."""
    records = [seed.record for row in filled.rows for seed in filled.seeds(row, column) if seed.value is not None]
    values = [record.chance[column.metric_key] for record in records if record and column.metric_key in record.chance]
    return spread(values, "{:.1f}")


class PaperLine(NamedTuple):
    """A line of the paper's table: of a row that is measured here, or printed for comparison only."""

    row: str  # label, "" for one that is not measured
    line: str  # what selects it in the paper's table
    numbers: tuple[float | None, ...]  # by column

    @property
    def shown(self) -> list[str]:
        """The numbers as printed."""
        return [DASH if each is None else f"{each:.1f}" for each in self.numbers]


def paper_lines(filled: Filled) -> list[PaperLine]:
    """The paper's lines for the rows of the table, and those that are references."""
    columns = filled.table.columns
    found = [
        PaperLine(row.label, ", ".join(row.paper.values()), tuple(filled.paper(row, column) for column in columns))
        for row in filled.rows
        if row.paper
    ]
    for reference in filled.table.references:
        numbers = tuple(paper_value(filled.table.paper_csv, reference, column.key) for column in columns)
        found.append(PaperLine("", ", ".join(reference.values()), numbers))
    return found


def paper(filled: Filled) -> list[str]:
    """The paper's numbers, in a table of their own."""
    lines = [[escape(each.row) or DASH, escape(each.line), *each.shown] for each in paper_lines(filled)]
    header = ["row above", "line in the paper", *(f"paper: {column.label}" for column in filled.table.columns)]
    title = filled.table.title
    about = f"As printed in the paper's {title}: single runs, no error bars. **Nothing of it was measured here.**"
    return ["## The paper's numbers", "", about, "", *markdown_table(header, lines, left=2)] if lines else []


def deltas(filled: Filled) -> list[str]:
    """Measured minus the paper, for a table made under the paper's recipe."""
    lines = []
    for row in (row for row in filled.rows if row.paper):
        numbers = []
        for column in filled.table.columns:
            values, printed = filled.values(row, column), filled.paper(row, column)
            own = column.analogue.get(filled.scale) is not None  # a set of the user's own, which the paper never saw
            numbers.append(DASH if not values or printed is None or own else f"{mean_sd(values)[0] - printed:+.1f}")
        lines.append([escape(row.label), *numbers])
    header = ["method", *(column.name(filled.scale) for column in filled.table.columns)]
    about = "The paper gives one number per cell, so this is a difference and no test."
    return ["## Measured minus the paper", "", about, "", *markdown_table(header, lines)] if lines else []


def _labels(row: Row, filled: Filled) -> list[str]:
    data = DASH if row.objective is None else filled.publication.data_label(row)
    return [escape(row.label), escape(row.task), escape(data)]
