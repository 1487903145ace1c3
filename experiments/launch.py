"""Launchers: the same jobs in this process (`inline`) or as local processes through submitit (`local`).

A job is a list of runs that one process does in order: a pre-training, or all transfers of one encoder. It is started
when the runs it needs are recorded, whatever came of them: a run whose parent failed records itself as blocked, so a
failed row never holds up the others. A SLURM launcher is one more function of the same signature.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import submitit
import torch

from experiments.board import Board, Line
from experiments.jobs import execute, give_up, watching
from experiments.progress import read
from experiments.specs import PlannedRun
from experiments.world import Place
from objectives.registry import add_folder
from results.record import RECORD_FILE
from results.schema import Kind

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
TIMEOUT_MINUTES = 60 * 24 * 30  # submitit's default of a few minutes would end a training


@dataclass(frozen=True)
class Job:
    """Runs that one process does in order, and the runs that must be recorded before it starts."""

    name: str
    run_ids: tuple[str, ...]
    needs: frozenset[str]
    weight: int  # longer jobs start first


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine gives to a sweep."""

    place: Place
    scale: str
    workers: int  # jobs at once
    threads: int  # of one job
    objectives: Path | None = None  # a folder of further objectives, which every process must know


Launcher = Callable[[Sequence[Job], Machine], None]


def group(runs: Sequence[PlannedRun]) -> list[Job]:
    """One job a training, and one for all transfers of an encoder, whose features are then extracted once."""
    jobs: list[Job] = []
    transfers: dict[str, list[PlannedRun]] = {}
    for run in runs:
        if run.kind is Kind.TRANSFER:
            transfers.setdefault(run.spec.inputs["encoder"], []).append(run)
        else:
            jobs.append(Job(run.run_id, (run.run_id,), frozenset(run.needs), 2 + run.weight))
    for encoder, own in transfers.items():
        needs = frozenset(need for run in own for need in run.needs)
        name = f"transfer-{encoder.partition('-')[2]}"
        jobs.append(Job(name, tuple(run.run_id for run in own), needs, 1))
    return sorted(jobs, key=lambda job: -job.weight)  # stable: in order of the table otherwise


def inline(jobs: Sequence[Job], machine: Machine) -> None:
    """Every job here, one after the other, with a bar of its own."""
    torch.set_num_threads(machine.threads * machine.workers)
    waiting = list(jobs)
    while waiting:
        job = next(job for job in waiting if not job.needs & {run for other in waiting for run in other.run_ids})
        waiting.remove(job)
        for run_id in job.run_ids:
            print(run_id, flush=True)
            execute(run_id, machine.place, machine.scale, bar=True)


def local(jobs: Sequence[Job], machine: Machine) -> None:
    """Jobs as processes of this machine, as many at a time as it has room for, with a live table of what they do."""
    folder = machine.place.shared / "submitit"
    executor = submitit.LocalExecutor(folder=folder)
    executor.update_parameters(timeout_min=TIMEOUT_MINUTES, tasks_per_node=1)
    waiting = list(jobs)
    running: dict[Job, submitit.Job[None]] = {}
    gpus: dict[Job, int] = {}  # each process sees one GPU, or none where there is none
    total = sum(len(job.run_ids) for job in jobs)
    with Board(total) as board, _environment(machine.threads):
        try:
            while waiting or running:
                for job in list(running):
                    if running[job].done():
                        _close(job, running.pop(job), machine)
                        gpus.pop(job, None)
                pending = {run for job in (*waiting, *running) for run in job.run_ids}
                for job in [job for job in waiting if not job.needs & pending]:
                    if len(running) < machine.workers:
                        waiting.remove(job)
                        visible = _least_used(torch.cuda.device_count(), gpus)
                        if visible is not None:
                            gpus[job] = visible
                            executor.update_parameters(gpus_per_node=1, visible_gpus=(visible,))
                        running[job] = executor.submit(run_job, job.run_ids, machine, os.getpid())
                board.show(
                    _lines(running, machine.place.runs), total - _unfinished((*waiting, *running), machine.place.runs)
                )
                time.sleep(POLL_SECONDS)
        except BaseException:
            for started in running.values():
                started.cancel()
            raise


def _least_used(count: int, used: Mapping[Job, int]) -> int | None:
    """The GPU that the fewest running jobs see; None without GPUs."""
    busy = list(used.values())
    return min(range(count), key=busy.count) if count else None


LAUNCHERS: dict[str, Launcher] = {"inline": inline, "local": local}


def run_job(run_ids: Sequence[str], machine: Machine, parent: int) -> None:
    """What a process started by a launcher does; it ends itself when the sweep that started it is gone."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    torch.set_num_threads(machine.threads)
    if machine.objectives is not None:
        add_folder(machine.objectives)
    with watching(parent):
        for run_id in run_ids:
            execute(run_id, machine.place, machine.scale)


def _close(job: Job, started: "submitit.Job[None]", machine: Machine) -> None:
    """Write the records that a process which was killed could not; the rest of the sweep waits for them."""
    for run_id in job.run_ids:
        if not (machine.place.runs / run_id / RECORD_FILE).exists():
            reason = f"its process ended without a record; the log is {started.paths.stderr}"
            give_up(run_id, machine.place, machine.scale, reason)


def _unfinished(jobs: Sequence[Job], runs: Path) -> int:
    return sum(not (runs / run_id / RECORD_FILE).exists() for job in jobs for run_id in job.run_ids)


def _lines(running: dict[Job, "submitit.Job[None]"], runs: Path) -> list[Line]:
    lines = []
    for job in running:
        open_runs = [run_id for run_id in job.run_ids if not (runs / run_id / RECORD_FILE).exists()]
        if open_runs:
            lines.append(Line(job.name, read(runs / open_runs[0])))
    return lines


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Threads of the child processes: left alone, each would take every core and they would starve one another."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    before = {name: os.environ.get(name) for name in (*names, "TOKENIZERS_PARALLELISM")}
    os.environ.update(dict.fromkeys(names, str(threads)), TOKENIZERS_PARALLELISM="false")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
