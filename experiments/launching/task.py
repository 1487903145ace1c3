"""What a SLURM job runs: one run of a sweep, or the writing of its tables.

The callables hold names only. After a node failure SLURM runs the original pickle again (facebookresearch/fairchem
#1016), so nothing about progress may be in it: what was done stands in the run folders. They have a `checkpoint`,
without which submitit would not requeue a job that is warned before they are in charge of signals.
"""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from submitit.core.utils import DelayedSubmission

from experiments.configuration.slurm import SlurmConfig
from experiments.launching import queue
from experiments.launching.machine import Machine
from experiments.launching.states import look, submitted

logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0


def job_id() -> str:
    """Of this process: 12, or 12_3 for a task of an array, which is what may be requeued alone."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]


def restarts() -> int:
    """How often this job has begun before."""
    return int(os.environ.get("SLURM_RESTART_COUNT", "0"))


@dataclass(frozen=True)
class Task:
    """One run."""

    machine: str  # path of the machine's JSON (experiments/launching/machine.py)
    run_id: str

    def checkpoint(self) -> DelayedSubmission:
        """What is requeued: the same."""
        return DelayedSubmission(self)

    def __call__(self) -> None:
        """Do the run; asked to stop, save it and let the job run again. Exits with 1 then, or the job would be over."""
        import torch  # here and below: submitting needs none of it

        from experiments.running.stopping import Stopped, stoppable
        from objectives.registry import add_folder

        machine = Machine.from_plain(json.loads(Path(self.machine).read_text()))
        process = int(os.environ.get("SLURM_PROCID", "0"))
        of = f"-rank{process}" if process else ""
        log = machine.place.runs / self.run_id / "logs" / f"{job_id()}-r{restarts()}{of}.log"
        log.parent.mkdir(exist_ok=True)
        handlers: list[logging.Handler] = [logging.StreamHandler(), logging.FileHandler(log)]
        form = "%(asctime)s %(name)s: %(message)s"
        logging.basicConfig(level=logging.INFO, format=form, handlers=handlers, force=True)
        logger.info("job %s on %s: %s", job_id(), os.uname().nodename, self.run_id)
        if machine.objectives is not None:
            add_folder(machine.objectives)
        torch.set_num_threads(machine.threads)
        try:
            with stoppable():
                self._do(machine, log) if process == 0 else self._follow(machine, process)
        except Stopped as stopped:
            logger.info("%s", stopped)
            if process == 0:
                _again()

    def _follow(self, machine: "Machine", process: int) -> None:
        """What the other processes of a job do, once the first one owns the run; it says how that ended."""
        from experiments.running import attempts
        from experiments.running.distributed.members import Work, follow
        from experiments.running.distributed.rendezvous import seat_of

        folder, seat = machine.place.runs / self.run_id, seat_of(os.environ)
        assert seat is not None
        first = f"{job_id()}-r{restarts()}.log"  # what the first process writes, this time
        while (last := attempts.newest(folder)) is None or Path(last.log).name != first:
            time.sleep(POLL_SECONDS)
        if not attempts.alive(folder, last):
            return  # it has failed before anybody was needed
        try:
            follow(seat, Work.on(machine.place, self.run_id, machine.distributed))
        except Exception:
            logger.exception("rank %d", process)

    def _do(self, machine: "Machine", log: Path) -> None:
        from experiments.launching.reconcile import settle
        from experiments.running.attempts import Held, LeaseLost
        from experiments.running.lifecycle import execute, parents, record_death

        needed = parents(machine.place.runs / self.run_id)
        if needed:
            _wait_for(needed, machine)
            submissions = [found for each in needed if (found := submitted(machine.place.runs / each)) is not None]
            settle(needed, machine.place, machine.scale, queue.those(each.job for each in submissions))
            _wait_for(needed, machine)  # another transfer may be writing down the same
        folder = machine.place.runs / self.run_id
        while True:
            try:
                if reason := _in_vain(folder, machine.slurm):
                    record_death(self.run_id, machine.place, machine.scale, reason)
                    logger.error("%s", reason)
                    return
                execute(
                    self.run_id, machine.place, machine.scale, job=job_id(), log=str(log),
                    distributed=machine.distributed,
                )  # fmt: skip
                return
            except LeaseLost as lost:
                logger.warning("%s", lost)
                return
            except Held as held:  # perhaps on a node that SLURM takes for dead: wait until it ends, or beats no more
                logger.info("waiting: %s", held)
                time.sleep(POLL_SECONDS)


def _wait_for(run_ids: Sequence[str], machine: Machine) -> None:
    """Until nobody is at these runs: one that another sweep does has no job to depend on."""
    while any(look(machine.place.runs / run_id, {}).state == "running" for run_id in run_ids):
        time.sleep(POLL_SECONDS)


def _in_vain(folder: Path, slurm: SlurmConfig) -> str:
    """Why this job is not tried once more, "" where it is: it would be requeued for ever and get no further."""
    from experiments.running import attempts
    from experiments.running.saved import saved

    now = saved(folder)
    found = attempts.in_vain(folder, job_id(), now)
    if len(found) < slurm.attempts:
        return ""
    after = f"step {now.step}" + (f" and answer {now.answers}" if now.answers else "")
    return (
        f"job {job_id()} has begun {len(found)} times and saved nothing after {after} (slurm.attempts is "
        f"{slurm.attempts}); the last was {found[0].reason or 'killed'}; give it more time with --set slurm.time, now "
        f"{slurm.time} min, or --set slurm.signal_seconds, now {slurm.signal_seconds}; the log is {found[0].log}"
    )


def _again() -> None:
    """Let this job run again, unless somebody has cancelled it; ends the process."""
    try:
        logger.info("job %s %s", job_id(), queue.restart(job_id(), restarts()))
    except queue.SlurmError as error:  # SLURM may have done it; otherwise the sweep's command submits the run again
        logger.warning("job %s is perhaps not requeued: %s", job_id(), error)
    sys.exit(1)


@dataclass(frozen=True)
class Collate:
    """The tables, from whatever the runs of a sweep came to."""

    machine: str
    sweeps: tuple[str, ...]  # names of manifests
    command: tuple[str, ...]  # arguments of experiments.sweep

    def checkpoint(self) -> DelayedSubmission:
        """What is requeued: the same."""
        return DelayedSubmission(self)

    def __call__(self) -> None:
        """Record what became of runs that could not say so themselves, then write the tables."""
        from experiments.launching import manifest
        from experiments.launching.reconcile import settle

        machine = Machine.from_plain(json.loads(Path(self.machine).read_text()))
        for name in self.sweeps:
            settle(manifest.read(machine.place.runs, name).run_ids, machine.place, machine.scale, queue.mine())
        command = [sys.executable, "-m", "experiments.sweep", *self.command, "--collate"]
        sys.exit(subprocess.run(command, check=False).returncode)
