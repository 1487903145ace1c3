"""Who owns a run: one process at a time, whoever dies, and nobody's word is overwritten."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.running import attempts, lifecycle
from experiments.running.attempts import Held, LeaseLost, Saved, alive, claim, every, newest
from experiments.running.saved import saved
from experiments.running.stopping import Stopped, between_steps, stoppable
from results.schema import Status


@pytest.fixture
def other() -> Iterator["subprocess.Popen[bytes]"]:
    """A process that lives until the test is over."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def written(folder: Path, number: int, **changes: object) -> None:
    path = folder / attempts.FOLDER / f"{number:04d}.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({**found, **changes}))


def age(folder: Path, number: int, seconds: float) -> None:
    path = folder / attempts.FOLDER / f"{number:04d}.json"
    os.utime(path, (time.time() - seconds,) * 2)


def elsewhere(folder: Path) -> None:
    """Make the newest attempt one of another machine, whose processes nobody here can ask for."""
    last = newest(folder)
    assert last is not None
    written(folder, last.number, machine="node7 another boot")


def test_a_run_has_one_owner(tmp_path: Path) -> None:
    lease = claim(tmp_path, job="12_3")
    with pytest.raises(Held, match=rf"process {os.getpid()} on .* \(job 12_3\)"):
        claim(tmp_path)
    lease.end("stopped", "by SIGTERM")
    assert claim(tmp_path).attempt.number == 2
    first, second = every(tmp_path)
    assert (first.ended, first.reason) == ("stopped", "by SIGTERM") and second.ended == ""


def test_of_many_that_claim_at_once_one_gets_it(tmp_path: Path) -> None:
    for trial in range(5):
        folder = tmp_path / str(trial)
        with get_context("fork").Pool(6) as pool:
            got = pool.map(_claimed, [folder] * 6, chunksize=1)
        assert got.count(True) == 1 and len(every(folder)) == 1


def test_who_looked_a_moment_too_early_does_not_get_it_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(tmp_path)
    views = [None, newest(tmp_path)]  # of one that looks before the first has claimed, and claims after it
    monkeypatch.setattr(attempts, "newest", lambda folder: views.pop(0))
    with pytest.raises(Held):
        claim(tmp_path)


def _claimed(folder: Path) -> bool:
    try:
        claim(folder)
    except Held:
        return False
    time.sleep(0.3)  # it lives while the others try
    return True


def test_a_process_of_this_machine_that_is_gone_is_seen_at_once(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        claim(tmp_path)
        os.kill(os.getpid(), signal.SIGKILL)
    while newest(tmp_path) is None or not os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT):
        time.sleep(0.01)
    assert claim(tmp_path).attempt.number == 2  # though the child is a zombie still
    os.waitpid(child, 0)


def test_another_process_with_the_same_number_is_not_the_owner(
    tmp_path: Path, other: "subprocess.Popen[bytes]"
) -> None:
    claim(tmp_path)
    written(tmp_path, 1, pid=other.pid, started=attempts.started(other.pid))
    with pytest.raises(Held):
        claim(tmp_path)
    written(tmp_path, 1, pid=other.pid, started=1)
    assert claim(tmp_path).attempt.number == 2


def test_of_another_machine_the_heartbeat_decides(tmp_path: Path) -> None:
    claim(tmp_path)
    elsewhere(tmp_path)
    age(tmp_path, 1, attempts.STALE_SECONDS - 10)
    with pytest.raises(Held):
        claim(tmp_path)
    age(tmp_path, 1, attempts.STALE_SECONDS + 10)
    assert claim(tmp_path).attempt.number == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"number": 1}', '{"number": "1"}', "\x00"])
def test_an_attempt_whose_file_is_not_whole_counts_while_it_is_fresh(tmp_path: Path, text: str) -> None:
    claim(tmp_path)
    (tmp_path / attempts.FOLDER / "0001.json").write_text(text)
    with pytest.raises(Held, match="an unknown host"):
        claim(tmp_path)
    age(tmp_path, 1, attempts.STALE_SECONDS + 10)
    assert claim(tmp_path).attempt.number == 2


def test_who_was_taken_for_dead_writes_nothing_more(tmp_path: Path) -> None:
    first = claim(tmp_path)
    elsewhere(tmp_path)
    age(tmp_path, 1, attempts.STALE_SECONDS + 10)
    second = claim(tmp_path)
    before = (tmp_path / attempts.FOLDER / "0001.json").read_bytes()
    with pytest.raises(LeaseLost, match="another process goes on"):
        first.check()
    with pytest.raises(LeaseLost):
        first.end("done")
    assert (tmp_path / attempts.FOLDER / "0001.json").read_bytes() == before
    second.check()


