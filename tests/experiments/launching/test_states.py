"""How a run stands, what status shows of it, and what cancel ends: from folders and a queue that is a stand-in here."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from experiments import cancel, status
from experiments.launching import manifest, queue
from experiments.launching.queue import Job, SlurmError
from experiments.launching.states import Submission, look, submit
from experiments.running import attempts
from experiments.running.attempts import claim
from results.schema import Slot

PENDING = Job("7_0", "table1-x", "PENDING", "(Priority)")
RUNNING = Job("7_0", "table1-x", "RUNNING", "n1")


def asked(folder: Path, at: float | None = None) -> None:
    submit(folder, Submission("7_0", "table1-x", time.time() if at is None else at))


def dead(folder: Path) -> None:
    """An attempt whose process is gone."""
    lease = claim(folder, job="7_0", log="/logs/7_0-r0.log")
    path = folder / attempts.FOLDER / f"{lease.attempt.number:04d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": 1}))


def test_a_run_nobody_has_touched_waits(tmp_path: Path) -> None:
    assert look(tmp_path, {}).state == "waiting"


def test_who_is_at_it_runs_whatever_the_queue_says(tmp_path: Path) -> None:
    asked(tmp_path, at=1.0)
    claim(tmp_path)
    for jobs in ({}, {"7_0": PENDING}):
        assert look(tmp_path, jobs).state == "running"


@pytest.mark.parametrize(("job", "state"), [(PENDING, "queued"), (RUNNING, "running")])
def test_what_the_queue_holds_is_under_way(tmp_path: Path, job: Job, state: str) -> None:
    asked(tmp_path)
    assert look(tmp_path, {"7_0": job}).state == state
    dead(tmp_path)  # killed, and requeued by SLURM
    assert look(tmp_path, {"7_0": job}).state == state
    assert look(tmp_path, {"8_0": job}).state == "lost"  # of another run


def test_what_ended_without_a_word_is_lost_and_says_where(tmp_path: Path) -> None:
    dead(tmp_path)
    (tmp_path / "progress.json").write_text(json.dumps({"step": 3, "steps": 9}))
    seen = look(tmp_path, {})
    assert seen.state == "lost"
    assert "(job 7_0) ended without a record at step 3 of 9; the log is /logs/7_0-r0.log" in seen.why


def test_a_job_that_never_began_is_lost_too(tmp_path: Path) -> None:
    asked(tmp_path)
    seen = look(tmp_path, {})
    assert seen.state == "lost" and "job 7_0 ended before it began" in seen.why
    claim(tmp_path).end("stopped", "stopped by SIGTERM")
    assert look(tmp_path, {}).state == "stopped"
    asked(tmp_path)  # again, after that attempt
    assert look(tmp_path, {}).state == "lost"


@pytest.mark.parametrize("skew", [-300.0, 300.0])
def test_a_job_that_has_said_how_it_ended_is_believed_whatever_the_clocks_say(tmp_path: Path, skew: float) -> None:
    asked(tmp_path, at=time.time() + skew)  # by the clock of the machine that submits
    claim(tmp_path, job="7_0").end("stopped", "stopped by SIGUSR2")
    seen = look(tmp_path, {})
    assert seen.state == "stopped" and seen.why.startswith("stopped by SIGUSR2")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"job": 1}'])
def test_a_submission_that_is_not_whole_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "submission.json").write_text(text)
    assert look(tmp_path, {}).submission is None


# ---- the queue


def command(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def bin_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands that stand before all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def test_the_queue_is_read_task_by_task(bin_: Path) -> None:
    command(bin_, "squeue", "echo '7_0|a name|RUNNING|n1'; echo '7_1|b|PENDING|(Dependency|x)'; echo noise")
    assert dict(queue.mine()) == {
        "7_0": Job("7_0", "a name", "RUNNING", "n1"),
        "7_1": Job("7_1", "b", "PENDING", "(Dependency|x)"),
    }


def test_a_command_that_fails_is_tried_again_and_then_named(bin_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = bin_ / "tries"
    command(bin_, "squeue", f"echo x >> {tries}; echo noise >&2; echo 'squeue: error: no controller' >&2; exit 1")
    with pytest.raises(SlurmError, match="^squeue failed: squeue: error: no controller$"):
        queue.command(["squeue"], waits=(0.0, 0.0))
    assert len(tries.read_text().split()) == 3


def test_a_job_that_is_long_over_is_no_error(bin_: Path) -> None:
    for name in ("squeue", "scancel"):
        command(bin_, name, "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert queue.those(["7_0", "7_1"]) == {}
    queue.cancel(["7_0"])


def test_without_slurm_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SlurmError, match="squeue is not on PATH; is this a machine of the cluster"):
        queue.mine()


# ---- status and cancel


def sweep_of(runs: Path, launcher: str, stages: Mapping[str, str]) -> manifest.Manifest:
    """A sweep of one row; run_id by stage."""
    for run_id in stages.values():
        (runs / run_id).mkdir(parents=True)
    slots = [Slot(row="CLIP", stage=stage, seed=0, run_id=run_id) for stage, run_id in stages.items()]
    return manifest.write(runs, "table1", launcher, ["table1"], slots)


def test_status_shows_rows_by_stages_and_what_went_wrong(
    tmp_path: Path, bin_: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    command(bin_, "squeue", "echo '7_0|table1-x|PENDING|(Priority)'")
    sweep = sweep_of(tmp_path / "runs", "slurm", {"pretrain": "one", "classify": "two", "caption": "three"})
    claim(tmp_path / "runs" / "one", log="/log/one")
    (tmp_path / "runs" / "one" / "progress.json").write_text(
        json.dumps({"stage": "pre-training", "step": 5, "steps": 20, "eta_seconds": 90.0})
    )
    asked(tmp_path / "runs" / "two")
    dead(tmp_path / "runs" / "three")
    assert status.main(["table1", "--runs", str(tmp_path / "runs")]) == 0
    said = capsys.readouterr().out
    assert f"{sweep.name}: 3 runs: 1 running, 1 queued, 1 lost (slurm, from " in said
    assert "running 25 %" in said and "pre-training step 5 of 20, 1 min 30 s left" in said and "log /log/one" in said
    assert "two: job 7_0 PENDING (Priority)" in said
    assert "ended without a record; the log is /logs/7_0-r0.log" in said


def test_watching_shows_it_again_and_again_until_the_user_has_seen_enough(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep_of(tmp_path, "local", {"pretrain": "one"})
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 1:
            claim(tmp_path / "one")
        else:
            raise KeyboardInterrupt

    monkeypatch.setattr(status.time, "sleep", nap)
    assert status.main(["table1", "--runs", str(tmp_path), "--watch"]) == 0
    assert naps == [status.REFRESH_SECONDS] * 2 and "1 running" in capsys.readouterr().out


def test_an_unknown_sweep_is_answered_with_those_there_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command_of in (status, cancel):
        assert command_of.main(["table1", "--runs", str(tmp_path)]) == 2
        assert "no sweep 'table1' was started in" in capsys.readouterr().err
    made = sweep_of(tmp_path, "local", {"pretrain": "one"})
    for command_of in (status, cancel):
        assert command_of.main(["table2", "--runs", str(tmp_path)]) == 2
        assert f"there are {made.name}" in capsys.readouterr().err


def test_cancel_tells_the_process_of_a_local_sweep_and_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    made = sweep_of(tmp_path, "local", {"pretrain": "one"})
    path = tmp_path / "shared" / manifest.FOLDER / f"{made.name}.json"

    def of(**changes: object) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    try:
        of(pid=process.pid, started=1)  # the number is used again by another
        assert cancel.main(["table1", "--runs", str(tmp_path)]) == 0
        assert "has ended" in capsys.readouterr().out and process.poll() is None
        of(machine="node7 another boot", host="node7")
        assert cancel.main(["table1", "--runs", str(tmp_path)]) == 1
        assert "on node7; cancel it there" in capsys.readouterr().err and process.poll() is None
        of(machine=attempts.machine(), started=attempts.started(process.pid))
        assert cancel.main(["table1", "--runs", str(tmp_path)]) == 0
        assert process.wait(10) == -signal.SIGTERM
    finally:
        process.kill()
        process.wait()


def test_cancel_ends_only_what_this_sweep_submitted(
    tmp_path: Path, bin_: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = tmp_path / "ended"
    command(bin_, "squeue", 'for i in 7_0 7_1 8_0 9; do echo "$i|x|PENDING|"; done')
    command(bin_, "scancel", f'echo "$@" >> {ended}')
    made = sweep_of(tmp_path, "slurm", {"pretrain": "one", "classify": "two", "caption": "three"})
    submit(tmp_path / "one", Submission("7_0", made.name, 0.0))
    submit(tmp_path / "two", Submission("7_1", "table2-another", 0.0))
    submit(tmp_path / "three", Submission("8_0", made.name, 0.0))
    assert cancel.main(["table1", "--runs", str(tmp_path)]) == 0
    assert ended.read_text().split() == ["8_0", "7_0"]
    assert "2 jobs cancelled: 8_0 7_0" in capsys.readouterr().out
