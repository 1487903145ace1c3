"""Means, standard deviations and counts, against numbers worked out by hand."""

import math
from dataclasses import replace

import pytest
from results_helpers import ACC, TABLE, publication

from results.frame import cell, grid, long_frame, mean_sd, summary


def test_mean_and_sd_by_hand() -> None:
    assert mean_sd((1.0, 2.0, 4.0)) == pytest.approx(
        (7 / 3, math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))
    )
    assert mean_sd((5.0,)) == (5.0, None)


def test_the_long_frame_has_a_row_for_every_value_and_for_every_missing_run() -> None:
    frame = long_frame(publication({"CLIP": [70.0, None], "LCL": ["out of memory", 72.0]}))
    scores = frame[frame.stage == "classify"].set_index(["row", "seed"])
    assert scores.value.dropna().to_dict() == {("CLIP", 0): 70.0, ("LCL", 1): 72.0}
    assert scores.status.to_dict() == {
        ("CLIP", 0): "done", ("CLIP", 1): "missing", ("LCL", 0): "failed", ("LCL", 1): "done",
    }  # fmt: skip
    assert scores.loc[("LCL", 0), "reason"] == "out of memory"
    assert set(frame[frame.stage == "pretrain"].metric) == {"rankme"}


def test_the_summary_counts_measured_seeds_only() -> None:
    frame = summary(long_frame(publication({"CLIP": [70.0, 73.0, None], "LCL": [72.0]})))
    found = frame[frame.metric == "acc1"].set_index("row")
    assert found.loc["CLIP", ["mean", "n"]].tolist() == [71.5, 2]
    assert found.loc["CLIP", "sd"] == pytest.approx(3 / math.sqrt(2))
    assert math.isnan(found.loc["LCL", "sd"]) and found.loc["LCL", "n"] == 1


def test_the_summary_agrees_with_the_cells() -> None:
    made = publication({"CLIP": [70.0, 73.0, 71.0], "LCL": [72.0, 75.5]})
    found = summary(long_frame(made)).query("metric == 'acc1'").set_index("row")
    for (row, _), each in grid(TABLE, made).items():
        if each.values:
            assert (found.loc[row, "mean"], found.loc[row, "sd"]) == pytest.approx(mean_sd(each.values))


def test_a_cell_says_why_it_has_no_value() -> None:
    made = publication({"CLIP": [70.0, "out of memory", None]})
    clip, emu = TABLE.rows[:2]
    found = cell(made, clip, ACC)
    assert found.values == (70.0,) and found.missing == ("failed: out of memory", "not run yet")
    assert len(found.run_ids) == 1 and made.records[found.run_ids[0]].metrics == {"imagenet/acc1": 70.0}
    assert cell(made, emu, ACC).missing == ("not part of this sweep",)
    assert cell(made, replace(emu, unavailable="no reader"), ACC).missing == ("no reader",)


def test_a_run_that_cannot_start_and_a_metric_that_could_not_be_computed_say_so() -> None:
    made = publication({"CLIP": [70.0, None]})
    transfer = made.slots[1].run_id
    no_java = replace(made.records[transfer], metrics={}, unavailable={"imagenet/acc1": "Java is missing"})
    slots = tuple(replace(slot, problem="data.imagenet is not set") for slot in made.slots)
    found = cell(replace(made, slots=slots, records={transfer: no_java}), TABLE.rows[0], ACC)
    assert found.missing == ("Java is missing", "data.imagenet is not set")


def test_values_stand_in_order_of_seed_whatever_the_order_of_the_slots() -> None:
    made = publication({"CLIP": [1.0, 2.0, 3.0]})
    assert cell(replace(made, slots=made.slots[::-1]), TABLE.rows[0], ACC).values == (1.0, 2.0, 3.0)


def test_records_of_another_row_never_enter_a_cell() -> None:
    made = publication({"CLIP": [1.0], "LCL": [2.0]})
    assert [each.values for each in grid(TABLE, made).values()] == [(1.0,), (), (2.0,), ()]
