"""Publications as tables of numbers: one row per measured value, and mean, s.d. and n over seeds."""

import pandas as pd

from results.schema import Cell, Column, Publication, Row, Slot, Status, Table

COLUMNS = ("table", "scale", "row", "stage", "seed", "dataset", "metric", "value", "run_id", "status", "reason")


def long_frame(publication: Publication) -> pd.DataFrame:
    """One row for every metric of every finished run of every slot; a slot without one is one row without a value."""
    found: list[dict[str, object]] = []
    for slot in publication.slots:
        record = publication.records.get(slot.run_id)
        base: dict[str, object] = {
            "table": publication.table,
            "scale": publication.scale,
            "row": slot.row,
            "stage": slot.stage,
            "seed": slot.seed,
            "run_id": slot.run_id,
            "status": (record.status if record else Status.MISSING).value,
            "reason": record.reason if record else "",
        }
        metrics = record.metrics if record and record.status is Status.DONE else {}
        for key, value in sorted(metrics.items()):
            dataset, _, metric = key.rpartition("/")
            found.append({**base, "dataset": dataset, "metric": metric, "value": value})
        if not metrics:
            found.append({**base, "dataset": "", "metric": "", "value": float("nan")})
    return pd.DataFrame(found, columns=list(COLUMNS)).astype({"value": "float64", "seed": "int64"})


def summary(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean, s.d. (ddof 1, NaN for one seed) and n of every row, stage, dataset and metric of a long frame."""
    measured = frame.dropna(subset=["value"])
    groups = measured.groupby(["row", "stage", "dataset", "metric"], sort=True)["value"]
    return groups.agg(mean="mean", sd=lambda values: values.std(ddof=1), n="count").reset_index()


def cell(publication: Publication, row: Row, column: Column) -> Cell:
    """Values of one cell in order of seed, and a reason for every seed without one."""
    if row.unavailable:
        return Cell(values=(), missing=(row.unavailable,), run_ids=())
    slots = _slots(publication, row.label, column.task)
    if not slots:
        return Cell(values=(), missing=("not part of this sweep",), run_ids=())
    values, missing, run_ids = [], [], []
    for slot in slots:
        record = publication.records.get(slot.run_id)
        if record is not None and record.status is Status.DONE and column.metric_key in record.metrics:
            values.append(record.metrics[column.metric_key])
            run_ids.append(slot.run_id)
        elif record is None:
            missing.append(slot.problem or "not run yet")
        elif record.status is Status.DONE:
            missing.append(record.unavailable.get(column.metric_key, f"{column.task} gave no {column.metric_key}"))
        else:
            missing.append(f"{record.status.value}: {record.reason}")
    return Cell(values=tuple(values), missing=tuple(missing), run_ids=tuple(run_ids))


def grid(table: Table, publication: Publication) -> dict[tuple[str, str], Cell]:
    """Every cell of a table by (row label, column key)."""
    columns = (*table.columns, *table.more_columns)
    return {
        (row.label, column.key): cell(publication, row, column)
        for row in table.rows_at(publication.scale)
        for column in columns
    }


def mean_sd(values: tuple[float, ...]) -> tuple[float, float | None]:
    """Mean and s.d. (ddof 1) of at least one value; the s.d. of a single value is None."""
    series = pd.Series(values, dtype="float64")
    return float(series.mean()), float(series.std(ddof=1)) if len(series) > 1 else None


def _slots(publication: Publication, row: str, stage: str) -> list[Slot]:
    return sorted((s for s in publication.slots if s.row == row and s.stage == stage), key=lambda slot: slot.seed)
