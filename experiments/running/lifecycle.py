"""The life of a run: a spec in a folder becomes a record beside it. `execute` is what every launcher calls.

A run folder holds spec.json before the run, attempts/ (who does it), metrics.jsonl, progress.json and checkpoint/
during it, and record.json (last, atomically) after it. The owner of the folder writes all of them: it holds the lease
(attempts.py), tries the work, and records what came of it.
"""

import logging
import math
import os
import signal
import time
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from experiments.configuration.distributed import ALONE, DistributedConfig
from experiments.configuration.place import Place
from experiments.planning.specs import DialogueSpec, Spec, TransferSpec, Written, load_spec, ranks
from experiments.running import attempts, checkpoint, source
from experiments.running.attempts import Ended, Lease, LeaseLost, claim, is_done
from experiments.running.distributed.members import ranks_of
from experiments.running.hardware import environment
from experiments.running.outcome import Outcome, Owned
from experiments.running.progress import Progress
from experiments.running.saved import saved
from experiments.running.stages.dialogue import dialogue
from experiments.running.stages.foreign import taken_in
from experiments.running.stages.pretrain import pretrain
from experiments.running.stages.text_lm import text_lm
from experiments.running.stages.transfer import transfer
from experiments.running.stopping import Stopped, stoppable
from results import provenance, record
from results.schema import Kind, RunRecord, Status

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
SHOWN_STAGES = {
    Kind.PRETRAIN: "pre-training",
    Kind.ENCODER: "encoder",
    Kind.TEXT_LM: "caption LM",
    Kind.TRANSFER: "transfer",
    Kind.DIALOGUE: "dialogue",
}
_RUNNERS: Mapping[Kind, Any] = {
    Kind.PRETRAIN: pretrain,
    Kind.ENCODER: taken_in,
    Kind.TEXT_LM: text_lm,
    Kind.TRANSFER: transfer,
    Kind.DIALOGUE: dialogue,
}


def execute(
    run_id: str,
    place: Place,
    scale: str,
    bar: bool = False,
    job: str = "",
    log: str = "",
    distributed: DistributedConfig = ALONE,
) -> Status:
    """Own the run whose spec.json lies in runs/<run_id>, and do it unless it is done; its status.

    job, log: what a scheduler calls this process, and where it writes; for readers. distributed: how many processes
    pre-train together; other runs have one. Every outcome but a request to stop is recorded: a failure too, with its
    reason.

    Raises Held where another process is at it, LeaseLost where another has taken over, Stopped when a signal asks for
    it, OSError when the record cannot be written.
    """
    folder = place.runs / run_id
    if is_done(folder):
        return Status.DONE
    with stoppable() as stop:
        lease = claim(folder, job, log, saved(folder))
        try:
            with lease.beating():
                return _held(folder, place, scale, bar, lease, distributed)
        except Stopped as stopped:
            if lease.lost:
                raise LeaseLost(f"{folder.name}: another process has taken over and goes on") from stopped
            raise
        finally:
            if lease.lost:  # its signal was for this run, not for those that follow it in this process
                stop.forget(signal.SIGTERM)


def _held(folder: Path, place: Place, scale: str, bar: bool, lease: Lease, distributed: DistributedConfig) -> Status:
    """The owner's part, and how it ended noted in its attempt."""
    if is_done(folder):  # by another, a moment ago
        lease.end("done")
        return Status.DONE
    try:
        return _owned(folder, place, scale, bar, lease, distributed)
    except Stopped as stopped:
        with suppress(LeaseLost):
            lease.end("stopped", str(stopped))
        raise
    except Exception as error:
        with suppress(LeaseLost, OSError):  # where the record cannot be written, neither may this be
            lease.end("failed", _said(error))
        raise


