"""A process that does run after run: what `local` starts, and the two ends of the conversation.

The worker reads a line of JSON on its standard input: first the machine, then the run_id of each run. It answers each
run with a line on its standard output; everything printed meanwhile goes to its log. Processes live on from run to run
because imports and the pictures they hold cost as much as a short run. The end of the input ends the worker, in the
middle of a run after the step it is in: so it never outlives the sweep that started it, however that ended.
"""

import gc
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import torch

from experiments.launching.machine import Machine
from experiments.planning.specs import PlannedRun
from experiments.running.attempts import Held, LeaseLost
from experiments.running.lifecycle import execute
from experiments.running.stopping import Stopped, stoppable
from objectives.registry import add_folder

# oneDNN keeps a compiled kernel with its buffers for each of the last 1024 shapes, and rows differ in length from batch
# to batch: a worker grew beyond 2.5 GB.
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64"}
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")

Answer = Literal["over", "held"]


def environment(threads: int) -> Mapping[str, str]:
    """Of a process that does runs. Left alone, each would take every core and they would starve one another."""
    return {**dict.fromkeys(THREADS, str(threads)), **ENVIRONMENT}


@dataclass(eq=False)
class Worker:
    """The parent's end."""

    process: "subprocess.Popen[bytes]"
    log: Path
    gpus: tuple[str, ...]  # as CUDA_VISIBLE_DEVICES names them
    run: PlannedRun | None = None  # what it does now

    @classmethod
    def start(cls, machine: Machine, log: Path, gpus: tuple[str, ...]) -> "Worker":
        """A worker in a session of its own: Ctrl-C at the terminal is for the sweep, which then ends its workers."""
        sees = {"CUDA_VISIBLE_DEVICES": ",".join(gpus)} if gpus else {}
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "experiments.launching.worker", str(log)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment(machine.threads), **sees},
                start_new_session=True,
            )
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        worker = cls(process, log, gpus)
        worker._tell(machine.to_plain())
        return worker

    def give(self, run: PlannedRun) -> None:
        """Let it do a run."""
        self.run = run
        self._tell(run.run_id)

    def answer(self) -> Answer | None:
        """What came of its run; None while it is at it, and for one that is gone."""
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        found: Answer | None = json.loads(said) if said else None
        return found

    def end(self) -> None:
        """Let it end after the step it is in."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def _tell(self, what: object) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it is gone, which the launcher sees by itself


def main() -> None:
    """What a worker does."""
    answers = os.fdopen(os.dup(1), "w")
    log = sys.argv[1]
    os.dup2(2, 1)  # whatever prints, prints to the log
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    try:
        with stoppable():
            _work(sys.stdin, answers, log)
    except Stopped as stopped:
        logging.getLogger(__name__).info("%s", stopped)


def _work(asked: IO[str], answers: IO[str], log: str) -> None:
    machine = Machine.from_plain(json.loads(asked.readline()))
    if machine.objectives is not None:
        add_folder(machine.objectives)
    runs: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_listen, args=(asked, runs), daemon=True).start()
    while (run_id := runs.get()) is not None:
        torch.set_num_threads(machine.threads)  # a run before may have changed it, and it changes sums
        said: Answer = "over"
        try:
            execute(run_id, machine.place, machine.scale, log=log, distributed=machine.distributed)
        except (Held, LeaseLost):
            said = "held"
        answers.write(json.dumps(said) + "\n")
        answers.flush()
        gc.collect()  # the model and optimiser of a run hold one another; the next needs their memory


def _listen(asked: IO[str], runs: "queue.Queue[str | None]") -> None:
    for line in asked:
        runs.put(json.loads(line))
    runs.put(None)
    os.kill(os.getpid(), signal.SIGTERM)  # in the middle of a run: finish the step


if __name__ == "__main__":
    main()
