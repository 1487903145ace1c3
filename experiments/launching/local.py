"""The launcher `local`: runs in processes of this machine, as many at a time as it has room for.

Processes live on from run to run (worker.py says why). One that dies loses the run it was in, which is tried once more
by another; a second death is recorded as a failure with the signal that was behind it.
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from experiments.launching.board import Board, Line
from experiments.launching.machine import Launched, Machine, startable
from experiments.launching.worker import Worker
from experiments.planning.specs import PlannedRun
from experiments.running.attempts import Held
from experiments.running.lifecycle import record_death
from experiments.running.progress import read
from experiments.running.stopping import stoppable

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1
HELD_SECONDS = 2.0  # before a run that another process is at is asked for again
SAVE_SECONDS = 60.0  # that workers get to end by themselves
TRIES = 2  # of a run whose process is killed


def local(runs: Sequence[PlannedRun], machine: Machine) -> Launched:
    """Do every run, with a live table of what the processes do. Raises Stopped when every process has saved its run."""
    folder = machine.place.shared / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    with stoppable(), Board(len(runs)) as board, _workers() as workers:
        sweep = _Sweep(list(runs), machine, folder, workers)
        while sweep.open():
            sweep.look()
            sweep.hand_out()
            board.show(sweep.lines(), len(runs) - sweep.open())
            time.sleep(POLL_SECONDS)
    return "over"


@contextmanager
def _workers() -> Iterator[list[Worker]]:
    """The processes of a sweep; at its end they are ended, and waited for."""
    workers: list[Worker] = []
    try:
        yield workers
    finally:
        for worker in workers:
            worker.end()
        if any(worker.run for worker in workers):
            print("stopping: every run finishes its step and saves it", file=sys.stderr)
        until = time.monotonic() + SAVE_SECONDS
        for worker in workers:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.process.wait(max(0.0, until - time.monotonic()))
        if late := [str(worker.process.pid) for worker in workers if worker.process.poll() is None]:
            print(f"still in its step, ends after it: process {', '.join(late)}", file=sys.stderr)


class _Sweep:
    """What the loop of `local` keeps."""

    def __init__(self, waiting: list[PlannedRun], machine: Machine, logs: Path, workers: list[Worker]) -> None:
        self.waiting, self.machine, self.logs, self.workers = waiting, machine, logs, workers
        self.deaths: Counter[str] = Counter()
        self.asked: dict[str, float] = {}  # when a run was found to be another's

    def open(self) -> int:
        """How many runs are not over."""
        return len(self.waiting) + sum(worker.run is not None for worker in self.workers)

    def lines(self) -> list[Line]:
        """What the board shows."""
        running = [worker.run for worker in self.workers if worker.run]
        return [Line(run.run_id, read(self.machine.place.runs / run.run_id)) for run in running]

    def look(self) -> None:
        """Note what workers have answered, and which are gone."""
        for worker in list(self.workers):
            gone = worker.process.poll()  # asked first: an answer given meanwhile is then seen
            said = worker.answer()
            if said is not None and worker.run is not None:
                if said == "held":
                    self.asked[worker.run.run_id] = time.monotonic()
                    self.waiting.append(worker.run)
                worker.run = None
            if gone is not None:
                self.workers.remove(worker)
                if worker.run is not None:
                    self._died(worker.run, _death(gone), worker.log)

    def _died(self, run: PlannedRun, how: str, log: Path) -> None:
        self.deaths[run.run_id] += 1
        if self.deaths[run.run_id] < TRIES:
            logger.warning("%s: %s; it is tried once more", run.run_id, how)
            self.waiting.insert(0, run)
            return
        reason = f"{how}, {TRIES} times; the log is {log}"
        with contextlib.suppress(Held):  # another sweep tries it, and says what comes of it
            record_death(run.run_id, self.machine.place, self.machine.scale, reason)

    def hand_out(self) -> None:
        """Give every free worker a run, and start workers while there is room."""
        running = [worker.run for worker in self.workers if worker.run]
        for run in startable(self.waiting, running):
            if time.monotonic() - self.asked.get(run.run_id, -HELD_SECONDS) < HELD_SECONDS:
                continue
            free = next((worker for worker in self.workers if not worker.run), None) or self._start()
            if free is None:
                return
            self.waiting.remove(run)
            free.give(run)

    def _start(self) -> Worker | None:
        if len(self.workers) >= self.machine.workers:
            return None
        # Each process sees as many as a run has ranks, or none where there is none.
        gpus = _least_used(_gpus(torch.cuda.device_count()), self.machine.distributed.ranks, self.workers)
        with tempfile.NamedTemporaryFile(dir=self.logs, prefix="worker-", suffix=".log", delete=False) as log:
            worker = Worker.start(self.machine, Path(log.name), gpus)
        self.workers.append(worker)
        return worker


def _death(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"its process ended with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    return f"its process was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def _gpus(count: int) -> list[str]:
    """What the GPUs this process sees are called: by the user's own list, numbers or names, where there is one."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(count)] if given is None else given.split(",")
    return [name.strip() for name in names[:count]]


def _least_used(gpus: Sequence[str], together: int, workers: Sequence[Worker]) -> tuple[str, ...]:
    """The neighbouring GPUs that the fewest workers see; none without GPUs."""
    busy = Counter(worker.gpus for worker in workers)
    blocks = [tuple(gpus[first : first + together]) for first in range(0, len(gpus) - together + 1, together)]
    return min(blocks, key=lambda block: busy[block], default=())
