"""Tables written from whatever records there are, and where the time of a sweep went."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.launching.board import duration
from experiments.planning.plan import Plan
from experiments.publishing.held import Held
from results import publish
from results.details import curves, items, samples
from results.schema import Publication, RunRecord, Status, Table


def collate(
    plan: Plan,
    tables: Sequence[Table],
    records: Sequence[RunRecord],
    held: Held,
    settings: Mapping[str, str],
    runs: Path,
    out: Path,
) -> bool:
    """Write tables/ and records/ below `out`; whether no cell is missing.

    settings: those of the command line that are published with a table.
    A table of which `out` holds finished runs that are missing here goes to `runs` instead: nothing is ever replaced by
    less.
    """
    complete = True
    for table in tables:
        publication, place = replace(plan.publication(table.name, records), settings=settings), out
        before = held.get(publication.name)
        if before is not None and (lost := _finished(before) - _finished(publication)):
            place = runs
            row, stage, seed = min(lost)
            print(
                f"{out / 'records'} holds {len(_finished(before))} finished runs of {table.title}, of which "
                f"{len(lost)} are missing here ({stage} of {row or 'all rows'}, seed {seed}): written to {runs}, --out "
                "chooses another place",
                file=sys.stderr,
            )
        publish.export(publication, place / "records")
        if unscored := items.export(table, publication, runs, place / "records"):
            said = f"{len(unscored)} finished runs of {table.title} have no scores of single items here"
            said += f", first {unscored[0]}"
            print(f"{said}; their records stay", file=sys.stderr)
        curves.export(publication, runs, place / "records")
        samples.export(publication, runs, place / "records")
        paths = publish.collate(table, publication, place / "tables")
        finished = {r.run_id for r in publication.records.values() if r.status is Status.DONE}
        missing = [slot for slot in publication.slots if slot.run_id not in finished]
        complete = complete and not missing
        print(f"{table.title}: {paths[0]}" + (f" ({len(missing)} runs missing, see its notes)" if missing else ""))
    return complete


def _finished(publication: Publication) -> set[tuple[str, str, int]]:
    """Row, stage and seed of what is done: under another protocol the same have other names."""
    done = {record.run_id for record in publication.records.values() if record.status is Status.DONE}
    return {(slot.row, slot.stage, slot.seed) for slot in publication.slots if slot.run_id in done}


def stages(plan: Plan, records: Sequence[RunRecord], seconds: float) -> str:
    """Where the time went: process seconds by stage over all runs of the plan, and what this command took."""
    wanted = {run.run_id for run in plan.runs}
    spent: dict[str, float] = {}
    for record in records:
        if record.run_id in wanted:
            stage = str(record.spec.get("task") or record.kind.value)
            spent[stage] = spent.get(stage, 0.0) + record.seconds
    parts = ", ".join(f"{stage} {duration(value)}" for stage, value in spent.items())
    return f"process time of all runs: {parts or 'none'}; this command took {duration(seconds)}"
