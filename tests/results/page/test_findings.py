"""The first section of a page, on invented tables whose findings differ. No word of it is about particular rows."""

import re
from dataclasses import replace

from results_helpers import ACC, TABLE, publication

from results.page.printed import render
from results.schema import Analogue, Table

UNTOUCHED = [40.0, 41.0, 42.0]
OTHERS = {"Emu": [5.0, 5.5, 4.5], "LCL": [80.0, 81.0, 82.0]}


def found(scores: dict[str, list[float | str | None]], table: Table = TABLE) -> list[str]:
    """The lines between the first heading and the measured table."""
    text = render(table, publication(scores))
    return [line for line in text.partition("## What was found")[2].partition("\n## ")[0].splitlines() if line]


def about(scores: dict[str, list[float | str | None]], start: str, table: Table = TABLE) -> str:
    (line,) = [line for line in found(scores, table) if line.startswith(f"- {start}")]
    return line.removeprefix("- ")


def test_the_page_opens_with_what_was_found() -> None:
    lines = render(TABLE, publication({"Random encoder": UNTOUCHED, **OTHERS})).splitlines()
    assert lines.index("## What was found") < 6 and lines.index("## What was found") < lines.index("## Measured here")


def test_methods_are_sorted_by_whether_they_exceed_the_untouched_encoder() -> None:
    scores = {"Random encoder": UNTOUCHED, "CLIP": [41.0, 42.0, 43.0], **OTHERS}
    reference = "the untouched encoder (Random encoder)"
    assert about(scores, "**Learned**") == f"**Learned**, above {reference} in every column: LCL."
    assert about(scores, "**No better") == (
        f"**No better than {reference}** in any column: CLIP undecided in 1; Emu **below** in 1 of 1 column."
    )


def test_where_nobody_learns_it_says_so() -> None:
    scores = {"Random encoder": [90.0, 91.0, 92.0], **OTHERS}
    assert about(scores, "**Learned**").endswith("in every column: no method.")


def test_a_method_that_learns_in_some_columns_is_told_apart_with_their_names() -> None:
    other = replace(ACC, key="coco_tr1", higher_is_better=False, analogue={"tiny": Analogue(label="B", meaning="")})
    both = replace(TABLE, columns=(ACC, other))
    line = about({"Random encoder": UNTOUCHED, **OTHERS}, "**Learned in part:** LCL", both)
    name = "pattern acc@1 (IN-1k analogue)"
    assert line == f"**Learned in part:** LCL above in 1 of 2 columns ({name}), **below** in 1 of 2 columns (B)."


def test_a_method_with_one_seed_among_others_is_told_by_sign_and_nowhere_else() -> None:
    lines = found({"Random encoder": UNTOUCHED, **OTHERS, "CLIP": [99.0]})
    said = [line for line in lines if "CLIP" in line]
    assert (
        len(said) == 1 and said[0].startswith("- **Undecided**, with one seed.") and "CLIP in 1 of 1 column" in said[0]
    )


def test_one_seed_decides_nothing_and_says_so_first() -> None:
    scores = {"Random encoder": [40.0], "CLIP": [39.0], "Emu": [5.0], "LCL": [81.0]}
    first, *rest = found(scores)
    assert first.startswith("**One seed a row: nothing here can be told from noise.**")
    assert about(scores, "**Undecided**") == (
        "**Undecided**, with one seed. By sign alone above the untouched encoder (Random encoder): LCL in 1 of 1 "
        "column, CLIP in 0 of 1 column, Emu in 0 of 1 column."
    )
    assert about(scores, "**The paper**").endswith("Of its 2 orderings by 2 points or more, 2 come out by sign alone.")
    assert not any("Learned" in line or "In front" in line or "How sure" in line for line in rest)


def test_a_lead_within_the_noise_leads_nothing() -> None:
    near = {"CLIP": [80.0, 81.0, 82.0], "LCL": [81.0, 82.0, 83.0], "Emu": [5.0, 5.5, 4.5]}
    assert about(near, "**In front:**") == (
        "**In front:** no method leads a column beyond the noise. Not told apart from the best mean: CLIP in 1 and "
        "LCL in 1 of 1 column."
    )
    far = {**near, "LCL": [91.0, 92.0, 93.0]}
    assert "ahead of every other method LCL in 1 of 1 column" in about(far, "**In front:**")


