"""What a launcher is given, and what every process of a sweep has to know."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from experiments.configuration.distributed import DistributedConfig
from experiments.configuration.place import Place
from experiments.configuration.slurm import SlurmConfig
from experiments.configuration.typed import from_plain
from experiments.planning.specs import PlannedRun
from results.schema import Kind


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine gives to a sweep, and what its processes must know."""

    place: Place
    scale: str
    workers: int  # runs at once
    threads: int  # of one run
    objectives: Path | None = None  # a folder of further objectives, which every process must know
    distributed: DistributedConfig = DistributedConfig()
    slurm: SlurmConfig = SlurmConfig()
    sweeps: tuple[str, ...] = ()  # names of the manifests of this sweep, one for each table
    command: tuple[str, ...] = ()  # arguments of experiments.sweep, for a process that writes the tables

    def to_plain(self) -> dict[str, Any]:
        """As JSON values, for another process; paths are absolute there."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self), default=_absolute))
        return found

    @classmethod
    def from_plain(cls, found: Mapping[str, Any]) -> "Machine":
        """From `to_plain`. Raises TypeMismatch naming what is wrong."""
        made: Machine = from_plain(cls, found, "machine")
        return made


Launched = Literal["over", "submitted"]


class Launcher(Protocol):
    """Brings about the runs that it is given, which are in the order in which they should start.

    Every run has its spec.json and none is finished. A run is started when those it needs are over, whatever came of
    them: one whose parent failed records itself as blocked, so a failed row never holds up the others. Who does a run
    and what came of it stands in its folder (experiments/running/attempts.py), so nothing is done twice and whoever
    comes later goes on from there.
    """

    def __call__(self, runs: Sequence[PlannedRun], machine: Machine) -> Launched:
        """Whether the runs are over, or handed to a scheduler. Raises Stopped when a signal asks for it."""
        ...


def ordered(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Runs others wait for, then transfers; the longer ones first, so that the last to end are short."""
    later = (Kind.TRANSFER, Kind.DIALOGUE)
    return sorted(runs, key=lambda run: (run.kind in later, -run.weight))  # stable: in order of the table


def startable(waiting: Sequence[PlannedRun], running: Sequence[PlannedRun] = ()) -> list[PlannedRun]:
    """Those that need none of the runs still open."""
    pending = {run.run_id for run in (*waiting, *running)}
    return [run for run in waiting if pending.isdisjoint(run.needs)]


def _absolute(path: Path) -> str:
    return str(path.absolute())