def _owned(folder: Path, place: Place, scale: str, bar: bool, lease: Lease, distributed: DistributedConfig) -> Status:
    """What is tried, and what is written down of it."""
    spec = load_spec(folder)
    progress = Progress(folder, _stage(spec), getattr(spec, "images_per_step", 0), bar)
    progress.write(note="starting")
    began, busy = time.monotonic(), _busy()
    status, reason, outcome = Status.DONE, "", Outcome()
    try:
        source.import_all()
        _code()
        if not lease.attempt.job:  # what was submitted was pinned then
            source.pin(folder)
        source.check(folder)
        blocked = _blocked(folder, place)
        if blocked:
            status, reason = Status.BLOCKED, blocked
        else:
            count = ranks(spec, distributed)
            with ranks_of(folder.name, place, distributed) if count > 1 else nullcontext():
                owned = Owned(folder, progress, lease.check, distributed.strategy)
                outcome = _RUNNERS[spec.kind](spec, place, owned)
            outcome.ranks, outcome.strategy = count, distributed.strategy
    except LeaseLost:
        raise
    except Exception as error:  # the record says what went wrong; nothing is swallowed
        logger.exception("run %s failed", folder.name)
        status, reason = Status.FAILED, _said(error)
    finally:
        progress.close()
    lease.check()
    earlier = attempts.spent(folder, before=lease.attempt.number)
    alone = outcome.ranks == 1 and lease.attempt.number == 1
    spent = Spent(earlier + time.monotonic() - began, _busy() - busy if alone else None)
    _write(folder, folder.name, spec, scale, status, reason, outcome, spent)
    lease.end(_ENDED[status], reason)
    if status is Status.DONE:
        checkpoint.clear(folder / "checkpoint")
    return status


_ENDED: Mapping[Status, Ended] = {Status.DONE: "done", Status.FAILED: "failed", Status.BLOCKED: "blocked"}


class Spent(NamedTuple):
    """Seconds of a run: by the clock, and of processors where they are known."""

    clock: float
    busy: float | None = None


def _busy() -> float:
    """Processor seconds of this process and of those it waited for."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def record_death(run_id: str, place: Place, scale: str, reason: str) -> None:
    """Record that a run failed which could not say so itself: its process is gone, for good.

    Only where nobody is at it: raises Held otherwise. What is finished stays finished.
    """
    folder = place.runs / run_id
    lease = claim(folder)
    if is_done(folder):
        lease.end("done")
        return
    spec = load_spec(folder)
    _write(
        folder,
        run_id,
        spec,
        scale,
        Status.FAILED,
        reason,
        Outcome(),
        Spent(attempts.spent(folder, before=lease.attempt.number)),
    )
    lease.end("failed", reason)


@cache
def _code() -> provenance.Revision:
    """The code this process runs: the commit when its first run began, whatever is checked out or edited later."""
    return provenance.revision(ROOT)


def _stage(spec: Spec) -> str:
    return spec.task if isinstance(spec, TransferSpec) else SHOWN_STAGES[spec.kind]


def parents(folder: Path) -> list[str]:
    """The runs that a run needs."""
    spec = load_spec(folder)
    named = ("encoder", "text_lm", "align") if isinstance(spec, TransferSpec | DialogueSpec) else ()
    return [spec.inputs[name] for name in named if name in spec.inputs]


def _blocked(folder: Path, place: Place) -> str:
    """Why a run cannot start: a parent without a finished record."""
    for parent in parents(folder):
        path = place.runs / parent / record.RECORD_FILE
        if not path.exists():
            return f"{parent} has not been run"
        found = record.read(path)
        if found.status is not Status.DONE:
            return f"{parent} {found.status.value}: {found.reason}"
    return ""


def _write(
    folder: Path, run_id: str, spec: Spec, scale: str, status: Status, reason: str, outcome: Outcome, spent: Spent
) -> None:
    code, parts = _code(), Written.load(folder)
    finite = {key: value for key, value in outcome.metrics.items() if math.isfinite(value)}
    not_finite = {key: f"it is {value}" for key, value in outcome.metrics.items() if key not in finite}
    done = RunRecord(
        run_id=run_id,
        kind=spec.kind,
        status=status,
        spec=parts.spec,
        defaults=parts.defaults,
        parent=outcome.parent,
        metrics=finite,
        chance=outcome.chance,
        items=outcome.items,
        unavailable={**outcome.unavailable, **not_finite},
        scale=scale,
        seed=spec.seed,
        images_seen=outcome.images_seen,
        lm_passes=outcome.lm_passes,
        lm_tokens=outcome.lm_tokens,
        train_flops=outcome.train_flops,
        commit=code.commit,
        dirty=code.dirty,
        env=environment(outcome.ranks, outcome.strategy),
        data_digest=outcome.data_digest,
        coverage=outcome.coverage,
        seconds=round(spent.clock, 1),
        busy_seconds=None if spent.busy is None else round(spent.busy, 1),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=reason,
        fitted_by=outcome.fitted_by,
    )
    record.write(done, folder, outcome.scores, outcome.samples)