def test_the_owner_is_seen_to_live_and_told_when_it_is_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "BEAT_SECONDS", 0.05)
    told = threading.Event()
    old = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        with claim(tmp_path).beating() as lease:
            elsewhere(tmp_path)
            age(tmp_path, 1, 1000)
            time.sleep(0.3)
            assert attempts.last_seen(tmp_path, lease.attempt) < 10 and alive(tmp_path, lease.attempt)
            (tmp_path / attempts.FOLDER / "0002.json").write_text("{}")
            assert told.wait(5)
    finally:
        signal.signal(signal.SIGTERM, old)


def test_a_heartbeat_uses_the_clock_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lease = claim(tmp_path)
    monkeypatch.setattr(attempts.time, "time", lambda: 0.0)  # this host's clock is wrong by decades
    assert abs(attempts.last_seen(tmp_path, lease.attempt)) < 10


def test_attempts_in_vain_are_those_in_a_row_that_saved_nothing(tmp_path: Path) -> None:
    for job, step in (("7_0", 30), ("7_0", 0), ("8_0", 30), ("7_0", 20), ("7_0", 30), ("7_0", 30)):
        claim(tmp_path, job=job, begins_from=Saved(step)).end("stopped", f"{job} {step}")
    assert [each.number for each in attempts.in_vain(tmp_path, "7_0", Saved(30))] == [6, 5]
    assert not attempts.in_vain(tmp_path, "7_0", Saved(31))  # the last has saved a step
    assert not attempts.in_vain(tmp_path, "9_0", Saved(30))  # submitted anew, it is given as many again
    assert not attempts.in_vain(tmp_path, "7_0", Saved(30, answers=1))  # the last has written an answer


def test_saved_are_the_newest_step_and_whole_answers(tmp_path: Path) -> None:
    assert saved(tmp_path) == Saved(0, 0)
    (tmp_path / "checkpoint" / "step-000000007").mkdir(parents=True)
    for kept, lines in (("answers", "{}\n{}\n{"), ("shuffled", "{}\n")):
        (tmp_path / kept).mkdir()
        (tmp_path / kept / "pope.jsonl").write_text(lines)
    assert saved(tmp_path) == Saved(7, 3)


def test_an_attempt_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    claim(tmp_path, job="7_0").end("stopped", "by SIGTERM")
    path = tmp_path / attempts.FOLDER / "0001.json"
    path.write_text(
        json.dumps({key: value for key, value in json.loads(path.read_text()).items() if not key.startswith("from_")})
    )
    assert every(tmp_path)[0].reason == "by SIGTERM" and every(tmp_path)[0].from_step == 0


def test_what_lies_beside_attempts_is_no_attempt(tmp_path: Path) -> None:
    claim(tmp_path).end("stopped")
    for name in ("0009.json.tmp", "x.json", ".now-abc", "notes.txt"):
        (tmp_path / attempts.FOLDER / name).write_text("{}")
    assert claim(tmp_path).attempt.number == 2


@pytest.mark.parametrize("steps", [True, False])
def test_a_run_that_another_has_taken_over_ends_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: bool
) -> None:
    """In its steps or elsewhere; the process goes on with the next run, unless somebody asks it to stop."""
    monkeypatch.setattr(attempts, "BEAT_SECONDS", 0.05)
    place = Place(runs=tmp_path, data=get_scale("tiny").config.data)

    def taken(folder: Path, *given: Any) -> Status:
        (folder / attempts.FOLDER / "0002.json").write_text("{}")
        if not steps:
            time.sleep(30)
        with between_steps() as stop:
            while stop.by is None:
                time.sleep(0.01)
            given[-2].check()  # as before a checkpoint
        raise AssertionError("it went on")

    def trains(*_: Any) -> Status:
        with between_steps():
            return Status.DONE

    with stoppable() as stop:
        monkeypatch.setattr(lifecycle, "_owned", taken)
        with pytest.raises(LeaseLost, match="one: .* goes on"):
            lifecycle.execute("one", place, "tiny")
        monkeypatch.setattr(lifecycle, "_owned", trains)
        assert lifecycle.execute("two", place, "tiny") is Status.DONE
        assert not attempts.every(tmp_path / "one")[1].ended
        with pytest.raises(Stopped):
            signal.raise_signal(signal.SIGUSR2)
        stop.forget(signal.SIGTERM)
        with pytest.raises(Stopped, match="SIGUSR2"):
            lifecycle.execute("three", place, "tiny")
