"""How a run stands, from its folder and the queue of a cluster: what every launcher, status and cancel go by."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from experiments.launching.queue import Job
from experiments.running import attempts, progress
from experiments.running.attempts import Attempt
from results import record
from results.schema import RunRecord, Status

FILE = "submission.json"
COLLATE = "collate"  # folder of the jobs that write tables

# In the order in which a user wants to read them.
State = Literal["running", "queued", "stopped", "lost", "failed", "blocked", "waiting", "done"]
UNDER_WAY: tuple[State, ...] = ("running", "queued")


@dataclass(frozen=True)
class Submission:
    """What a scheduler was last asked to do with a run."""

    job: str
    sweep: str  # name of the manifest it was submitted for
    at: float  # seconds since the epoch


@dataclass(frozen=True)
class Seen:
    """A run as it stands."""

    state: State
    attempt: Attempt | None
    submission: Submission | None
    queued: Job | None  # the job of its submission, where the queue holds it
    record: RunRecord | None
    progress: Mapping[str, float | int | str | None]

    @property
    def why(self) -> str:
        """The reason of a run that is not done and not under way, in words; "" where there is none."""
        if self.state in ("failed", "blocked") and self.record is not None:
            return self.record.reason
        if self.state == "stopped" and self.attempt is not None:
            return f"{self.attempt.reason}; run the same command again to continue"
        if self.state == "lost" and self.attempt is not None:
            at = f" at step {self.progress['step']} of {self.progress['steps']}" if "steps" in self.progress else ""
            return f"{self.attempt.who} ended without a record{at}; the log is {self.attempt.log or 'on its terminal'}"
        if self.state == "lost" and self.submission is not None:
            return f"job {self.submission.job} ended before it began this run (cancelled, or it could not start)"
        return ""


def look(folder: Path, jobs: Mapping[str, Job]) -> Seen:
    """A run. jobs: what the queue of a cluster holds."""
    found = _record(folder)
    attempt, submission = attempts.newest(folder), submitted(folder)
    queued = jobs.get(submission.job) if submission else None
    return Seen(
        state=_state(folder, found, attempt, submission, queued),
        attempt=attempt,
        submission=submission,
        queued=queued,
        record=found,
        progress=progress.read(folder),
    )


def _state(
    folder: Path,
    found: RunRecord | None,
    attempt: Attempt | None,
    submission: Submission | None,
    queued: Job | None,
) -> State:
    if found is not None and found.status is Status.DONE:
        return "done"
    if attempt is not None and attempts.alive(folder, attempt):
        return "running"
    if queued is not None:
        return "running" if queued.state == "RUNNING" else "queued"
    if submission is not None and (attempt is None or _never_began(submission, attempt)):
        return "lost"  # submitted again after the last attempt, and gone without another
    if attempt is not None and attempt.ended in ("", "done"):
        return "lost"
    if attempt is not None and attempt.ended == "stopped":
        return "stopped"
    if found is None:
        return "waiting"
    return "blocked" if found.status is Status.BLOCKED else "failed"


def _never_began(submission: Submission, attempt: Attempt) -> bool:
    """Whether a run was submitted after its last attempt: by the job, as the clocks of two hosts differ."""
    return attempt.job != submission.job and submission.at > attempt.began


def _record(folder: Path) -> RunRecord | None:
    try:
        return record.read(folder / record.RECORD_FILE)
    except (FileNotFoundError, record.RecordError):
        return None


def submit(folder: Path, submission: Submission) -> None:
    """Write down what a scheduler was asked to do."""
    record.write_atomic(folder / FILE, json.dumps(asdict(submission)) + "\n")


def submitted(folder: Path) -> Submission | None:
    """What was last submitted; None where nothing was."""
    try:
        return Submission(**json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
