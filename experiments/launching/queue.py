"""SLURM's own view of jobs, by squeue, scontrol and scancel. Never by sacct: many clusters keep no accounts."""

import logging
import re
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

logger = logging.getLogger(__name__)

BRIEFLY = (1.0,)  # of a job that ends: while its process stays, SLURM cannot start it again on that node
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try: a controller that restarts is away for a moment
GONE = "Invalid job id"  # what SLURM says of a job that ended some minutes ago


class SlurmError(OSError):
    """A SLURM command that failed; the message holds what it said."""


@dataclass(frozen=True)
class Job:
    """A job, or one task of an array, that SLURM holds."""

    job: str  # 12, or 12_3
    name: str
    state: str  # PENDING, RUNNING, ...
    reason: str  # why it is pending, or the nodes it is on


def command(words: Sequence[str], waits: Sequence[float] = WAITS) -> str:
    """What a SLURM command prints. Raises SlurmError when it has failed every time, at once for an unknown job."""
    said = ""
    for wait in (*waits, None):
        try:
            done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        except FileNotFoundError:
            raise SlurmError(f"{words[0]} is not on PATH; is this a machine of the cluster?") from None
        except subprocess.TimeoutExpired:
            said = "no answer within a minute"
        else:
            if done.returncode == 0:
                return done.stdout
            said = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
            if GONE in said:
                break
        if wait is not None:
            logger.warning("%s: %s; trying again", words[0], said)
            time.sleep(wait)
    raise SlurmError(f"{words[0]} failed: {said}")


def mine() -> Mapping[str, Job]:
    """Every job that SLURM holds for this user, array tasks one by one, by job id. Raises SlurmError."""
    return _jobs("--me")


def those(jobs: Iterable[str]) -> Mapping[str, Job]:
    """Those of these jobs that SLURM holds, whoever's they are, by job id. Raises SlurmError."""
    arrays = sorted({job.partition("_")[0] for job in jobs})
    try:
        return _jobs(f"--jobs={','.join(arrays)}") if arrays else {}
    except SlurmError as error:
        if GONE in str(error):  # of one that is long over; of several, those are left out
            return {}
        raise


def _jobs(which: str) -> Mapping[str, Job]:
    lines = command(["squeue", which, "--noheader", "--array", "--format=%i|%j|%T|%R"]).splitlines()
    found = [Job(*line.split("|", 3)) for line in lines if line.count("|") >= 3]
    return {job.job: job for job in found}


def max_array() -> int:
    """How many tasks an array may have. Raises SlurmError."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", command(["scontrol", "show", "config"]), re.MULTILINE)
    if found is None:
        raise SlurmError("scontrol show config does not say MaxArraySize")
    return max(1, int(found[1]))


def cancel(jobs: Sequence[str]) -> None:
    """End jobs; those that are over already are no error. Raises SlurmError."""
    for job in jobs:
        try:
            command(["scancel", job])
        except SlurmError as error:
            if GONE not in str(error):
                raise


def restart(job: str, restarts: int) -> str:
    """Let the job this process runs in, which has been restarted so often, run again; what came of that, in words.

    Asked for only while SLURM counts it as running. One that is cancelled is COMPLETING when its process is told, and
    so is one that SLURM preempts or takes from a failed node, which it restarts by itself: asking too would bring back
    the first and restart the new process of the others. Raises SlurmError.
    """
    words = command(["scontrol", "--oneliner", "show", "job", job], waits=BRIEFLY).split()
    found = dict(word.split("=", 1) for word in words if "=" in word)
    if (state := found.get("JobState")) != "RUNNING" or found.get("Restarts") != str(restarts):
        return f"is {state} by SLURM's own will"
    command(["scontrol", "requeue", job], waits=())
    return "is requeued"
