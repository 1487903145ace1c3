"""What a printed table must and must not say."""

import csv
import io
import random
import re
from dataclasses import replace

import pytest
from results_helpers import ACC, TABLE, make_record, pretrain_spec, publication

from results.paper import load
from results.report import REDUCED, render, render_csv
from results.schema import Publication, Row, Table

FULL = {
    "CLIP": [80.0, 82.0, 81.0],
    "Emu": [5.0, 5.5, 4.5],
    "LCL": [70.0, 71.0, 72.0],
    "Random encoder": [90.0, 91.0, 92.0],
}


def section(text: str, title: str) -> str:
    """The part of a report below one heading."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found, f"no section {title!r}"
    return found[1]


def row(text: str, label: str) -> list[str]:
    """Cells of the first line of a table that starts with the label."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {label} "))
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_a_tiny_table_says_so_in_its_first_line() -> None:
    first = render(TABLE, publication(FULL)).splitlines()[0]
    assert first == "# Table 1: TINY SCALE, not comparable with the paper"


def test_a_changed_recipe_is_announced_even_at_a_scale_of_the_paper() -> None:
    made = publication(FULL, warning="", scale="base16")
    same = {"CLIP": {"pretrain": made.records[made.slots[0].run_id].spec}}
    assert render(TABLE, replace(made, references=same)).splitlines()[0] == "# Table 1"
    other = {"CLIP": {"pretrain": pretrain_spec("clip", 0, images=2_000_000)}}
    assert render(TABLE, replace(made, references=other)).splitlines()[0] == f"# Table 1: {REDUCED}"


def test_measured_cells_are_mean_and_sd_with_the_number_of_seeds() -> None:
    measured = section(render(TABLE, publication(FULL)), "Measured here")
    assert row(measured, "CLIP") == ["CLIP", "Con.", "mmc4-pair", "3", "**81.0 ± 1.0**"]
    assert row(measured, "LCL")[-1] == "71.0 ± 1.0"


def test_the_best_is_bold_among_methods_and_never_a_control() -> None:
    text = render(TABLE, publication(FULL))
    assert row(text, "Random encoder")[-1] == "91.0 ± 1.0"
    assert text.count("**81.0") == 1


def test_means_that_print_alike_are_best_together_and_a_single_one_is_not_best() -> None:
    measured = render(TABLE, publication({"CLIP": [80.01], "LCL": [80.04]}))
    assert row(measured, "CLIP")[-1] == row(measured, "LCL")[-1] == "**80.0**"
    assert row(render(TABLE, publication({"CLIP": [80.0]})), "CLIP")[-1] == "80.0"


def test_lower_is_better_where_the_column_says_so() -> None:
    table = replace(TABLE, columns=(replace(ACC, higher_is_better=False),))
    text = render(table, publication(FULL))
    assert row(text, "Emu")[-1].startswith("**") and "pattern acc@1 (IN-1k analogue) ↓" in text


def test_no_number_of_the_paper_stands_outside_its_own_table() -> None:
    text = render(TABLE, publication(FULL))
    papers = {line["in1k_acc1"] for line in load("table1.csv") if line["method"] in ("CLIP", "Emu", "LCL")}
    paper_part = section(text, "The paper's numbers")
    rest = text.replace(paper_part, "").replace(section(text, "Orderings of the paper"), "")
    for number in papers:
        assert number in paper_part and number not in rest
    assert "Nothing of it was measured here" in paper_part
    for measured in ("81.0", "71.0"):
        assert measured not in paper_part


def test_a_missing_cell_is_a_dash_with_its_reason() -> None:
    measured = section(
        render(TABLE, publication({"CLIP": [80.0, None], "Emu": ["boom"], "LCL": [None]})), "Measured here"
    )
    assert row(measured, "CLIP")[-1] == "80.0 (1 of 2, a)"
    assert row(measured, "Emu")[3:] == ["–", "– (b)"] and row(measured, "LCL")[-1] == "– (a)"
    assert "(a) not run yet" in measured and "(b) failed: boom" in measured
    assert row(measured, "Random encoder")[-1] == "– (c)" and "(c) not part of this sweep" in measured


def test_the_chance_level_comes_from_the_records() -> None:
    assert row(render(TABLE, publication(FULL)), r"*chance*")[-1] == "4.2"
    assert row(render(TABLE, publication({"CLIP": [None]})), r"*chance*")[-1] == "–"


def test_controls_stand_below_the_methods_under_a_line_of_their_own() -> None:
    lines = section(render(TABLE, publication(FULL)), "Measured here").splitlines()
    order = [
        next(i for i, line in enumerate(lines) if line.startswith(f"| {name}"))
        for name in ("LCL", "*controls", "Random")
    ]
    assert order == sorted(order) and order[2] == order[1] + 1


