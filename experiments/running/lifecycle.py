"""The life of a run: a spec in a folder becomes a record beside it. `execute` is what every launcher calls.

A run folder holds spec.json before the run, metrics.jsonl, progress.json and checkpoint/ during it, and record.json
(last, atomically) after it. A lock keeps two processes out of one folder, so a second sweep waits for an orphan of the
first instead of racing it.
"""

import logging
import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from experiments.planning.specs import Spec, TransferSpec, Written, load_spec
from experiments.running import checkpoint
from experiments.running.fit import Stopped
from experiments.running.hardware import multiplies_in
from experiments.running.outcome import Outcome
from experiments.running.pretrain import pretrain
from experiments.running.progress import Progress
from experiments.running.text_lm import text_lm
from experiments.running.transfer import transfer
from experiments.running.world import Place
from results import provenance, record
from results.schema import Kind, RunRecord, Status

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
SHOWN_STAGES = {Kind.PRETRAIN: "pre-training", Kind.TEXT_LM: "caption LM", Kind.TRANSFER: "transfer"}
_RUNNERS: Mapping[Kind, Any] = {Kind.PRETRAIN: pretrain, Kind.TEXT_LM: text_lm, Kind.TRANSFER: transfer}


def execute(run_id: str, place: Place, scale: str, bar: bool = False) -> Status:
    """Do the run whose spec.json lies in runs/<run_id>, unless it is done; its status.

    Every outcome but a request to stop is recorded: a failure too, with its reason. Raises Stopped after SIGINT or
    SIGTERM, and OSError when the record cannot be written.
    """
    folder = place.runs / run_id
    with FileLock(folder / ".lock"):
        path = folder / record.RECORD_FILE
        if path.exists() and record.read(path).status is Status.DONE:
            return Status.DONE
        spec = load_spec(folder)
        progress = Progress(folder, _stage(spec), getattr(spec, "images_per_step", 0), bar)
        began = time.monotonic()
        status, reason, outcome = Status.DONE, "", Outcome()
        try:
            blocked = _blocked(spec, place)
            if blocked:
                status, reason = Status.BLOCKED, blocked
            else:
                outcome = _RUNNERS[spec.kind](spec, place, folder, progress)
        except (Stopped, KeyboardInterrupt):
            raise
        except Exception as error:  # the record says what went wrong; nothing is swallowed
            logger.exception("run %s failed", run_id)
            status, reason = Status.FAILED, f"{type(error).__name__}: {error}".splitlines()[0]
        finally:
            progress.close()
        _write(folder, run_id, spec, scale, status, reason, outcome, time.monotonic() - began)
        if status is Status.DONE:
            checkpoint.clear(folder / "checkpoint")
        return status


def give_up(run_id: str, place: Place, scale: str, reason: str) -> None:
    """Record that a run failed which could not say so itself: its process was killed."""
    folder = place.runs / run_id
    with FileLock(folder / ".lock"):
        spec = load_spec(folder)
        _write(folder, run_id, spec, scale, Status.FAILED, reason, Outcome(), 0.0)


def _stage(spec: Spec) -> str:
    return spec.task if isinstance(spec, TransferSpec) else SHOWN_STAGES[spec.kind]


def _blocked(spec: Spec, place: Place) -> str:
    """Why a run cannot start: a parent without a finished record."""
    parents = [spec.inputs[name] for name in ("encoder", "text_lm") if name in spec.inputs] if _transfers(spec) else []
    for parent in parents:
        path = place.runs / parent / record.RECORD_FILE
        if not path.exists():
            return f"{parent} has not been run"
        found = record.read(path)
        if found.status is not Status.DONE:
            return f"{parent} {found.status.value}: {found.reason}"
    return ""


def _transfers(spec: Spec) -> bool:
    return isinstance(spec, TransferSpec)


def _write(
    folder: Path, run_id: str, spec: Spec, scale: str, status: Status, reason: str, outcome: Outcome, seconds: float
) -> None:
    code, parts = provenance.revision(ROOT), Written.load(folder)
    finite = {key: value for key, value in outcome.metrics.items() if math.isfinite(value)}
    not_finite = {key: f"it is {value}" for key, value in outcome.metrics.items() if key not in finite}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
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
        train_flops=outcome.train_flops,
        commit=code.commit,
        dirty=code.dirty,
        env=provenance.environment(device, torch.get_num_threads()) | {"multiplies_in": multiplies_in()},
        data_digest=outcome.data_digest,
        coverage=outcome.coverage,
        seconds=round(seconds, 1),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=reason,
    )
    record.write(done, folder, outcome.scores)
