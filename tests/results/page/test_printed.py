"""What a printed table must and must not say."""

import csv
import io
import random
import re
from dataclasses import replace

import pytest
from results_helpers import ACC, TABLE, make_record, pretrain_spec, publication

from results.page.printed import render, render_csv
from results.page.settings import REDUCED
from results.paper import load
from results.schema import Publication, Row, Table

COST, ORDERINGS = "Pre-training: cost, data, collapse", "Orderings of the paper"
SOURCES = "Where the numbers come from"
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


def changed(made: Publication) -> list[str]:
    """Lines on what the scale changes, without those on rows that differ from each other."""
    text = section(render(TABLE, made), "What the tiny recipe changes")
    return [line for line in text.splitlines() if line.startswith("- ") and "rows differ in" not in line]


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
    text = section(render(TABLE, publication(FULL)), "Measured here")
    assert row(text, "Random encoder")[-1] == "91.0 ± 1.0"
    assert re.findall(r"[*]{2}[^*]+[*]{2}", text) == ["**81.0 ± 1.0**"]


def test_a_lead_within_the_noise_is_not_bold() -> None:
    # s.d. 1 and 2 over three seeds: the difference must exceed 4.303 * sqrt(5 / 3) = 5.555
    for lead, bold in ((5.5, False), (5.6, True)):
        scores = {"CLIP": [80.0 + lead, 81.0 + lead, 79.0 + lead], "LCL": [80.0, 82.0, 78.0], "Emu": [5.0, 5.0, 5.0]}
        assert row(render(TABLE, publication(scores)), "CLIP")[-1].startswith("**") is bold


def test_one_seed_or_one_method_leads_nothing() -> None:
    one_seed = section(render(TABLE, publication({"CLIP": [80.0], "LCL": [10.0]})), "Measured here")
    assert "**" not in one_seed and row(one_seed, "CLIP")[-1] == "80.0"
    assert "**" not in section(render(TABLE, publication({"CLIP": [80.0, 80.1, 80.2]})), "Measured here")


def test_lower_is_better_where_the_column_says_so() -> None:
    table = replace(TABLE, columns=(replace(ACC, higher_is_better=False),))
    text = render(table, publication(FULL))
    assert row(text, "Emu")[-1].startswith("**") and "pattern acc@1 (IN-1k analogue) ↓" in text


def test_no_number_of_the_paper_stands_outside_its_own_table() -> None:
    text = render(TABLE, publication(FULL))
    papers = {line["in1k_acc1"] for line in load("table1.csv") if line["method"] in ("CLIP", "Emu", "LCL")}
    paper_part = section(text, "The paper's numbers")
    rest = text.replace(paper_part, "")
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
    cost = section(render(TABLE, publication(FULL)), COST)
    header = row(cost, "method")
    assert header[1:6] == ["images seen", "documents read", "skipped, and causes met", "LM passes", "training FLOPs"]
    assert row(cost, "LCL")[1:7] == ["1,000", "400", "3 (decode_error 3)", "1", "5.00e+12", "2.50"]
    assert row(cost, "Random encoder")[1:7] == ["0", "–", "–", "0", "0", "0.00"]
    assert row(cost, "CLIP")[header.index("× CLIP")] == "1.00"


def test_documents_and_pairs_stand_in_columns_of_their_own() -> None:
    made = publication(FULL)
    slot = next(each for each in made.slots if (each.row, each.stage) == ("CLIP", "pretrain"))
    pairs = make_record({**pretrain_spec("clip", 0), "data": {"name": "mmc4-pair", "text_len": 80}}, {})
    pairs = replace(pairs, coverage={"documents": 1000, "images": 1000, "skipped": 0, "not_chosen": 70})
    slots = (replace(slot, run_id=pairs.run_id), *(each for each in made.slots if each.row != "CLIP"))
    cost = section(render(TABLE, replace(made, slots=slots, records={**made.records, pairs.run_id: pairs})), COST)
    documents, pairs_read = row(cost, "method").index("documents read"), row(cost, "method").index("pairs read")
    assert (row(cost, "CLIP")[documents], row(cost, "CLIP")[pairs_read]) == ("–", "1,000")
    assert (row(cost, "LCL")[documents], row(cost, "LCL")[pairs_read]) == ("400", "–")
    skipped = row(cost, "method").index("skipped, and causes met")
    assert row(cost, "CLIP")[skipped] == "0; not chosen 70" and "not chosen" not in row(cost, "LCL")[skipped]