def test_rows_of_other_scales_are_not_printed() -> None:
    only_big = replace(TABLE.rows[2], label="LCL big", only_at=("base16",))
    table = replace(TABLE, rows=(*TABLE.rows, only_big))
    assert "LCL big" not in render(table, publication(FULL))
    assert "LCL big" in render(table, publication(FULL, scale="base16"))


def test_cost_is_counted_and_relative_to_the_reference_row() -> None:
    cost = section(render(TABLE, publication(FULL)), "Cost and data coverage")
    assert row(cost, "LCL") == ["LCL", "1,000", "1", "5.00e+12", "2.50", "400", "1,000", "3", "decode_error 3"]
    assert row(cost, "Random encoder")[1:5] == ["0", "0", "0", "0.00"]
    assert row(cost, "CLIP")[4] == "1.00"


def test_collapse_is_shown_and_what_is_not_measured_is_a_dash() -> None:
    made = publication(FULL)
    changes = {"CLIP": {"probe_rankme": 12.0}, "LCL": {"probe_rankme": 14.0, "probe_text_nll": 0.888}}
    encoders = {slot.run_id: changes.get(slot.row, {}) for slot in made.slots if slot.stage == "pretrain"}
    records = {key: replace(each, metrics=encoders.get(key, each.metrics)) for key, each in made.records.items()}
    text = section(render(TABLE, replace(made, records=records)), "At the end of pre-training")
    assert row(text, "method") == ["method", "effective rank", "text loss"]
    assert row(text, "CLIP") == ["CLIP", "12", "–"] and row(text, "LCL") == ["LCL", "14", "0.888"]
    assert "| Emu" not in text
    assert "At the end of pre-training" not in render(TABLE, made)  # nothing of it was watched


def test_the_recipe_section_is_the_difference_of_the_specs() -> None:
    made = publication(FULL)
    references = {
        "CLIP": {"pretrain": pretrain_spec("clip", 0, images=2_048_000_000)},
        "Emu": {"pretrain": pretrain_spec("emu", 0, images=2_048_000_000, extra="x")},
        "LCL": {"pretrain": pretrain_spec("lcl", 7, images=2_048_000_000, inputs={"corpus": "elsewhere"})},
    }
    recipe = section(render(TABLE, replace(made, references=references)), "What the tiny recipe changes")
    lines = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in recipe.splitlines() if line.startswith("| pre")
    ]
    assert lines == [["pretrain", "extra", "x", "–", "Emu"], ["pretrain", "images", "2,048,000,000", "1,000", "all"]]


def test_a_setting_that_no_run_changes_is_not_listed() -> None:
    made = publication(FULL)
    references = {"CLIP": {"pretrain": made.records[made.slots[0].run_id].spec}}
    assert "Nothing: every setting" in section(
        render(TABLE, replace(made, references=references)), "What the tiny recipe changes"
    )


def test_row_differences_list_what_varies_and_nothing_else() -> None:
    text = section(render(TABLE, publication(FULL)), "Differences between the rows")
    assert row(text, "data.name") == ["data.name", "mmc4-pair", "CLIP"]
    assert "optim.lr" not in text and "objective." not in text


def test_two_rows_of_one_objective_show_what_differs_in_it() -> None:
    twin = replace(TABLE.rows[2], label="LCL heavy")
    made = publication({"LCL": [70.0]})
    heavy = make_record({**pretrain_spec("lcl", 0), "objective": {"name": "lcl", "config": {"weight": 5.0}}}, {})
    slot = replace(made.slots[0], row="LCL heavy", run_id=heavy.run_id)
    made = replace(made, slots=(*made.slots, slot), records={**made.records, heavy.run_id: heavy})
    text = section(render(replace(TABLE, rows=(*TABLE.rows, twin)), made), "Differences between the rows")
    assert row(text, "objective.config.weight")[1:] == ["1", "LCL"] and "| 5 " in text.replace("  ", " ")


def test_orderings_are_counted_and_the_reversed_ones_named() -> None:
    text = section(render(TABLE, publication(FULL)), "Orderings of the paper")
    # paper: LCL 75.2 > CLIP 74.8 > Emu 5.7; here CLIP > LCL > Emu
    assert row(text, "pattern acc@1")[1:] == ["3", "2", "0", "1"]
    assert "LCL over CLIP (+0.4, -10.0)" in text and "one seed" not in text
    assert "one seed has no s.d." in section(
        render(TABLE, publication({"CLIP": [1.0], "LCL": [2.0]})), "Orderings of the paper"
    )


def test_controls_take_no_part_in_the_orderings() -> None:
    assert "Random" not in section(render(TABLE, publication(FULL)), "Orderings of the paper")


def test_the_half_width_of_the_test_set_is_the_textbooks() -> None:
    """2425 of 5000: 48.5 +- 1.39; columns that are no share of items have none."""
    made = publication({"CLIP": [48.5], "LCL": [90.0]})
    records = {key: replace(each, items={"imagenet": 5000} if each.items else {}) for key, each in made.records.items()}
    made = replace(made, records=records)
    assert row(section(render(TABLE, made), "Columns"), "pattern acc@1")[-2:] == ["5,000", "± 1.4"]
    table = replace(TABLE, columns=(replace(ACC, share_of_items=False),))
    assert row(section(render(table, made), "Columns"), "pattern acc@1")[-2:] == ["5,000", "–"]


