"""What can happen to a local sweep: signals, kills, two at once. Nothing is lost or done twice, nobody is left over."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from sweep_helpers import small_suite, start, statuses, tables, wait_for, with_corpus

from data.seeds import generator
from experiments.command.exits import EXIT_DONE, EXIT_FAILED, EXIT_INCOMPLETE, EXIT_STOPPED
from experiments.launching import local
from experiments.running import attempts
from results import record
from results.schema import Status

pytestmark = pytest.mark.slow
LONG = ("--set", "pretrain.images=4800")  # of which nobody sees the end


@pytest.fixture(autouse=True)
def suite(monkeypatch: pytest.MonkeyPatch) -> None:
    small_suite(monkeypatch)


def working(runs: Path) -> Path:
    """The folder of a pre-training, once it is in its steps."""
    found = wait_for(lambda: [p for p in runs.glob("pretrain-*/progress.json") if '"step"' in p.read_text()])
    return found[0].parent


def worker(folder: Path) -> int:
    """The process that is at a run."""
    last = attempts.newest(folder)
    assert last is not None
    return last.pid


def is_gone(pid: int) -> bool:
    return attempts.started(pid) is None


def test_killed_and_started_again_the_table_is_the_same(
    tmp_path: Path, corpus: Path, reference: tuple[Path, dict[str, bytes]]
) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    for moment in generator("kill", "sweep").uniform(0.0, 6.0, 2):
        process = start(runs)
        wait_for(lambda: any(runs.glob("*/progress.json")))
        time.sleep(moment)
        process.kill()
        process.communicate(timeout=60)
    process = start(runs)
    _, err = process.communicate(timeout=400)
    assert process.returncode == EXIT_DONE, err
    assert tables(runs) == reference[1]


def test_a_run_whose_process_is_killed_is_tried_again(
    tmp_path: Path, corpus: Path, reference: tuple[Path, dict[str, bytes]]
) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    process = start(runs)
    folder = working(runs)
    os.kill(worker(folder), signal.SIGKILL)
    _, err = process.communicate(timeout=400)
    assert process.returncode == EXIT_DONE and "Traceback" not in err, err
    assert f"{folder.name}: its process was killed by SIGKILL (out of memory?); it is tried once more" in err
    assert tables(runs) == reference[1]


def test_a_run_that_is_killed_every_time_fails_by_name_and_the_others_go_on(tmp_path: Path, corpus: Path) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    process = start(runs)
    folder = working(runs)
    for number in range(1, local.TRIES + 1):
        wait_for(lambda number=number: (last := attempts.newest(folder)) and last.number == number)
        os.kill(worker(folder), signal.SIGKILL)
    _, err = process.communicate(timeout=400)
    assert process.returncode == EXIT_INCOMPLETE and "Traceback" not in err, err
    found = statuses(runs)
    assert len(found) == 9 and found[folder.name] is Status.FAILED
    assert "killed by SIGKILL (out of memory?), 2 times; the log is " in record.read(folder / "record.json").reason
    assert list(found.values()).count(Status.BLOCKED) == 3


def test_killed_above_a_worker_what_is_finished_stays_finished(tmp_path: Path, corpus: Path) -> None:
    """The sweep is killed while a worker is in a run; a second one begins at once."""
    runs = with_corpus(tmp_path / "runs", corpus)
    first = start(runs)
    folder = working(runs)
    done = {path: path.read_bytes() for path in runs.glob("*/record.json")}
    first.kill()
    second = start(runs)
    first.communicate(timeout=60)
    _, err = second.communicate(timeout=400)
    assert second.returncode == EXIT_DONE, err
    assert set(statuses(runs).values()) == {Status.DONE}
    assert done == {path: path.read_bytes() for path in done}
    ended = [attempt.ended for attempt in attempts.every(folder)]
    assert ended in (["stopped", "done"], ["done"])  # the worker saw that its sweep is gone


def test_two_sweeps_at_once_share_the_work(
    tmp_path: Path, corpus: Path, reference: tuple[Path, dict[str, bytes]]
) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    first = start(runs)
    wait_for(lambda: any(runs.glob("*/progress.json")))
    second = start(runs)
    for process in (first, second):
        _, err = process.communicate(timeout=400)
        assert process.returncode == EXIT_DONE and "Traceback" not in err, err
    assert tables(runs) == reference[1]
    for path in runs.glob("*/record.json"):
        ended = [attempt.ended for attempt in attempts.every(path.parent)]
        assert ended.count("done") == len(ended) and len(ended) <= 2, ended  # the second found it done
    seconds = [attempt.seconds for path in runs.glob("*/record.json") for attempt in attempts.every(path.parent)[1:]]
    assert all(each < 1 for each in seconds)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_sweep_lets_its_workers_save_and_end(
    tmp_path: Path, corpus: Path, number: signal.Signals
) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    process = start(runs, *LONG)
    folder = working(runs)
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(number)  # an impatient user
    _, err = process.communicate(timeout=120)
    assert process.returncode == EXIT_STOPPED and "Traceback" not in err, err
    assert "run the same command again to continue" in err
    assert is_gone(worker(folder))
    assert list(folder.glob("checkpoint/step-*")), "the step it was in is lost"
    assert not list(runs.glob("pretrain-*/record.json"))
    last = attempts.newest(folder)
    assert last is not None and last.ended == "stopped"


def test_killed_the_sweep_takes_its_workers_along_after_their_step(tmp_path: Path, corpus: Path) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    process = start(runs, *LONG)
    folder = working(runs)
    process.kill()  # and nobody has asked for its exit code yet: it is a zombie
    wait_for(lambda: is_gone(worker(folder)), seconds=30.0)
    assert list(folder.glob("checkpoint/step-*"))
    process.communicate(timeout=60)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_inline_launcher_can_be_continued(tmp_path: Path, corpus: Path, number: signal.Signals) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    process = start(runs, "--launcher", "inline", *LONG)
    folder = working(runs)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == EXIT_STOPPED, err
    assert "run the same command again to continue" in err and "Traceback" not in err
    assert json.loads(next(folder.glob("checkpoint/step-*/state.json")).read_text())["step"] > 0


def test_a_folder_that_may_not_be_written_is_one_line_and_nothing_starts(tmp_path: Path, corpus: Path) -> None:
    runs = with_corpus(tmp_path / "runs", corpus)
    folders = (runs / "shared", runs)
    for folder in folders:
        folder.chmod(0o555)
    try:
        process = start(runs)
        _, err = process.communicate(timeout=240)
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert process.returncode == EXIT_FAILED and "Traceback" not in err, err
    assert f"error: Permission denied ({runs}" in err and "or choose another place with --runs" in err
    assert not list(runs.glob("*/spec.json"))
