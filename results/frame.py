"""A table as its records fill it: cells, their seeds, and the long form with one line a seed and cell."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from results.paper import value as paper_value
from results.schema import BLIND, Cell, Column, Publication, Row, RunRecord, Slot, Status, Table

LONG_COLUMNS = (
    *("table", "scale", "row", "column", "task", "dataset", "metric", "seed", "value", "direction", "chance"),
    *("items", "run_id", "commit", "missing"),
)


@dataclass(frozen=True)
class Seed:
    """One seed of one cell: a value with the record it comes from, or why there is none."""

    slot: Slot
    value: float | None
    missing: str  # "" where there is a value
    record: RunRecord | None


@dataclass(frozen=True)
class Filled:
    """A declared table and the publication that fills it."""

    table: Table  # its columns named after the test sets that were read
    publication: Publication

    def __post_init__(self) -> None:
        named = self.table.on(self.publication.own_sets, self.publication.scale)
        object.__setattr__(self, "table", named)  # the dataclass is frozen

    @property
    def scale(self) -> str:
        """Name of the scale."""
        return self.publication.scale

    @property
    def rows(self) -> tuple[Row, ...]:
        """Rows of the table at this scale."""
        return self.table.rows_at(self.scale)

    @property
    def methods(self) -> tuple[Row, ...]:
        """Rows that are no controls."""
        return tuple(row for row in self.rows if not row.control)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The paper's columns and those measured besides."""
        return (*self.table.columns, *self.table.more_columns)

    @cached_property
    def cells(self) -> dict[tuple[str, str], Cell]:
        """Every cell by (row label, column key)."""
        return {(row.label, column.key): self._cell(row, column) for row in self.rows for column in self.columns}

    def values(self, row: Row, column: Column) -> tuple[float, ...]:
        """Values of a cell in order of seed; empty where there is none."""
        return self.cells[row.label, column.key].values

    def paper(self, row: Row, column: Column) -> float | None:
        """The paper's number for a cell, None where it prints none or the column is not its."""
        return paper_value(self.table.paper_csv, row.paper, column.key) if column in self.table.columns else None

    def seeds(self, row: Row, column: Column) -> list[Seed]:
        """The seeds of a cell in order; empty where no run of this table is meant to fill it."""
        wanted = (row.label, column.task) if column.asked_of(row) else None
        slots = [slot for slot in self.publication.slots if (slot.row, slot.stage) == wanted]
        return [self._seed(slot, column) for slot in sorted(slots, key=lambda slot: slot.seed)]

    def _seed(self, slot: Slot, column: Column) -> Seed:
        record = self.publication.records.get(slot.run_id)
        if record is None:
            return Seed(slot, None, slot.problem or "not run yet", None)
        if record.status is not Status.DONE:
            return Seed(slot, None, f"{record.status.value}: {record.reason}", record)
        if column.metric_key not in record.metrics:
            why = record.unavailable.get(column.metric_key, f"{column.task} gave no {column.metric_key}")
            return Seed(slot, None, why, record)
        return Seed(slot, record.metrics[column.metric_key], "", record)

    def _cell(self, row: Row, column: Column) -> Cell:
        seeds = [] if row.unavailable else self.seeds(row, column)
        if not seeds:
            why = "not part of this sweep"
            if row.mode == BLIND:
                why = "it sees no image: only captions can be asked of it"
            elif not column.asked_of(row):
                why = f"asked of {column.mode} rows"
            return Cell(values=(), missing=(row.unavailable or why,), run_ids=())
        found = [seed for seed in seeds if seed.value is not None]
        return Cell(
            values=tuple(seed.value for seed in found if seed.value is not None),
            missing=tuple(seed.missing for seed in seeds if seed.value is None),
            run_ids=tuple(seed.slot.run_id for seed in found),
        )


def long_frame(filled: Filled) -> pd.DataFrame:
    """One line for every seed of every cell, LONG_COLUMNS; without a value it says why in `missing`.

    value, chance: in the unit of the column; direction: "higher" or "lower" is better; items: test items scored;
    commit: of the run that scored.
    """
    found = [
        {
            "table": filled.table.name,
            "scale": filled.scale,
            "row": row.label,
            "column": column.key,
            "task": column.task,
            "dataset": column.dataset,
            "metric": column.metric,
            "seed": seed.slot.seed,
            "value": seed.value,
            "direction": "higher" if column.higher_is_better else "lower",
            "chance": seed.record.chance.get(column.metric_key) if seed.record else None,
            "items": seed.record.items.get(column.dataset) if seed.record else None,
            "run_id": seed.slot.run_id,
            "commit": seed.record.commit if seed.record else "",
            "missing": seed.missing,
        }
        for row in filled.rows
        for column in filled.columns
        for seed in filled.seeds(row, column)
    ]
    types = {"value": "float64", "chance": "float64", "seed": "int64", "items": "Int64"}
    return pd.DataFrame(found, columns=list(LONG_COLUMNS)).astype(types)


def mean_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and s.d. (ddof 1) of at least one value; the s.d. of a single value is None."""
    series = pd.Series(list(values), dtype="float64")
    return float(series.mean()), float(series.std(ddof=1)) if len(series) > 1 else None