def test_provenance_names_every_distinct_source() -> None:
    made = publication(FULL)
    first = made.slots[0].run_id
    changed = replace(made.records[first], commit="f" * 40, dirty=True)
    text = section(render(TABLE, replace(made, records={**made.records, first: changed})), "Provenance")
    assert "- commit: 0123456789ab, ffffffffffff (with uncommitted changes)" in text
    assert (
        "- seeds: 0, 1, 2" in text and "- torch: 2.15.0" in text and "protocol versions: classify 2, pretrain 1" in text
    )
    assert "24 finished runs of 24" in text


def test_two_protocol_versions_in_one_table_are_both_printed() -> None:
    made = publication({"CLIP": [80.0], "LCL": [70.0]})
    text = render(TABLE, made)
    assert "classify 2" in text and "classify 3" not in text
    assert "classify 2, classify 3" in render(TABLE, _with_protocol(made, "LCL", 3))


def _with_protocol(made: Publication, label: str, protocol: int) -> Publication:
    slot = next(each for each in made.slots if each.row == label and each.stage == "classify")
    old = made.records[slot.run_id]
    new = make_record({**old.spec, "protocol": protocol}, dict(old.metrics))
    slots = tuple(replace(each, run_id=new.run_id) if each == slot else each for each in made.slots)
    return replace(made, slots=slots, records={**made.records, new.run_id: new})


def test_the_same_records_give_the_same_bytes_whatever_their_order_time_and_speed() -> None:
    made = publication(FULL)
    shuffled = list(made.records.items())
    random.Random(0).shuffle(shuffled)
    later = {key: replace(each, seconds=each.seconds * 3, finished_at="2031-01-01T00:00:00Z") for key, each in shuffled}
    again = replace(made, records=later)
    assert render(TABLE, again) == render(TABLE, made) and render_csv(TABLE, again) == render_csv(TABLE, made)


@pytest.mark.parametrize("evil", ["a | b", "<img src=x onerror=y>", "`code`\n# heading", "[x](javascript:y)"])
def test_text_from_records_cannot_change_the_page(evil: str) -> None:
    text = render(TABLE, publication({"CLIP": [evil, 80.0], "LCL": [70.0, 71.0]}))
    plain = render(TABLE, publication({"CLIP": ["harmless", 80.0], "LCL": [70.0, 71.0]}))
    assert len(text.splitlines()) == len(plain.splitlines())
    assert evil not in text and "<img" not in text and text.count("\n#") == plain.count("\n#")


def test_a_label_with_markup_keeps_the_table_whole() -> None:
    evil = Row(label="A|<b>", objective="clip", data="mmc4-pair", paper={"method": "CLIP"})
    table = Table(**{**TABLE.__dict__, "rows": (evil,), "cost_reference": "A|<b>"})
    made = publication({"CLIP": [80.0]})
    made = replace(made, slots=tuple(replace(slot, row="A|<b>") for slot in made.slots))
    for line in render(table, made).splitlines():
        if line.startswith("| A"):
            assert line.startswith(r"| A\|&lt;b&gt; ")


def test_every_table_of_the_page_is_rectangular() -> None:
    text = render(TABLE, publication({**FULL, "Emu": ["a | b", None, 3.0]}))
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        widths = {(len(line), len(re.findall(r"(?<!\\)\|", line))) for line in block.splitlines()}
        assert len(widths) == 1, block


def test_the_csv_keeps_measured_and_printed_apart() -> None:
    lines = list(csv.DictReader(io.StringIO(render_csv(TABLE, publication({"CLIP": [80.0, 82.0], "LCL": [None]})))))
    clip, emu, lcl, control = lines
    assert (clip["mean"], clip["sd"], clip["n"], clip["paper"]) == ("81", "1.41421", "2", "74.8")
    assert (lcl["mean"], lcl["n"], lcl["missing"], lcl["paper"]) == ("", "0", "not run yet", "75.2")
    assert (control["control"], control["paper"]) == ("1", "") and emu["missing"] == "not part of this sweep"


def test_a_measured_scale_of_the_paper_shows_the_difference() -> None:
    made = publication({"CLIP": [75.0, 76.0]}, warning="", scale="base16")
    assert row(section(render(TABLE, made), "Measured minus the paper"), "CLIP")[-1] == "+0.7"
    assert "Measured minus the paper" not in render(TABLE, publication(FULL))


def test_a_table_without_any_record_still_renders() -> None:
    text = render(TABLE, Publication(table="table1", scale="tiny", warning="W", slots=(), records={}))
    assert "No run of this table is finished." in text and row(text, "CLIP")[-1] == "– (a)"