def test_what_a_mixture_skips_is_said_of_each_part() -> None:
    made = publication(FULL)
    slot = next(each for each in made.slots if (each.row, each.stage) == ("CLIP", "pretrain"))
    mixed = make_record({**pretrain_spec("lcl", 0), "data": {"name": "laion+mmc4", "text_len": 80, "seq_len": 256}}, {})
    coverage = {"documents": 9, "images": 9, "skipped": 3, "decode_error": 3, "laion:documents": 5, "laion:images": 5}
    coverage |= {"mmc4:documents": 4, "mmc4:images": 4, "mmc4:skipped": 3, "mmc4:decode_error": 3}
    mixed = replace(mixed, coverage=coverage)
    slots = (replace(slot, run_id=mixed.run_id), *(each for each in made.slots if each.row != "CLIP"))
    cost = section(render(TABLE, replace(made, slots=slots, records={**made.records, mixed.run_id: mixed})), COST)
    found = dict(zip(row(cost, "method"), row(cost, "CLIP"), strict=True))
    assert found["skipped, and causes met"] == "laion: 0; mmc4: 3 (decode_error 3)"
    assert found["read of a mixture"] == "laion 5; mmc4 4"  # pairs and documents, which are not added
    assert found["documents read"] == "–" and "pairs read" not in found


def test_collapse_is_shown_and_what_is_not_measured_is_a_dash() -> None:
    made = publication(FULL)
    changes = {"CLIP": {"probe_rankme": 12.0}, "LCL": {"probe_rankme": 14.0, "probe_text_nll": 0.888}}
    encoders = {slot.run_id: changes.get(slot.row, {}) for slot in made.slots if slot.stage == "pretrain"}
    records = {key: replace(each, metrics=encoders.get(key, each.metrics)) for key, each in made.records.items()}
    text = section(render(TABLE, replace(made, records=records)), COST)
    assert row(text, "method")[-2:] == ["effective rank", "text loss"]
    assert row(text, "CLIP")[-2:] == ["12", "–"] and row(text, "LCL")[-2:] == ["14", "0.888"]
    assert row(text, "Emu")[-2:] == ["–", "–"]
    assert "effective rank" not in row(section(render(TABLE, made), COST), "method")  # nothing of it was watched


def test_columns_that_are_not_the_papers_stand_with_the_diagnostics() -> None:
    text = render(replace(TABLE, columns=(replace(ACC, key="coco_tr1"),), more_columns=(ACC,)), publication(FULL))
    assert row(section(text, COST), "CLIP")[-1] == "81.0 ± 1.0"
    blind = replace(TABLE.rows[3], mode="blind")
    assert "Random" not in section(render(replace(TABLE, rows=(*TABLE.rows[:3], blind)), publication(FULL)), COST)
    assert "pattern acc@1 (IN-1k analogue)" in section(text, COST).split("| CLIP")[0]


CACHED = "- classify: cached features of pictures as they are; the paper augments them"


def test_the_recipe_section_is_the_difference_of_the_specs() -> None:
    made = publication(FULL)
    references = {
        "CLIP": {"pretrain": pretrain_spec("clip", 0, images=2_048_000_000)},
        "Emu": {"pretrain": pretrain_spec("emu", 0, images=2_048_000_000, optim={"lr": 0.5})},
        "LCL": {"pretrain": pretrain_spec("lcl", 7, images=2_048_000_000, inputs={"corpus": "elsewhere"})},
    }
    made = replace(made, references=references, stated={"pretrain": ("images",), "classify": ("extra",)})
    assert changed(made) == [
        "- pretrain, stated in the paper: images 2,048,000,000 → 1,000",
        "- pretrain, the suite's choice: optim.lr 0.5 → 0.001 (Emu)",
        CACHED,
    ]
    augmented = {
        key: replace(
            each, spec={**each.spec, "recipe": {**each.spec["recipe"], "pictures": "augmented", "crop": [0, 1]}}
        )
        for key, each in made.records.items()
        if "recipe" in each.spec
    }
    for each in augmented.values():
        each.spec["recipe"]["flip"] = 0.5
    assert CACHED not in changed(replace(made, records={**made.records, **augmented}))


