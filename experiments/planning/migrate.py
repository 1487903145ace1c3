"""Runs keep their results when their names change: finished runs are found by their settings and renamed.

A name is a hash of settings (experiments/planning/specs.py), so a change of what is hashed gives equal runs new names.
Nothing is trained again for that: a record whose settings are those of a planned run is that run.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.planning.specs import SPEC_FILE, PlannedRun
from results import record as records_on_disk
from results.canonical import flatten, plain
from results.schema import SCHEMA_VERSION, RunRecord, Status

# Settings that were taken away because nobody could choose them, and the one value every run had.
GONE: Mapping[str, Any] = {
    "objective.config.image_mean": [0.48145466, 0.4578275, 0.40821073],
    "objective.config.image_std": [0.26862954, 0.26130258, 0.27577711],
    "recipe.label": "frozen-cached",
}


def renamed(runs: Sequence[PlannedRun], records: Iterable[RunRecord]) -> dict[str, RunRecord]:
    """Finished runs by the name they had, under the name that is planned for their settings.

    runs: parents first. Settings that a record does not hold were added since; they count as equal where the plan has
    them at their defaults. Of settings that are gone, only those of `GONE` may be there. Records that bear a planned
    name already are left out.
    """
    planned = {run.run_id for run in runs}
    older: dict[str, list[RunRecord]] = {}
    for found in records:
        if found.status is Status.DONE and found.run_id not in planned:
            older.setdefault(_readable(found.run_id), []).append(found)
    names: dict[str, str] = {}
    made: dict[str, RunRecord] = {}
    for run in runs:
        for found in older.get(_readable(run.run_id), ()):
            if found.run_id not in names and _same(found, run, names):
                names[found.run_id] = run.run_id
                made[found.run_id] = replace(
                    found,
                    run_id=run.run_id,
                    parent=None if found.parent is None else names.get(found.parent, found.parent),
                    spec=run.written.spec,
                    defaults=run.written.defaults,
                    schema_version=SCHEMA_VERSION,
                )
    return made


def rename_folders(runs: Path, made: Mapping[str, RunRecord]) -> int:
    """Give the run folders below `runs` their new names; how many there were. Raises OSError.

    A folder is renamed last: until then its record says the new name, and doing it again goes on from there.
    """
    count = 0
    for old, found in made.items():
        folder, new = runs / old, runs / found.run_id
        if folder.is_dir() and not new.exists():
            written = {"spec": found.spec, "defaults": found.defaults}
            records_on_disk.write_atomic(folder / SPEC_FILE, json.dumps(plain(written), indent=1) + "\n")
            records_on_disk.write(found, folder)
            os.rename(folder, new)
            count += 1
    for path in runs.glob(f"*/{records_on_disk.RECORD_FILE}"):  # left by a migration that was interrupted
        name = json.loads(path.read_text()).get("run_id")
        if name in {found.run_id for found in made.values()} and path.parent.name != name:
            os.rename(path.parent, runs / name)
            count += 1
    return count


def _readable(run_id: str) -> str:
    """A name without its hash: kind, objective or task, corpus, seed."""
    return run_id.rpartition("-")[0]


def _same(found: RunRecord, run: PlannedRun, names: Mapping[str, str]) -> bool:
    whole = flatten(found.resolved)
    old = {key: value for key, value in whole.items() if key not in GONE or GONE[key] != value}
    old |= {key: names.get(value, value) for key, value in old.items() if key.startswith("inputs.")}
    new = flatten(run.plain)
    added = new.keys() - old.keys()
    return added <= run.written.defaults.keys() and old == {key: new[key] for key in new.keys() - added}
