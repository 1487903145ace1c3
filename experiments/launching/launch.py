"""Launchers: the same runs in this process (`inline`) or in a few long-lived ones through submitit (`local`).

A run is started when the runs it needs are recorded, whatever came of them: a run whose parent failed records itself as
blocked, so a failed row never holds up the others. The launcher alone decides who does what, so nothing is done twice;
what it hands out is a small file on the desk of a worker, and the record of the run is the answer. A SLURM launcher is
one more function of the same signature.
"""

import gc
import json
import logging
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import submitit
import torch
from filelock import FileLock

from experiments.launching.board import Board, Line
from experiments.planning.specs import PlannedRun
from experiments.running.lifecycle import execute, give_up
from experiments.running.orphan import watching
from experiments.running.progress import read
from experiments.running.world import Place
from objectives.registry import add_folder
from results.record import RECORD_FILE, write_atomic
from results.schema import Kind

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
TIMEOUT_MINUTES = 60 * 24 * 30  # submitit's default of a few minutes would end a training


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What this machine gives to a sweep."""

    place: Place
    scale: str
    workers: int  # runs at once
    threads: int  # of one run
    objectives: Path | None = None  # a folder of further objectives, which every process must know


Launcher = Callable[[Sequence[PlannedRun], Machine], None]


def ordered(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Runs others wait for, then transfers; the longer ones first, so that the last to end are short."""
    return sorted(runs, key=lambda run: (run.kind is Kind.TRANSFER, -run.weight))  # stable: in order of the table


def _next(waiting: Sequence[PlannedRun], running: Sequence[PlannedRun] = ()) -> PlannedRun | None:
    """The first run that needs none of those still open."""
    pending = {run.run_id for run in (*waiting, *running)}
    return next((run for run in waiting if pending.isdisjoint(run.needs)), None)


def inline(runs: Sequence[PlannedRun], machine: Machine) -> None:
    """Every run here, one after the other, with a bar of its own."""
    torch.set_num_threads(machine.threads * machine.workers)
    waiting = list(runs)
    while run := _next(waiting):
        waiting.remove(run)
        print(run.run_id, flush=True)
        execute(run.run_id, machine.place, machine.scale, bar=True)


@dataclass(eq=False)
class _Worker:
    """A process that does one run after another, and what it does now."""

    process: "submitit.Job[None]"
    desk: Path  # where it looks for the next run_id; the file is gone once it has begun
    gpu: int | None
    run: PlannedRun | None = None


def local(runs: Sequence[PlannedRun], machine: Machine) -> None:
    """Runs in processes of this machine, as many at a time as it has room for, with a live table of what they do.

    Processes live on from run to run: imports and the pictures they hold cost as much as a short run. One that dies
    fails the run it was in and is replaced.
    """
    folder = machine.place.shared / "submitit"
    folder.mkdir(parents=True, exist_ok=True)
    executor = submitit.LocalExecutor(folder=folder)
    executor.update_parameters(timeout_min=TIMEOUT_MINUTES, tasks_per_node=1)
    waiting = list(runs)
    workers: list[_Worker] = []
    started = 0
    # A worker ends when the folder of the desks is gone.
    with (
        Board(len(runs)) as board,
        _environment(machine.threads),
        tempfile.TemporaryDirectory(prefix="desks-", dir=folder) as desks,
        FileLock(_held(Path(desks))),
    ):
        try:
            while waiting or any(worker.run for worker in workers):
                for worker in list(workers):
                    _look_after(worker, workers, machine)
                while run := _next(waiting, [worker.run for worker in workers if worker.run]):
                    free = next((worker for worker in workers if not worker.run), None)
                    if free is None:
                        if len(workers) >= machine.workers:
                            break
                        free = _start(executor, Path(desks) / str(started), workers, machine)
                        started += 1
                    waiting.remove(run)
                    free.run = run
                    write_atomic(free.desk, json.dumps(run.run_id))
                running = [worker.run for worker in workers if worker.run]
                lines = [Line(run.run_id, read(machine.place.runs / run.run_id)) for run in running]
                board.show(lines, len(runs) - len(waiting) - len(running))
                time.sleep(POLL_SECONDS)
        except BaseException:
            for worker in workers:
                worker.process.cancel()
            raise


def _start(executor: submitit.LocalExecutor, desk: Path, workers: list[_Worker], machine: Machine) -> _Worker:
    gpu = _least_used(torch.cuda.device_count(), workers)  # each process sees one GPU, or none where there is none
    if gpu is not None:
        executor.update_parameters(gpus_per_node=1, visible_gpus=(gpu,))
    worker = _Worker(executor.submit(work, desk, machine), desk, gpu)
    workers.append(worker)
    return worker


def _held(desks: Path) -> Path:
    """The lock that says that the sweep of these desks is alive; beside them, so that taking it never makes them."""
    return desks.with_suffix(".lock")


def _look_after(worker: _Worker, workers: list[_Worker], machine: Machine) -> None:
    """Note that a worker has finished its run, or that it is gone.

    A process that was killed wrote no record; it is written here, as the rest of the sweep waits for it.
    """
    gone = worker.process.done()  # asked before the record is looked for: one written meanwhile is then seen
    if worker.run is not None:
        recorded = (machine.place.runs / worker.run.run_id / RECORD_FILE).exists()
        if gone and not recorded:
            reason = f"its process ended without a record; the log is {worker.process.paths.stderr}"
            give_up(worker.run.run_id, machine.place, machine.scale, reason)
        if gone or (recorded and not worker.desk.exists()):
            worker.run = None
    if gone:
        workers.remove(worker)


def _least_used(count: int, workers: Sequence[_Worker]) -> int | None:
    """The GPU that the fewest workers see; None without GPUs."""
    busy = Counter(worker.gpu for worker in workers)
    return min(range(count), key=lambda gpu: busy[gpu]) if count else None


LAUNCHERS: dict[str, Launcher] = {"inline": inline, "local": local}


def work(desk: Path, machine: Machine) -> None:
    """What a process started by `local` does: run after run from its desk, until the folder of the desks is gone.

    It ends itself when the sweep that started it is gone.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    if machine.objectives is not None:
        add_folder(machine.objectives)
    with watching(_held(desk.parent)):
        while desk.parent.is_dir():
            try:
                run_id = json.loads(desk.read_text())
            except FileNotFoundError:
                time.sleep(POLL_SECONDS)
                continue
            desk.unlink(missing_ok=True)  # gone with its folder where the sweep ended at this moment
            torch.set_num_threads(machine.threads)  # a run before may have changed it, and it changes sums
            execute(run_id, machine.place, machine.scale)
            gc.collect()  # the model and optimiser of a run hold one another; the next needs their memory


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Of the child processes. Threads: left alone, each would take every core and they would starve one another.

    oneDNN keeps a compiled kernel with its buffers for each of the last 1024 shapes, and rows differ in length
    from batch to batch: a worker grew beyond 2.5 GB.
    """
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
    before = {name: os.environ.get(name) for name in (*names, *ENVIRONMENT)}
    os.environ.update(dict.fromkeys(names, str(threads)), **ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