def test_sizes_are_one_line_and_options_of_an_objective_stand_under_its_name() -> None:
    small = {"name": "small", "vision": {"width": 8, "depth": 2}}
    large = {"name": "large", "vision": {"width": 99, "depth": 2}}
    lcl = {"name": "lcl", "config": {"weight": 0.1, "other": 2}}
    specs = {"clip": pretrain_spec("clip", 0, model=small), "lcl": pretrain_spec("lcl", 0, model=small)}
    specs["lcl"]["objective"]["config"]["other"] = 3
    runs = {name: make_record(spec, {}) for name, spec in specs.items()}
    made = publication({"CLIP": [1.0], "LCL": [2.0]})
    slots = tuple(replace(s, run_id=runs[s.row.lower()].run_id) for s in made.slots if s.stage == "pretrain")
    references = {
        "CLIP": {"pretrain": {**specs["clip"], "model": large}},
        "LCL": {"pretrain": {**specs["lcl"], "model": large, "objective": lcl}},
    }
    made = replace(made, slots=slots, records={r.run_id: r for r in runs.values()}, references=references)
    assert changed(replace(made, stated={"pretrain": ("objectives.lcl.weight",)})) == [
        "- sizes of the backbones: large → small, 2 settings below model (`backbones/sizes.py`)",
        "- pretrain, stated in the paper: objectives.lcl.weight 0.1 → 1",
        "- pretrain, the suite's choice: objectives.lcl.other 2 → 3",
    ]


def test_a_setting_that_no_run_changes_is_not_listed() -> None:
    made = publication(FULL)
    references = {"CLIP": {"pretrain": made.records[made.slots[0].run_id].spec}}
    assert "Nothing: every setting" in section(
        render(TABLE, replace(made, references=references)), "What the tiny recipe changes"
    )


def test_row_differences_list_what_varies_and_nothing_else() -> None:
    made = publication(FULL)
    references = {"CLIP": {"pretrain": made.records[made.slots[0].run_id].spec}}
    text = section(render(TABLE, replace(made, references=references)), "What the tiny recipe changes")
    assert "its options rows differ in: data.name mmc4-pair (CLIP), mmc4 (Emu, LCL)\n" in text
    assert "optim.lr" not in text and "objectives." not in text


def test_two_rows_of_one_objective_show_what_differs_in_it() -> None:
    twin = replace(TABLE.rows[2], label="LCL heavy")
    made = publication({"LCL": [70.0]})
    heavy = make_record({**pretrain_spec("lcl", 0), "objective": {"name": "lcl", "config": {"weight": 5.0}}}, {})
    slot = replace(made.slots[0], row="LCL heavy", run_id=heavy.run_id)
    references = {"LCL": {"pretrain": made.records[made.slots[0].run_id].spec}}
    records = {**made.records, heavy.run_id: heavy}
    made = replace(made, slots=(*made.slots, slot), records=records, references=references)
    text = render(replace(TABLE, rows=(*TABLE.rows, twin)), made)
    assert "objectives.lcl.weight 1 (LCL), 5 (LCL heavy)" in section(text, "What the tiny recipe changes")


def test_orderings_are_counted_by_column_and_the_reversed_ones_named() -> None:
    text = render(TABLE, publication({**FULL, "LCL": [2.0, 2.5, 3.0]}))
    # paper: LCL 75.2, CLIP 74.8, Emu 5.7; CLIP and LCL are closer than two points
    assert row(section(text, "Column by column"), "pattern acc@1")[-3:] == ["1", "0", "1"]
    assert row(section(render(TABLE, publication(FULL)), "Column by column"), "pattern acc@1")[-3:] == ["2", "0", "0"]
    assert "- reversed: LCL over Emu in 1 column (+69.5 in the paper, -2.5 here)" in section(text, ORDERINGS)
    assert "LCL over CLIP" not in text
    undecided = render(TABLE, publication({"CLIP": [1.0], "Emu": [2.0]}))
    assert row(section(undecided, "Column by column"), "pattern acc@1")[-3:] == ["0", "1", "0"]
    assert "- undecided, in how many columns: CLIP over Emu (1)" in section(undecided, ORDERINGS)
    assert "all of them come out" in section(
        render(TABLE, publication({"CLIP": FULL["CLIP"], "Emu": FULL["Emu"]})), ORDERINGS
    )


