"""A sweep on a real SLURM gives the table that it gives without one, whatever the cluster does meanwhile."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import pytest
from slurm_helpers import ROWS, Sweep
from sweep_helpers import BUDGET, wait_for

from experiments.configuration.slurm import SlurmConfig
from experiments.running import attempts
from results import record
from results.schema import Status

On = Callable[..., Sweep]


def submits(said: str) -> bool:
    """Whether a command submitted runs: it says so, or that it did not, or nothing where all are done by then."""
    return re.search(r"\d+ runs submitted", said) is not None


def test_the_table_is_that_of_the_inline_launcher(on: On, reference: Sweep) -> None:
    """In arrays of at most three tasks; and the command given again while it runs submits nothing."""
    sweep = on(max_array=3)
    first = sweep.submit(rows=ROWS)
    assert submits(first) and "13 runs submitted" in first
    sweep.training("pretrain-clip")
    assert not submits(sweep.submit(rows=ROWS))
    sweep.over()
    assert sweep.tables() == reference.tables()
    jobs = {}
    for folder in sweep.runs.glob("*/spec.json"):
        (only,) = attempts.every(folder.parent)
        assert only.ended == "done"
        jobs[folder.parent.name] = only.job.partition("_")[0]
    assert len(set(jobs.values())) == 2 + 3  # four runs that need none are two arrays of at most three
    done = sweep.call("status", "table1", "--runs", str(sweep.runs))
    assert "13 runs: 13 done" in done.stdout, done.stderr


@pytest.mark.long
def test_what_goes_on_from_a_transfer_waits_for_it(on: On) -> None:
    """Stage 2 of dialogue needs its stage 1, which needs the encoder: each is a job that depends on the one before."""
    short = ("dialogue.align.epochs=0.05", "dialogue.tune.epochs=0.01", "dialogue.tune.answer_tokens=2")
    sweep = replace(on(), table="table4", changes=(*BUDGET, *short))
    assert "4 runs submitted" in sweep.submit(rows=("CLIP",))
    sweep.over()
    order = ("pretrain-clip", "dialogue-align", "dialogue-tune")
    ended = [record.read(sweep.folder(start) / "record.json").finished_at for start in order]
    assert ended == sorted(ended) and set(sweep.statuses().values()) == {Status.DONE}
    assert all([each.ended for each in sweep.attempts(start)] == ["done"] for start in order)


@pytest.mark.parametrize("number", ["USR2", "TERM"])
def test_a_signal_saves_and_requeues_and_the_result_is_the_same(on: On, reference: Sweep, number: str) -> None:
    sweep = on()
    sweep.submit()
    first = sweep.training("pretrain-clip")
    for _ in range(2):  # the second changes nothing
        sweep.cluster.run("scancel", f"--signal={number}", first.job)
        time.sleep(0.02)
    sweep.done("pretrain-clip")
    assert sweep.trained("pretrain-clip") == reference.trained("pretrain-clip")
    stopped, *again, done = sweep.attempts("pretrain-clip")
    assert f"SIG{number}" in stopped.reason and len(again) <= 1  # the second may meet the job that goes on
    assert [each.ended for each in (stopped, *again, done)] == [*["stopped"] * (1 + len(again)), "done"]
    assert done.job == stopped.job and stopped.log.endswith("-r0.log") and not done.log.endswith("-r0.log")


@pytest.mark.parametrize("controller", ["preempt_send_user_signal", ""])
def test_a_preempted_run_goes_on_afterwards(on: On, reference: Sweep, controller: str) -> None:
    """With the parameter a preempted job gets SIGUSR2, without it SIGTERM."""
    sweep = on(controller=controller)
    sweep.submit()
    sweep.training("pretrain-clip")
    urgent = ["sbatch", "--partition=urgent", "--nodes=3", "--exclusive", "--output=/dev/null", "--wrap=sleep 3"]
    assert sweep.cluster.run(*urgent)
    sweep.done("pretrain-clip")
    assert sweep.trained("pretrain-clip") == reference.trained("pretrain-clip")
    stopped, done = sweep.attempts("pretrain-clip")
    assert (stopped.ended, done.ended) == ("stopped", "done")
    assert ("SIGUSR2" if controller else "SIGTERM") in stopped.reason


def test_a_node_that_is_set_down_gives_its_runs_to_others(on: On, reference: Sweep) -> None:
    sweep = on()
    sweep.submit()
    first = sweep.training("pretrain-clip")
    node = sweep.cluster.run("squeue", "--noheader", f"--jobs={first.job}", "--format=%N").strip()
    sweep.cluster.run("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    sweep.done("pretrain-clip")
    assert sweep.trained("pretrain-clip") == reference.trained("pretrain-clip")
    assert [each.job for each in sweep.attempts("pretrain-clip")] == [first.job] * 2


@pytest.mark.long
def test_a_node_that_is_lost_and_still_works_keeps_its_run(on: On, reference: Sweep) -> None:
    """slurmd dies, its step lives on; SLURM starts the run again elsewhere, which waits for the one that has it."""
    sweep = on()
    sweep.submit()
    first = sweep.training("pretrain-clip")
    node = sweep.cluster.run("squeue", "--noheader", f"--jobs={first.job}", "--format=%N").strip()
    os.kill(first.pid, signal.SIGSTOP)  # so that it does not end before SLURM gives the node up
    sweep.cluster.kill(node)
    logs = sweep.folder("pretrain-clip") / "logs"
    wait_for(lambda: any("waiting: " in path.read_text() for path in logs.glob("*-r1.log")), 90)
    os.kill(first.pid, signal.SIGCONT)
    sweep.done("pretrain-clip")
    assert sweep.trained("pretrain-clip") == reference.trained("pretrain-clip")
    assert sweep.attempts("pretrain-clip")[0].ended == "done"
    assert all(each.seconds < 1 for each in sweep.attempts("pretrain-clip")[1:])


def test_a_controller_that_restarts_is_waited_for(on: On) -> None:
    sweep = on()
    sweep.submit()
    sweep.training("pretrain-clip")
    sweep.cluster.kill("slurmctld")
    sweep.cluster.start_controller()
    assert not submits(sweep.submit())
    sweep.done("pretrain-clip")


def test_a_row_that_fails_holds_nobody_up_and_says_why(on: On) -> None:
    sweep = on()
    sweep.submit("--set", "pretrain.optim.lr.others=1e30", rows=("clip", "Random encoder"))
    sweep.over()
    found = sweep.statuses()
    assert len(found) == 9
    for name, status in found.items():
        expected = Status.DONE if "clip" not in name else Status.FAILED if "pretrain" in name else Status.BLOCKED
        assert status is expected, name
    assert "NonFiniteLoss: step 1: loss nan" in sweep.tables()["table1.md"].decode()
    done = sweep.call("status", "table1", "--runs", str(sweep.runs))
    assert "1 failed, 3 blocked" in done.stdout and "log " in done.stdout


@pytest.mark.long
def test_time_that_is_up_costs_nothing(on: On, reference: Sweep) -> None:
    """The limit is SLURM's own. The run stands still until the signal comes, and SLURM's SIGCONT with it."""
    sweep = on()
    sweep.submit("--set", "slurm.time=2", "--set", "slurm.signal_seconds=20")
    first = sweep.training("pretrain-clip")
    os.kill(first.pid, signal.SIGSTOP)
    sweep.done("pretrain-clip")
    stopped, *_, done = sweep.attempts("pretrain-clip")
    assert re.match("stopped by SIGUSR2 after step", stopped.reason) and done.ended == "done"
    assert stopped.seconds < 120 and done.job == stopped.job and 0 < done.from_step < 60
    assert sweep.trained("pretrain-clip") == reference.trained("pretrain-clip")


@pytest.mark.long
def test_a_run_that_never_gets_anywhere_is_not_requeued_for_ever(on: On) -> None:
    sweep = on()
    sweep.submit("--set", "slurm.attempts=2")
    for number in (1, 2):
        begun = wait_for(
            lambda number=number: (found := sweep.attempts("pretrain-clip")) and len(found) == number and found[-1], 90
        )
        sweep.cluster.run("scancel", "--signal=USR2", begun.job)  # long before its first step
    sweep.over()
    assert [each.ended for each in sweep.attempts("pretrain-clip")] == ["stopped", "stopped", "failed"]
    said = sweep.reason("pretrain-clip")
    assert "has begun 2 times and saved nothing after step 0 (slurm.attempts is 2)" in said
    assert "stopped by SIGUSR2" in said and "--set slurm.time, now 1440 min" in said
    assert "saved nothing after step 0" in sweep.tables()["table1.md"].decode()
    assert sweep.statuses()[sweep.folder("transfer-classify-clip").name] is Status.BLOCKED


def test_one_run_of_two_processes_learns_what_one_does(on: On, reference: Sweep) -> None:
    sweep = on(cpus=2)
    sweep.submit("--set", "distributed.ranks=2")
    sweep.done("pretrain-clip")
    (only,) = sweep.attempts("pretrain-clip")
    assert only.ended == "done"
    alone, shared = (
        [json.loads(line)["contrast"] for line in one.trained("pretrain-clip")[1].splitlines()]
        for one in (reference, sweep)
    )
    # Muon orthogonalises in bf16: rounding grows from step to step, so only the beginning is the same to all digits.
    assert shared[0] == pytest.approx(alone[0], abs=1e-5) and shared == pytest.approx(alone, abs=0.02)
    assert record.read(sweep.folder("pretrain-clip") / "record.json").env["ranks"] == "2"


def test_what_is_cancelled_says_so_and_goes_on_when_asked_again(on: On, reference: Sweep) -> None:
    sweep = on()
    sweep.submit()
    first = sweep.training("pretrain-clip")
    sweep.cluster.run("scancel", first.job)
    sweep.over()
    assert "stopped by SIGTERM after step" in sweep.reason("pretrain-clip")
    assert sweep.statuses()[sweep.folder("transfer-classify-clip").name] is Status.BLOCKED
    assert "stopped by SIGTERM after step" in sweep.tables()["table1.md"].decode()
    assert "4 runs submitted" in sweep.submit()
    sweep.over()
    assert sweep.trained("pretrain-clip") == reference.trained("pretrain-clip")
    assert set(sweep.statuses().values()) == {Status.DONE}


def test_a_process_that_is_killed_is_a_reason_in_the_table(on: On) -> None:
    sweep = on()
    sweep.submit()
    os.kill(sweep.training("pretrain-clip").pid, signal.SIGKILL)
    sweep.over()
    assert "ended without a record at step" in sweep.reason("pretrain-clip")
    assert "ended without a record at step" in sweep.tables()["table1.md"].decode()


def test_cancel_ends_what_the_sweep_started_and_nothing_else(on: On) -> None:
    sweep = on()
    (other,) = sweep.cluster.run("sbatch", "--parsable", "--output=/dev/null", "--wrap=sleep 300").split()
    sweep.submit()
    sweep.training("pretrain-clip")
    done = sweep.call("cancel", "table1", "--runs", str(sweep.runs))
    assert re.search("[56] jobs cancelled", done.stdout), done.stderr  # that of the language model may be over
    wait_for(lambda: list(sweep.cluster.queue()) == [other], 60)
    assert [each.ended for each in sweep.attempts("pretrain-clip")] == ["stopped"]
    assert all(name.startswith("text_lm") for name in sweep.statuses())


FAILS_TWICE = """\
#!/bin/sh
# sbatch as it is on a bad day: it fails, then it works but its answer is lost, then it works
n=$(cat {folder}/n 2>/dev/null || echo 0); echo $((n + 1)) > {folder}/n
if [ $n -eq 0 ]; then echo "sbatch: error: Unable to contact slurm controller" >&2; exit 1; fi
if [ $n -eq 1 ]; then {sbatch} "$@" > /dev/null; echo "sbatch: error: Socket timed out" >&2; exit 1; fi
exec {sbatch} "$@"
"""


def test_an_sbatch_that_fails_is_tried_again_and_nothing_is_submitted_twice(on: On, tmp_path: Path) -> None:
    sweep = on()
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(FAILS_TWICE.format(folder=folder, sbatch=shutil.which("sbatch")))
    (folder / "sbatch").chmod(0o755)
    said = sweep.submit(path=str(folder))
    assert "Unable to contact slurm controller; trying again" in said and "5 runs submitted" in said
    assert "Traceback" not in said
    held = sweep.cluster.run("squeue", "--noheader", "--array", "--states=PENDING,RUNNING", "--format=%j %i")
    names = [line.split()[0].rpartition("-")[0] for line in held.splitlines()]
    assert sorted(names.count(name) for name in set(names)) == [1, 1, 1, 1, 2]


SETTINGS = {
    "partition=main": "#SBATCH --partition=main",
    "account=vision": "#SBATCH --account=vision",
    "qos=high": "#SBATCH --qos=high",
    "gres=gpu:1": "#SBATCH --gres=gpu:1",
    "constraint=fast": "#SBATCH --constraint=fast",
    "exclude=n3": "#SBATCH --exclude=n3",
    "time=120": "#SBATCH --time=120",
    "mem_gb=1.5": "#SBATCH --mem=1536M",
    "cpus_per_task=1": "#SBATCH --cpus-per-task=1",
    "signal_seconds=60": "#SBATCH --signal=USR2@60",
    "array_parallelism=1": "#SBATCH --array=0-1%1",
    "srun_args=--cpu-bind=none": "--cpu-bind=none",
    "setup=export ONE=1, export TWO=2": "export ONE=1\nexport TWO=2",
}
KEEPS_A_COPY = """\
#!/bin/sh
# sbatch of a cluster that has a quality of service and GPUs, which this one has not
cp "$1" {folder}/$$.sh; sed -i '/--qos\\|--gres\\|--gpus-per-task/d' "$1"; exec {sbatch} "$@"
"""


def test_every_setting_reaches_sbatch(on: On, tmp_path: Path) -> None:
    ours = {"attempts"}  # what this suite does, not sbatch
    other = {"gpus_per_task"}  # instead of gres
    assert {setting.partition("=")[0] for setting in SETTINGS} == (
        {field.name for field in fields(SlurmConfig)} - ours - other
    )
    sweep = on()
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(KEEPS_A_COPY.format(folder=folder, sbatch=shutil.which("sbatch")))
    (folder / "sbatch").chmod(0o755)
    given = [word for setting in SETTINGS for word in ("--set", f"slurm.{setting}")]
    sweep.submit(*given, path=str(folder))
    (text,) = [path.read_text() for path in folder.glob("*.sh") if "-pretrain-" in path.read_text()]
    for setting, line in SETTINGS.items():
        assert line in text, setting
    sweep.training("pretrain-clip")  # and it starts
    sweep.submit("--set", "slurm.gpus_per_task=1", rows=("lcl",), path=str(folder))
    assert any("#SBATCH --gpus-per-task=1" in path.read_text() for path in folder.glob("*.sh"))
