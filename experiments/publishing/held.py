"""What a folder of tables holds already, and what becomes of it when records of this machine join it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.configuration.config import Precision
from experiments.planning.plan import Plan
from results import publish
from results.details import curves, items, samples
from results.schema import Kind, Publication, RunRecord, Status, published_name

Held = Mapping[str, Publication]  # by name


def load(tables: Sequence[str], scale: str, out: Path) -> Held:
    """What the folder written to holds of these tables. Raises RecordError where that cannot be read."""
    names = [published_name(table, scale) for table in tables]
    paths = {name: out / "records" / f"{name}.jsonl" for name in names}
    return {name: publish.load(path) for name, path in paths.items() if path.exists()}


def records_of(held: Held) -> list[RunRecord]:
    """Every record in it."""
    return [record for each in held.values() for record in each.records.values()]


def made_in(held: Held) -> Precision | None:
    """The precision of all its runs: any machine can collate them, whatever it multiplies in itself."""
    scored = (Kind.TRANSFER, Kind.DIALOGUE)
    found = {record.resolved["precision"] for record in records_of(held) if record.kind in scored}
    return found.pop() if len(found) == 1 else None


def with_names(held: Held, older: Mapping[str, RunRecord], out: Path) -> Held:
    """The same under the names of this version, in the files beside the records too. older: old name -> record."""
    names = {old: record.run_id for old, record in older.items()}
    for name in held:
        for kept in (items, curves, samples):
            kept.rename(out / "records" / f"{name}{kept.SUFFIX}", names)
    return {name: _renamed(each, older) for name, each in held.items()}


def _renamed(held: Publication, older: Mapping[str, RunRecord]) -> Publication:
    records = [older.get(run_id, record) for run_id, record in held.records.items()]
    return replace(held, records={record.run_id: record for record in records})


def merged(records: Sequence[RunRecord], held: Held) -> list[RunRecord]:
    """Records of this machine and published ones by run; of two, the one that is done, and ours where both are."""
    found = {record.run_id: record for record in records_of(held)}
    for record in records:
        if record.status is Status.DONE or record.run_id not in found:
            found[record.run_id] = record
    return list(found.values())


def other_seeds(
    plan_of: Callable[[Sequence[int]], Plan], asked: Sequence[int], held: Held, records: Sequence[RunRecord]
) -> list[int]:
    """Published seeds beyond those asked for that are complete under this very configuration; they stay in a table."""
    done = {record.run_id for record in records if record.status is Status.DONE}
    others = {slot.seed for each in held.values() for slot in each.slots} - set(asked)
    return [seed for seed in sorted(others) if all(run.run_id in done for run in plan_of([seed]).runs)]
