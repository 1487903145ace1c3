"""Pictures of a table: against training compute, along training, against budget, and against a setting that differs.

A chart is one picture; a figure is several with one legend, a panel for each column of the table. Points are means over
seeds, bands reach from the smallest to the largest.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from results.alarms import DIAGNOSTICS
from results.details.curves import Curves
from results.frame import Filled
from results.html.charts import Axis, Chart, Drawn, Series, draw
from results.page.pretraining import encoders
from results.record import RecordError
from results.schema import Column, Row

BUDGET = "pretrain.images"  # the setting that rows of one method differ in where a table asks how much is enough


@dataclass(frozen=True)
class Figure:
    """Panels that share their lines."""

    name: str  # of a file
    title: str
    about: str
    panels: tuple[Chart, ...]
    legend: tuple[Drawn, ...]


def compute_charts(filled: Filled) -> list[Chart]:
    """The equal-compute view: a column of each task against training FLOPs, rows of one objective joined by budget."""
    columns = {column.task: column for column in reversed(filled.table.columns)}

    def flops(row: Row) -> float:
        runs = encoders(filled, row)
        return fmean(run.train_flops for run in runs) if runs else 0.0

    found = []
    for column in columns.values():
        points = [(method(row), flops(row), filled.values(row, column)) for row in filled.rows]
        title = f"{column.name(filled.scale)} against training compute"
        found.append(draw(title, "training FLOPs", column.name(filled.scale), _joined(points), "log"))
    return [chart for chart in found if chart is not None]


def curve_charts(filled: Filled, curves: Curves) -> list[Chart]:
    """Diagnostics in training: mean of the seeds with a band from the smallest to the largest."""
    found = []
    for metric, heading in DIAGNOSTICS.items():
        series = []
        for row in filled.rows:
            runs = [curves.get(run.run_id, {}).get(metric, []) for run in encoders(filled, row)]
            series.append(Series(row.label, _band([run for run in runs if run])))
        found.append(draw(f"{heading} in training", "images seen", heading, series))
    return [chart for chart in found if chart is not None]


def budget_figure(filled: Filled) -> Figure | None:
    """Every column against the images of pre-training, a line a method; None for a table that varies no budget."""
    budgets = [row for row in filled.rows if BUDGET in row.override]
    if not budgets:
        return None

    def points(column: Column) -> list[tuple[str, float, tuple[float, ...]]]:
        return [(method(row), float(row.override[BUDGET]), filled.values(row, column)) for row in budgets]

    about = "Each point is a run with a schedule of its own, not a stop on the way. Bands reach over the seeds."
    title, name = f"{filled.table.title}: what each method needs", filled.publication.name
    return _figure(name, title, about, filled, points, "images of pre-training", "log")


def setting_figure(several: Sequence[Filled]) -> Figure | None:
    """One table under several values of one setting (`Publication.settings`), a line a row; None for one table alone.

    Raises RecordError where they differ in no setting, in more than one, or in one that is no number.
    """
    if len(several) < 2:
        return None
    key, values = _setting([filled.publication.settings for filled in several], several[0].table.title)
    bare = len(several) - len(values)  # without the setting: which value that is, its records do not say
    several = [filled for filled in several if key in filled.publication.settings]
    if len(several) < 2:
        return None
    rows = {row.label: row for filled in several for row in filled.rows}

    def points(column: Column) -> list[tuple[str, float, tuple[float, ...]]]:
        cells = [(x, filled.cells) for x, filled in zip(values, several, strict=True)]
        return [
            (label, x, held[label, column.key].values)
            for label in rows
            for x, held in cells
            if (label, column.key) in held
        ]

    left_out = f" Not in it: the table that was swept without {key}." if bare else ""
    about = f"One table a value of {key}. Bands reach over the seeds.{left_out}"
    title, name = f"{several[0].table.title}: against {key}", f"{several[0].publication.name}-{key.rpartition('.')[2]}"
    return _figure(name, title, about, several[0], points, key, "linear")


def method(row: Row) -> str:
    """What a row's line is called: rows that differ in their budget only are one line."""
    return row.label.partition(",")[0] if BUDGET in row.override else row.label


def _setting(held: Sequence[Mapping[str, str]], title: str) -> tuple[str, list[float]]:
    keys = sorted({key for each in held for key in each})
    varied = [key for key in keys if len({each.get(key) for each in held}) > 1]
    if len(varied) != 1:
        said = f"in {', '.join(varied)}" if varied else "in no setting"
        raise RecordError(f"{len(held)} records of {title} differ {said}; one figure needs exactly one that differs")
    given = [each[varied[0]] for each in held if varied[0] in each]
    if double := [value for value, n in Counter(given).items() if n > 1]:
        raise RecordError(f"{title} with {varied[0]}={double[0]} is there twice; give one folder a value")
    try:
        return varied[0], [float(value) for value in given]
    except ValueError:
        raise RecordError(
            f"{title}: values of {varied[0]} are {', '.join(map(repr, given))}, not all numbers"
        ) from None


Points = list[tuple[str, float, tuple[float, ...]]]  # name of the line, x, values of the seeds


def _figure(
    name: str, title: str, about: str, filled: Filled, points: Callable[[Column], Points], x_label: str, axis: Axis
) -> Figure | None:
    found = []
    for column in filled.table.columns:
        called = column.name(filled.scale)
        found.append(draw(called, x_label, called, _joined(points(column)), axis))
    panels = tuple(chart for chart in found if chart is not None)
    lines = {line.label: line for chart in panels for line in chart.lines}
    legend = tuple(sorted(lines.values(), key=lambda line: line.number))
    return Figure(name, title, about, panels, legend) if panels else None


def _joined(points: Points) -> list[Series]:
    """A line for each name, in order of first mention whether it has values or not: lines keep their colour."""
    lines: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name, _, _ in points}
    for name, x, values in points:
        if values:
            lines[name].append((x, fmean(values), min(values), max(values)))
    return [Series(name, tuple(sorted(found))) for name, found in lines.items()]


def _band(runs: Sequence[Sequence[tuple[float, float]]]) -> tuple[tuple[float, float, float, float], ...]:
    """Mean and range at each x that all seeds have."""
    if not runs:
        return ()
    tables: list[Mapping[float, float]] = [dict(run) for run in runs]
    shared = sorted(set.intersection(*(set(table) for table in tables)))
    values = {x: [table[x] for table in tables] for x in shared}
    return tuple((x, fmean(values[x]), min(values[x]), max(values[x])) for x in shared)
