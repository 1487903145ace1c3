"""The launcher `slurm`: an array of jobs for each stage through submitit, and one that writes the tables.

It returns at once. Arrays depend on those of the stages before by `afterany`: a failed row neither holds up the others
nor leaves a job pending for ever, and a transfer whose parent failed records itself as blocked. What is submitted
stands in the run folders, so the same command again submits what is missing and nothing twice, whatever happened in
between: an array is announced in a file before sbatch is called, and its name is asked for in the queue wherever the
answer got lost.
"""

import json
import logging
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from experiments.configuration.distributed import DistributedConfig
from experiments.configuration.overrides import ConfigError
from experiments.launching import queue, states
from experiments.launching.machine import Launched, Machine
from experiments.launching.queue import Job, SlurmError
from experiments.launching.states import COLLATE, UNDER_WAY, Submission, look
from experiments.launching.task import Collate, Task
from experiments.launching.worker import environment
from experiments.planning.specs import PlannedRun, ranks, stage_of
from experiments.running import source
from experiments.running.attempts import Held, claim
from experiments.running.stopping import SIGNALS
from results.record import write_atomic
from results.schema import Kind

logger = logging.getLogger(__name__)

HELD = "launch failed requeued held"


def slurm(runs: Sequence[PlannedRun], machine: Machine) -> Launched:
    """Submit what is not under way.

    Raises SlurmError where SLURM does not answer, after a few tries, ConfigError where jobs would be sent a signal that
    they do not hear.
    """
    _refuse_other_signal()
    folder = machine.place.shared / "slurm"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what is pickled there is run by whoever reads it
    try:
        lease = claim(folder)
    except Held as held:
        raise SlurmError(f"another sweep is submitting: {held}; try again in a moment") from None
    with lease.beating():
        submitter = _Submitter(folder, machine)
        try:
            submitter.recover()
            submitter.submit(runs)
        finally:
            lease.end("stopped", "submitted")
    return "submitted"


def _refuse_other_signal() -> None:
    """submitit reads the variable when it is imported, here and in the job, which would then stop without a save."""
    asked = f"SIG{submitit.JobEnvironment.USR_SIG}"
    if asked not in {number.name for number in SIGNALS}:
        raise ConfigError(f"SUBMITIT_PREEMPT_SIGNAL asks for {asked}, which no run hears; unset it, or set it to USR2")


