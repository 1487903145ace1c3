"""What a sweep is: the runs each table waits for, written down where others find it without planning again.

runs/shared/sweeps/<table>-<hash>.json is written by every launcher before it starts. `experiments.status` and
`experiments.cancel` read it, and so do the jobs of a cluster.
"""

import hashlib
import json
import os
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from experiments.running import attempts
from results.record import write_atomic
from results.schema import Slot

FOLDER = "sweeps"


class NoSweep(ValueError):
    """There is no such sweep below this folder."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One table of one sweep."""

    name: str  # <table>-<hash of its runs>
    table: str
    launcher: str
    command: tuple[str, ...]  # arguments of experiments.sweep
    slots: tuple[Mapping[str, Any], ...]  # row, stage, seed, run_id, problem
    host: str
    machine: str
    pid: int
    started: int
    written: float  # seconds since the epoch

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Its runs, each once."""
        return tuple(dict.fromkeys(str(slot["run_id"]) for slot in self.slots))


def write(runs: Path, table: str, launcher: str, command: Sequence[str], slots: Sequence[Slot]) -> Manifest:
    """Write down one table of a sweep that this process starts."""
    digest = hashlib.sha256("\n".join(sorted({slot.run_id for slot in slots})).encode()).hexdigest()[:8]
    made = Manifest(
        name=f"{table}-{digest}",
        table=table,
        launcher=launcher,
        command=tuple(command),
        slots=tuple(asdict(slot) for slot in slots),
        host=socket.gethostname(),
        machine=attempts.machine(),
        pid=os.getpid(),
        started=attempts.started(os.getpid()) or 0,
        written=time.time(),
    )
    write_atomic(_path(runs, made.name), json.dumps(asdict(made), indent=1) + "\n")
    return made


def read(runs: Path, name: str) -> Manifest:
    """A sweep by the name of its table (the latest with that table), or by its own. Raises NoSweep."""
    paths = [_path(runs, name)] if _path(runs, name).exists() else []
    paths = paths or sorted((runs / "shared" / FOLDER).glob(f"{name}-*.json"), key=lambda path: path.stat().st_mtime)
    there = sorted(path.stem for path in (runs / "shared" / FOLDER).glob("*.json"))
    if not paths:
        known = f"there are {', '.join(there)}" if there else "none was, --runs names another folder"
        raise NoSweep(f"no sweep {name!r} was started in {runs}; {known}")
    try:
        found = json.loads(paths[-1].read_text())
        values = {field.name: found[field.name] for field in fields(Manifest)}
    except (ValueError, KeyError, TypeError) as error:
        raise NoSweep(f"{paths[-1]} cannot be used ({error!r}); start the sweep again") from None
    return Manifest(**{**values, "command": tuple(found["command"]), "slots": tuple(found["slots"])})


def _path(runs: Path, name: str) -> Path:
    return runs / "shared" / FOLDER / f"{name}.json"
