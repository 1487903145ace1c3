"""Declared alarms: at their thresholds, in a record, on a page and in the line of a run in progress."""

from pathlib import Path

import pytest
from results_helpers import make_record, pretrain_spec

from experiments.launching.board import describe
from experiments.running.progress import Progress, read
from results.alarms import crossed, of_record

HEALTHY = {
    "probe_feature_std_ratio": 0.5,
    "probe_rankme": 30.0,
    "probe_text_nll": 0.6,
    "probe_visual_use_shuffled": 0.1,
}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, []),
        ({"probe_feature_std_ratio": 0.09}, ["collapsed (std ratio 0.090, rank 30.0 of 128)"]),
        ({"probe_rankme": 6.3}, ["collapsed (std ratio 0.500, rank 6.3 of 128)"]),
        ({"probe_rankme": 6.5}, []),
        ({"probe_visual_use_shuffled": 0.0061}, []),
        ({"probe_visual_use_shuffled": 0.0059}, ["images hardly used (0.0059 nats of a text loss of 0.600)"]),
    ],
)
def test_an_alarm_goes_off_at_its_threshold(changed: dict[str, float], said: list[str]) -> None:
    assert crossed({**HEALTHY, **changed}, 128) == said


def test_what_was_not_probed_sets_off_nothing() -> None:
    assert crossed({}, 128) == [] and crossed({"probe_text_nll": 1.0}, 128) == []


def test_a_record_knows_the_width_of_its_encoder() -> None:
    spec = pretrain_spec("emu", 0, model={"vision": {"width": 200}})
    assert of_record(make_record(spec, {**HEALTHY, "probe_rankme": 9.9}))
    assert not of_record(make_record(spec, {**HEALTHY, "probe_rankme": 10.1}))
    assert not of_record(make_record(pretrain_spec("emu", 0), {**HEALTHY, "probe_rankme": 0.1}))  # of no known width


def test_the_status_line_says_it_until_it_is_over(tmp_path: Path) -> None:
    progress = Progress(tmp_path, "pretrain")
    progress.set_alarm("collapsed (rank 1 of 128)")
    progress.update(1, 1, {"loss": 1.0})
    assert describe(read(tmp_path)).endswith("; ALARM: collapsed (rank 1 of 128)")
    progress.set_alarm("")
    progress.update(1, 1, {"loss": 1.0})
    assert "ALARM" not in describe(read(tmp_path))
