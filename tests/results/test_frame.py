"""Means, standard deviations and counts, against numbers worked out by hand."""

import math
from dataclasses import replace

import pytest
from results_helpers import ACC, TABLE, publication

from results.frame import Filled, long_frame, mean_sd
from results.schema import Cell, Publication, Row


def cell(made: Publication, row: Row) -> Cell:
    return Filled(replace(TABLE, rows=(row,)), made).cells[row.label, ACC.key]


def test_mean_and_sd_by_hand() -> None:
    assert mean_sd((1.0, 2.0, 4.0)) == pytest.approx(
        (7 / 3, math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))
    )
    assert mean_sd((5.0,)) == (5.0, None)


def test_the_long_frame_has_a_line_for_every_seed_of_every_cell() -> None:
    made = publication({"CLIP": [70.0, None], "LCL": ["out of memory", 72.0]})
    frame = long_frame(Filled(TABLE, made)).set_index(["row", "seed"])
    assert frame.value.dropna().to_dict() == {("CLIP", 0): 70.0, ("LCL", 1): 72.0} and len(frame) == 4
    assert frame.missing.to_dict() == {
        ("CLIP", 0): "", ("CLIP", 1): "not run yet", ("LCL", 0): "failed: out of memory", ("LCL", 1): "",
    }  # fmt: skip
    known = frame.loc[("CLIP", 0)]
    assert (known.column, known.task, known.direction, known["items"]) == ("in1k_acc1", "classify", "higher", 1500)
    assert known.chance == pytest.approx(100 / 24) and made.records[known.run_id].commit == known.commit


def test_a_column_in_which_less_is_better_says_so() -> None:
    table = replace(TABLE, columns=(replace(ACC, higher_is_better=False),))
    assert set(long_frame(Filled(table, publication({"CLIP": [70.0]}))).direction) == {"lower"}


def test_the_long_frame_agrees_with_the_cells() -> None:
    filled = Filled(TABLE, publication({"CLIP": [70.0, 73.0, 71.0], "LCL": [72.0, 75.5]}))
    means = long_frame(filled).groupby("row").value.agg(["mean", "std", "count"])
    for row in filled.rows:
        if values := filled.values(row, ACC):
            assert means.loc[row.label].tolist() == pytest.approx([*mean_sd(values), len(values)])


def test_a_cell_says_why_it_has_no_value() -> None:
    made = publication({"CLIP": [70.0, "out of memory", None]})
    clip, emu = TABLE.rows[:2]
    found = cell(made, clip)
    assert found.values == (70.0,) and found.missing == ("failed: out of memory", "not run yet")
    assert len(found.run_ids) == 1 and made.records[found.run_ids[0]].metrics == {"imagenet/acc1": 70.0}
    assert cell(made, emu).missing == ("not part of this sweep",)
    assert cell(made, replace(emu, unavailable="no reader")).missing == ("no reader",)


def test_a_run_that_cannot_start_and_a_metric_that_could_not_be_computed_say_so() -> None:
    made = publication({"CLIP": [70.0, None]})
    transfer = made.slots[1].run_id
    no_java = replace(made.records[transfer], metrics={}, unavailable={"imagenet/acc1": "Java is missing"})
    slots = tuple(replace(slot, problem="data.imagenet is not set") for slot in made.slots)
    found = cell(replace(made, slots=slots, records={transfer: no_java}), TABLE.rows[0])
    assert found.missing == ("Java is missing", "data.imagenet is not set")


def test_values_stand_in_order_of_seed_whatever_the_order_of_the_slots() -> None:
    made = publication({"CLIP": [1.0, 2.0, 3.0]})
    assert cell(replace(made, slots=made.slots[::-1]), TABLE.rows[0]).values == (1.0, 2.0, 3.0)


def test_records_of_another_row_never_enter_a_cell() -> None:
    made = publication({"CLIP": [1.0], "LCL": [2.0]})
    assert [each.values for each in Filled(TABLE, made).cells.values()] == [(1.0,), (), (2.0,), ()]
