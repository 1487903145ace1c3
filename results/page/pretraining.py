"""What each row cost to pre-train, what it read, and what its encoder looked like in the end: one line a row."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from results.alarms import DIAGNOSTICS, of_record
from results.frame import Filled, mean_sd
from results.page.markdown import DASH, escape, spread
from results.page.markdown import table as markdown_table
from results.page.measured import Notes, number
from results.schema import BLIND, COVERAGE_COUNTS, Kind, Row, RunRecord, Status


def pretraining(filled: Filled) -> list[str]:
    """Cost, data coverage and collapse; columns that no row of the table fills are left out."""
    runs = {row.label: encoders(filled, row) for row in filled.rows}
    reference = _mean([run.train_flops for run in runs.get(filled.table.cost_reference, [])])
    notes = Notes()
    fields: dict[str, Callable[[Row, list[RunRecord]], str]] = {
        "images seen": lambda _, found: spread([run.images_seen for run in found]),
        "documents read": lambda _, found: _read(found, pairs=False),
        "pairs read": lambda _, found: _read(found, pairs=True),
        "read of a mixture": lambda _, found: _mixed(found),
        "skipped, and causes met": lambda _, found: _skipped(found),
        "LM passes": lambda _, found: spread([run.lm_passes for run in found]),
        "training FLOPs": lambda _, found: _flops(found),
    }
    if reference:
        fields[f"× {escape(filled.table.cost_reference)}"] = lambda _, found: (
            f"{_mean([run.train_flops for run in found]) / reference:.2f}" if found else DASH
        )
    for column in filled.table.more_columns:
        fields[column.title(filled.scale)] = lambda row, _, key=column.key: number(  # type: ignore[misc]
            filled.cells[row.label, key], len(filled.cells[row.label, key].values), notes
        )
    for metric, heading in DIAGNOSTICS.items():
        fields[heading] = lambda _, found, key=metric: _diagnostic(found, key)  # type: ignore[misc]
    lines = [
        [escape(row.label), *(show(row, runs[row.label]) for show in fields.values())]
        for row in filled.rows
        if row.mode != BLIND
    ]
    header = ["method", *fields]
    kept = [n for n in range(len(header)) if n == 0 or any(line[n] != DASH for line in lines)]
    if len(kept) == 1:
        return []
    table = markdown_table([header[n] for n in kept], [[line[n] for n in kept] for line in lines])
    about = (
        "Of one seed, or from the smallest to the largest; diagnostics are means over seeds on batches that no step "
        "trains on. FLOPs: forward and backward, multiply-add 2, counted. A collapsed encoder has a std ratio near 0, "
        "a mean cosine near 1, a small rank. *Use of images*: text loss with other or black images minus that with the "
        "true ones. A dash: there is no such quantity."
    )
    return ["## Pre-training: cost, data, collapse", "", about, "", *table, *notes.lines()]


def encoders(filled: Filled, row: Row) -> list[RunRecord]:
    """Finished pre-training runs of a row, in order of the slots."""
    slots = [slot for slot in filled.publication.slots if (slot.row, slot.stage) == (row.label, Kind.PRETRAIN.value)]
    records = [filled.publication.records.get(slot.run_id) for slot in slots]
    return [record for record in records if record is not None and record.status is Status.DONE]


def alarms(filled: Filled, row: Row) -> list[str]:
    """Declared alarms that a row's encoders set off in the end, with how many of its seeds."""
    runs = encoders(filled, row)
    found = Counter(said.partition(" (")[0] for run in runs for said in of_record(run))
    return [f"{what} in {n} of {len(runs)} seeds" for what, n in found.items()]


def _read(runs: Sequence[RunRecord], pairs: bool) -> str:
    """Entries of the corpus read, where it holds such entries."""
    return spread(
        [
            run.coverage["documents"]
            for run in runs
            if "documents" in run.coverage and _pairs(run) is pairs and not _parts([run])
        ]
    )


def _mixed(runs: Sequence[RunRecord]) -> str:
    """Entries read of every part of a mixture: pairs of one, documents of another."""
    read = {part: [run.coverage.get(f"{part}:documents", 0) for run in runs] for part in _parts(runs)}
    return "; ".join(f"{escape(part)} {spread(counts)}" for part, counts in read.items()) or DASH


def _parts(runs: Sequence[RunRecord]) -> list[str]:
    return sorted({key.partition(":")[0] for run in runs for key in run.coverage if ":" in key})


def _pairs(run: RunRecord) -> bool:
    """Whether a run read image-text pairs and no documents: only documents have a longest row."""
    data = run.spec.get("data") or {}
    return data.get("text_len") is not None and data.get("seq_len") is None


def _skipped(runs: Sequence[RunRecord]) -> str:
    """What was not used and why; of a mixture, of each part."""
    if not any(run.coverage for run in runs):
        return DASH
    parts = _parts(runs)
    if not parts:
        return _lost([run.coverage for run in runs])
    by_part = {
        part: [
            {key.removeprefix(f"{part}:"): n for key, n in run.coverage.items() if key.startswith(f"{part}:")}
            for run in runs
        ]
        for part in parts
    }
    return "; ".join(f"{escape(part)}: {_lost(coverage)}" for part, coverage in by_part.items())


def _lost(coverage: Sequence[Mapping[str, int]]) -> str:
    causes = sorted({cause for counts in coverage for cause in counts} - set(COVERAGE_COUNTS))
    why = [f"{escape(cause)} {spread([counts.get(cause, 0) for counts in coverage])}" for cause in causes]
    skipped = spread([counts.get("skipped", 0) for counts in coverage])
    broken = f"{skipped} ({', '.join(why)})" if why else skipped
    if not any("not_chosen" in counts for counts in coverage):
        return broken
    return f"{broken}; not chosen {spread([counts.get('not_chosen', 0) for counts in coverage])}"


def _flops(runs: Sequence[RunRecord]) -> str:
    mean = _mean([run.train_flops for run in runs])
    return (f"{mean:.2e}" if mean else "0") if runs else DASH


def _diagnostic(runs: Sequence[RunRecord], metric: str) -> str:
    values = [run.metrics[metric] for run in runs if metric in run.metrics]
    return f"{_mean(values):.3g}" if values else DASH


def _mean(values: Sequence[float]) -> float:
    return mean_sd(values)[0] if values else 0.0