def test_controls_take_no_part_in_the_orderings() -> None:
    assert "Random" not in section(render(TABLE, publication(FULL)), ORDERINGS)


def test_the_half_width_of_the_test_set_is_the_textbooks() -> None:
    """2425 of 5000: 48.5 +- 1.39; columns that are no share of items have none."""
    made = publication({"CLIP": [48.5], "LCL": [90.0]})
    records = {key: replace(each, items={"imagenet": 5000} if each.items else {}) for key, each in made.records.items()}
    made = replace(made, records=records)
    assert row(section(render(TABLE, made), "Column by column"), "pattern acc@1")[3:5] == ["5,000", "± 1.4"]
    smaller = {
        key: replace(each, items={"imagenet": 500})
        for key, each in records.items()
        if each.metrics.get("imagenet/acc1") == 90.0
    }
    several = render(TABLE, replace(made, records={**records, **smaller}))  # "at most": by the smallest set
    assert row(section(several, "Column by column"), "pattern acc@1")[3:5] == ["500 to 5,000", "± 4.4"]
    table = replace(TABLE, columns=(replace(ACC, share_of_items=False),))
    assert row(section(render(table, made), "Column by column"), "pattern acc@1")[3:5] == ["5,000", "–"]


def test_every_distinct_source_is_named_and_every_commit_with_its_runs() -> None:
    made = publication(FULL)
    first = next(slot for slot in made.slots if (slot.row, slot.stage, slot.seed) == ("LCL", "classify", 1))
    changed = replace(made.records[first.run_id], commit="f" * 40, dirty=True)
    text = section(render(TABLE, replace(made, records={**made.records, first.run_id: changed})), SOURCES)
    assert "- commit ffffffffffff (with uncommitted changes): classify of LCL, seed 1\n" in text
    others = "classify of LCL, seeds 0, 2"
    assert "- commit 0123456789ab: pretrain, seeds 0, 1, 2; classify of all rows but LCL, seeds 0, 1, 2" in text
    assert others in text and "torch 2.15.0" in text and "protocol versions: classify 2, pretrain 1" in text
    assert "24 finished runs of 24" in text


def test_the_files_beside_the_page_are_named_where_they_are() -> None:
    text = section(render(TABLE, publication(FULL, scale="base16", warning="W")), SOURCES)
    assert "`table1-base16.csv`" in text and "`../records/`, `table1-base16.jsonl`" in text and "results/" not in text


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
    assert (control["control"], control["paper"]) == ("1", "")
    ours = replace(TABLE, columns=(), more_columns=(ACC,))  # a column of ours has no number of the paper
    assert {each["paper"] for each in csv.DictReader(io.StringIO(render_csv(ours, publication(FULL))))} == {""}
    assert emu["missing"] == "not part of this sweep"


def test_a_measured_scale_of_the_paper_shows_the_difference() -> None:
    made = publication({"CLIP": [75.0, 76.0]}, warning="", scale="base16")
    assert row(section(render(TABLE, made), "Measured minus the paper"), "CLIP")[-1] == "+0.7"
    assert "Measured minus the paper" not in render(TABLE, publication(FULL))


def test_a_table_without_any_record_still_renders() -> None:
    text = render(TABLE, Publication(table="table1", scale="tiny", warning="W", slots=(), records={}))
    assert "No run of this table is finished." in text and row(text, "CLIP")[-1] == "– (a)"


def test_a_users_own_folder_stands_in_for_nothing() -> None:
    text = section(render(TABLE, publication(FULL, data_prefix="toy ", own_data=("LCL",))), "Measured here")
    assert row(text, "CLIP")[2] == "toy mmc4-pair" and row(text, "LCL")[2] == "mmc4"