class _Submitter:
    """What one call of the launcher keeps."""

    def __init__(self, folder: Path, machine: Machine) -> None:
        self.folder, self.machine = folder, machine
        self.jobs: Mapping[str, Job] = queue.mine()
        self.state = folder / f"machine-{machine.sweeps[0]}.json"
        write_atomic(self.state, json.dumps(machine.to_plain(), indent=1) + "\n")

    def submit(self, runs: Sequence[PlannedRun]) -> None:
        """Submit what is not under way, stage by stage, and the writing of the tables after all of it."""
        seen = {run.run_id: look(self._run(run.run_id), self.jobs) for run in runs}
        # Done since the plan was made, too: a child that waits for it still does.
        missing = {run_id for run_id, each in seen.items() if each.state not in (*UNDER_WAY, "done")}
        for run in runs:
            queued = seen[run.run_id].queued
            if queued is None or queued.state != "PENDING":
                continue
            # Held after a node failed to start it, for ever. Or it waits for a parent that is gone, and would record
            # itself as blocked before the new one is done.
            if HELD in queued.reason or not missing.isdisjoint(run.needs):
                queue.cancel([queued.job])
                missing.add(run.run_id)
        size = queue.max_array() if missing else 1
        shared = self.machine.distributed
        for (stage, count), members in _stages([run for run in runs if run.run_id in missing], shared):
            for first in range(0, len(members), size):
                chunk = members[first : first + size]
                needed = [parent for run in chunk for parent in run.needs]
                tasks = [Task(str(self.state), run.run_id) for run in chunk]
                for run in chunk:
                    source.pin(self._run(run.run_id))
                self._submit(stage, tasks, [self._run(run.run_id) for run in chunk], self._arrays(needed), count)
        self._submit_collate([run.run_id for run in runs], bool(missing))
        said = f"{len(missing)} runs submitted" if missing else "nothing submitted"
        others = f", {len(runs) - len(missing)} were under way or done" if len(missing) < len(runs) else ""
        print(f"{said}{others}; python -m experiments.status {self.machine.sweeps[0]}", file=sys.stderr)

    def _submit_collate(self, run_ids: Sequence[str], new: bool) -> None:
        """The writing of the tables; one of an earlier command does not wait for what is new."""
        folder = self.folder / COLLATE / self.machine.sweeps[0]
        before = states.submitted(folder)
        if before is not None and before.job in self.jobs:
            if not new:
                return
            queue.cancel([before.job])
        collate = Collate(str(self.state), self.machine.sweeps, self.machine.command)
        self._submit(COLLATE, [collate], [folder], self._arrays(run_ids), ranks=1)

    def _submit(
        self, stage: str, tasks: Sequence[Callable[[], None]], folders: Sequence[Path], needs: Sequence[str], ranks: int
    ) -> None:
        """One array, announced before and written down after; every job of it runs its task on so many ranks."""
        name = f"{self.machine.sweeps[0]}-{stage}-{uuid.uuid4().hex[:6]}"
        announced = self.folder / "announced" / f"{name}.json"
        write_atomic(announced, json.dumps([str(folder) for folder in folders]))
        for wait in (*queue.WAITS, None):
            try:
                jobs = self._executor(name, needs, ranks).submit_array(list(tasks))
                break
            except (FailedJobError, FailedSubmissionError) as error:
                said = str(error).strip().splitlines()[-1]
                # It may have arrived all the same. Its pickles are not where it looks for them: it cannot run.
                queue.cancel([job.job for job in queue.mine().values() if job.name == name])
                if wait is None:
                    announced.unlink()
                    raise SlurmError(f"sbatch failed: {said}") from None
                logger.warning("sbatch: %s; trying again", said)
                time.sleep(wait)
        self._note([job.job_id for job in jobs], folders)
        announced.unlink()

    def _note(self, jobs: Sequence[str], folders: Sequence[Path]) -> None:
        for job, folder in zip(jobs, folders, strict=True):
            states.submit(folder, Submission(job, self.machine.sweeps[0], time.time()))
        self.jobs = queue.mine()

    def recover(self) -> None:
        """Arrays of a command that died between sbatch and writing it down: taken over, or ended if they cannot run."""
        for announced in sorted((self.folder / "announced").glob("*.json")):
            folders = [Path(path) for path in json.loads(announced.read_text())]
            found = [job.job for job in self.jobs.values() if job.name == announced.stem]
            array = next((job.partition("_")[0] for job in found), "")
            jobs = [f"{array}_{index}" if len(folders) > 1 else array for index in range(len(folders))]
            whole = array and all(self._pickle(job).exists() for job in jobs)
            if whole:
                self._note(jobs, folders)
            else:
                queue.cancel(found)
            announced.unlink()

    def _executor(self, name: str, needs: Sequence[str], ranks: int) -> submitit.SlurmExecutor:
        made, asked = self.machine.slurm, {}
        shared = self.machine.distributed
        nodes = shared.nodes if ranks > 1 else 1
        # Rank 0 says how the run ended; a rank that hangs would keep the job until its time is over.
        waits = [f"--wait={shared.limit_seconds}"] if ranks > 1 else []
        for key in ("partition", "account", "qos", "gres", "gpus_per_task", "constraint", "exclude"):
            if getattr(made, key) is not None:
                asked[key] = getattr(made, key)
        if made.mem_gb is not None:
            asked["mem"] = f"{round(1024 * made.mem_gb)}M"
        if needs:
            asked["dependency"] = "afterany:" + ":".join(needs)
        # What submitit counts are jobs that reach their limit before task.py is in charge of signals.
        executor = submitit.SlurmExecutor(folder=self.folder / "jobs", max_num_timeout=made.attempts)
        exported = [f"export {key}={value}" for key, value in environment(self.machine.threads).items()]
        executor.update_parameters(
            job_name=name,
            time=made.time,
            nodes=nodes,
            ntasks_per_node=ranks // nodes,
            cpus_per_task=made.cpus_per_task or self.machine.threads,
            signal_delay_s=made.signal_seconds,
            array_parallelism=made.array_parallelism,
            srun_args=[*waits, *made.srun_args],
            setup=[*exported, *made.setup],
            additional_parameters={"requeue": True, "kill-on-invalid-dep": "yes"},
            **asked,
        )
        return executor

    def _arrays(self, run_ids: Sequence[str]) -> list[str]:
        """The arrays in the queue that these runs are tasks of."""
        found = [states.submitted(self._run(run_id)) for run_id in run_ids]
        held = [each.job.partition("_")[0] for each in found if each is not None and each.job in self.jobs]
        return list(dict.fromkeys(held))

    def _pickle(self, job: str) -> Path:
        return submitit.core.utils.JobPaths(self.folder / "jobs", job_id=job).submitted_pickle

    def _run(self, run_id: str) -> Path:
        return self.machine.place.runs / run_id


def _stages(
    runs: Sequence[PlannedRun], shared: DistributedConfig
) -> Iterator[tuple[tuple[str, int], list[PlannedRun]]]:
    """Runs by what they need: those that need none, the transfers of each task, what goes on from those.

    Within a stage in the order of their parents. Each stage with the number of processes that do one run of it.
    """
    known = {run.run_id: run for run in runs}

    def depth(run: PlannedRun) -> int:
        return 1 + max((depth(known[parent]) for parent in run.needs if parent in known), default=0)

    stages: dict[tuple[str, int], list[PlannedRun]] = {}
    for run in runs:
        stage = stage_of(run.spec) if run.kind in (Kind.TRANSFER, Kind.DIALOGUE) else "pretrain"
        stages.setdefault((stage, ranks(run.spec, shared)), []).append(run)
    order = {run.run_id: place for place, run in enumerate(runs)}
    # A stage is submitted after those it needs: only then have they a job to wait for.
    for key, members in sorted(stages.items(), key=lambda each: max(map(depth, each[1]))):
        yield key, sorted(members, key=lambda run: [order.get(parent, -1) for parent in run.needs])
