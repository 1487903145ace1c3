"""Runs that ended without a word: whoever looks writes down what became of them, and of nobody else's."""

import json
from pathlib import Path

import pytest
from sweep_helpers import CLIP, plan_pretraining, small_place

from experiments.configuration.place import Place
from experiments.launching.queue import Job
from experiments.launching.reconcile import settle
from experiments.launching.states import Submission, submit
from experiments.running import attempts
from experiments.running.attempts import claim
from results import record
from results.schema import Status


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return small_place(tmp_path / "corpora", tmp_path / "runs")


def killed(folder: Path) -> None:
    """An attempt at a run, whose process is gone."""
    lease = claim(folder, job="7_0")
    path = folder / attempts.FOLDER / f"{lease.attempt.number:04d}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "started": 1}))


def test_a_run_that_was_killed_is_recorded_once_with_where_it_was(place: Place) -> None:
    run_id = plan_pretraining(place, CLIP)
    killed(place.runs / run_id)
    settle([run_id], place, "tiny", {})
    found = record.read(place.runs / run_id / record.RECORD_FILE)
    assert found.status is Status.FAILED and "(job 7_0) ended without a record" in found.reason
    settle([run_id], place, "tiny", {})
    assert len(attempts.every(place.runs / run_id)) == 2


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING"])
def test_what_the_queue_holds_is_left_alone(place: Place, state: str) -> None:
    run_id = plan_pretraining(place, CLIP)
    submit(place.runs / run_id, Submission("7_0", "table1-x", 0.0))
    killed(place.runs / run_id)
    settle([run_id], place, "tiny", {"7_0": Job("7_0", "x", state, "")})
    assert not (place.runs / run_id / record.RECORD_FILE).exists()


def test_who_lives_waits_or_is_done_is_left_alone(place: Place) -> None:
    run_id = plan_pretraining(place, CLIP)
    settle([run_id], place, "tiny", {})
    assert not attempts.every(place.runs / run_id)
    claim(place.runs / run_id)
    settle([run_id], place, "tiny", {})
    assert not (place.runs / run_id / record.RECORD_FILE).exists() and len(attempts.every(place.runs / run_id)) == 1