def test_the_papers_orderings_are_counted_above_their_minimum() -> None:
    scores = {"CLIP": [81.0, 82.0, 83.0], "Emu": [5.0, 5.5, 4.5], "LCL": [2.0, 2.5, 3.0]}
    # paper: LCL 75.2, CLIP 74.8, Emu 5.7; two orderings of at least two points
    assert about(scores, "**The paper**") == (
        "**The paper** has LCL in 1 of 1 column first (single runs). Of its 2 orderings by 2 points or more: "
        "1 come out, 0 undecided, 1 **reversed** (LCL over Emu in 1)."
    )


def test_how_large_a_difference_must_be_is_said() -> None:
    # s.d. 1, 2 and 4: 4.303 sqrt(5/3) = 5.6, 4.303 sqrt(17/3) = 10.2 and 4.303 sqrt(20/3) = 11.1
    scores = {"CLIP": [80.0, 81.0, 82.0], "Emu": [5.0, 7.0, 9.0], "LCL": [78.0, 82.0, 86.0]}
    assert "below 10.2 points (pattern acc@1" in about(scores, "**Too small")
    assert "(4.30 for 3 seeds)" in about(scores, "**How sure:**")


def test_a_missing_row_is_named_with_its_reason_and_a_missing_seed_with_its_row() -> None:
    scores = {"Random encoder": UNTOUCHED, "CLIP": [80.0, 81.0, None], "Emu": ["boom | <b>"], "LCL": OTHERS["LCL"]}
    assert about(scores, "**Not in any of this:**") == r"**Not in any of this:** Emu (failed: boom \| &lt;b&gt;)."
    assert "CLIP in 1 of 1 column" in about(scores, "**Seeds missing:**")
    assert not re.search("Emu", about(scores, "**Learned**"))


def test_without_an_untouched_encoder_nobody_is_said_to_learn() -> None:
    table = replace(TABLE, rows=TABLE.rows[:3])
    assert any("nothing here says which methods learn" in line for line in found(OTHERS, table))
    assert any("Nothing was measured yet" in line for line in found({"CLIP": [None]}))
    alone = found({"CLIP": [1.0, 2.0]})
    assert any("No method can be compared with Random encoder" in line for line in alone)


def test_other_controls_are_compared_but_are_no_methods() -> None:
    rows = (*TABLE.rows[:2], replace(TABLE.rows[2], control=True), TABLE.rows[3])
    lines = found({"Random encoder": UNTOUCHED, **OTHERS}, replace(TABLE, rows=rows))
    assert "- Controls: LCL above in 1 of 1 column." in lines
    blind = (*TABLE.rows[:2], replace(TABLE.rows[2], control=True, mode="blind"), TABLE.rows[3])
    assert not any(
        "Controls" in line for line in found({"Random encoder": UNTOUCHED, **OTHERS}, replace(TABLE, rows=blind))
    )
    assert not any("LCL" in line for line in lines if not line.startswith("- Controls"))


def test_rows_are_compared_with_captions_without_an_image_which_rank_nowhere() -> None:
    rows = (*TABLE.rows[:3], replace(TABLE.rows[3], mode="blind"))
    scores = {"Random encoder": UNTOUCHED, "CLIP": [41.0, 42.0, 43.0], **OTHERS}
    table = replace(TABLE, rows=rows)
    assert about(scores, "**Better than captions", table) == (
        "**Better than captions without an image** (Random encoder), wherever both are measured: LCL. Not so CLIP "
        "undecided in 1; Emu **below** in 1 of 1 column."
    )
    assert any("nothing here says which methods learn" in line for line in found(scores, table))  # blind, not untouched
    text = render(table, publication({**scores, "Random encoder": [99.0, 99.1, 99.2]}))
    assert "**99.1" not in text and "Random encoder" not in text.partition("## Orderings")[2].partition("## Pre-")[0]


def test_a_blind_row_says_why_it_has_no_other_cell() -> None:
    table = replace(TABLE, rows=(*TABLE.rows[:3], replace(TABLE.rows[3], mode="blind")))
    assert ") it sees no image: only captions can be asked of it" in render(table, publication(OTHERS))
