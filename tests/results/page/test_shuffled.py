"""Scores of captions of other images stand beside the scores they are a baseline of, wherever they were recorded."""

from dataclasses import replace

from results_helpers import TABLE, publication

from results.frame import Filled
from results.page.printed import render
from results.page.shuffled import shuffled
from results.schema import Kind, Publication

SCORES: dict[str, list[float | str | None]] = {"CLIP": [60.0, 62.0], "LCL": [50.0, None], "Emu": [5.0, 5.5]}


def with_twins(**of: tuple[float, ...]) -> Publication:
    """The made-up publication; runs of these rows recorded a shuffled score for each seed."""
    made = publication(SCORES)
    records = dict(made.records)
    for slot in made.slots:
        record = records.get(slot.run_id)
        if record is not None and record.kind is Kind.TRANSFER and slot.row in of:
            more = {"imagenet/shuffled_acc1": of[slot.row][slot.seed]}
            records[slot.run_id] = replace(record, metrics={**record.metrics, **more})
    return replace(made, records=records)


def test_each_score_stands_beside_that_of_another_image_s_captions() -> None:
    lines = shuffled(Filled(TABLE, with_twins(CLIP=(7.0, 8.0), LCL=(49.0,))))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0][1:] == ["CLIP", "LCL"]  # Emu's runs are from before
    assert [row[1:] for row in rows[2:]] == [["61.0 / 7.5", "50.0 / 49.0"]]
    assert lines[-1] == "Runs from before there was such a score: Emu."
    assert "## Captions of other images" in render(TABLE, with_twins(CLIP=(7.0, 8.0)))


def test_a_mean_over_fewer_seeds_says_so() -> None:
    made = with_twins(CLIP=(7.0, 8.0))
    run_id = next(each.run_id for each in made.slots if (each.row, each.stage, each.seed) == ("CLIP", "classify", 1))
    late = {key: value for key, value in made.records[run_id].metrics.items() if "shuffled" not in key}
    records = {**made.records, run_id: replace(made.records[run_id], metrics=late)}
    page = "\n".join(shuffled(Filled(TABLE, replace(made, records=records))))
    assert "Means over seeds. Here over 1 of 2 seeds." in page and " 60.0 / 7.0 |" in page
    both = with_twins(CLIP=(7.0, 8.0), Emu=(1.0, 2.0))
    page = "\n".join(shuffled(Filled(TABLE, replace(both, records={**both.records, run_id: records[run_id]}))))
    assert "Here over" not in page and "60.0 / 7.0 (1 of 2 seeds)" in page and "5.2 / 1.5 |" in page


def test_runs_from_before_there_was_a_baseline_print_no_section() -> None:
    assert shuffled(Filled(TABLE, publication(SCORES))) == []


def test_answers_about_other_images_have_a_section_of_their_own() -> None:
    talk = replace(TABLE.columns[0], key="gqa_acc", task="dialogue", dataset="gqa", metric="gqa_acc")
    table, made = replace(TABLE, columns=(*TABLE.columns, talk)), with_twins(CLIP=(7.0, 8.0))
    slot = next(slot for slot in made.slots if slot.row == "LCL" and slot.stage == "classify")
    told = {"gqa/gqa_acc": 40.0, "gqa/shuffled_gqa_acc": 26.0}
    record = replace(made.records[slot.run_id], run_id="talk", kind=Kind.DIALOGUE, metrics=told)
    slots = (*made.slots, replace(slot, stage="dialogue", run_id="talk"))
    filled = Filled(table, replace(made, slots=slots, records={**made.records, "talk": record}))
    page = "\n".join(shuffled(filled))
    captions, answers = page.split("## Answers about other images")
    assert "## Captions of other images" in captions and "61.0 / 7.5" in captions
    assert "40.0 / 26.0" in answers and "/ 7.5" not in answers
