"""Frozen and full transfer never share a table, bold print or a comparison; the paper's lines are references."""

import re
from dataclasses import replace
from typing import Any

from results_helpers import TABLE, make_record, pretrain_spec, publication

from results.page import transfers
from results.page.printed import render
from results.schema import Publication, Row, Slot, Table


def section(text: str, title: str) -> str:
    """The part of a page below one heading."""
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^##? |\Z)", text, re.M | re.S)
    assert found, f"no section {title!r}"
    return found[1]


FULL_ROWS = (
    Row(label="CLIP, full", objective="clip", data="mmc4-pair", task="Con.", mode="full"),
    Row(label="LCL, full", objective="lcl", data="mmc4", task="Con. + Gen.", mode="full"),
)
SCORES = {"CLIP": [60.0, 61.0], "LCL": [50.0, 51.0], "Emu": [5.0, 5.5]}
RECIPE: dict[str, Any] = {
    "epochs": 90.0, "batch": 128, "lr": 0.002, "lr_pretrained": 0.002, "weight_decay": 0.0001, "label_smoothing": 0.1,
    "pictures": "augmented", "crop": [0.08, 1.0], "flip": 0.5,
    "vision": {"lr": 0.0001, "layer_decay": 0.75, "weight_decay": 0.05, "drop_path": 0.2},
}  # fmt: skip


def both() -> tuple[Table, Publication]:
    """Two rows with both transfers; in full the order of the two is the other way round."""
    made = publication(SCORES)
    slots, records = list(made.slots), dict(made.records)
    for row, values in (("CLIP, full", [80.0, 81.0]), ("LCL, full", [90.0, 91.0])):
        for seed, value in enumerate(values):
            encoder = make_record(pretrain_spec("clip" if "CLIP" in row else "lcl", seed), {})
            spec = {"kind": "transfer", "protocol": 2, "task": "classify", "mode": "full", "seed": seed}
            done = make_record(
                spec | {"recipe": RECIPE, "inputs": {"encoder": encoder.run_id}},
                {"imagenet/acc1": value},
                coverage={"documents": 97, "skipped": 3, "decode_error": 3},
            )
            slots.append(Slot(row=row, stage="classify", seed=seed, run_id=done.run_id))
            records[done.run_id] = done
    table = replace(
        TABLE,
        rows=(*(replace(row, paper={}) for row in TABLE.rows if row.label in SCORES), *FULL_ROWS),
        paper_csv="table3.csv",
        references=({"transfer": "full", "method": "OpenAI CLIP"},),
    )
    return table, replace(made, slots=tuple(slots), records=records)


def test_each_mode_has_a_table_of_its_own_with_its_own_bold_print() -> None:
    page = render(*both())
    frozen, rest = page.split("\n# Full transfer\n")
    full, after = rest.split("\n# Both\n")
    assert "# Frozen transfer" in frozen
    assert "**60.5 ± 0.7**" in frozen and "full" not in section(frozen, "Measured here")
    assert "**90.5 ± 0.7**" in full and "80.5 ± 0.7" in full and "**80.5" not in full and "60.5" not in full
    assert "| OpenAI CLIP" not in frozen + full
    assert "full, OpenAI CLIP" in after and "87.4" in after
    assert not any(number in frozen + full for number in ("87.4", "83.7"))


def test_the_protocol_is_printed_with_its_numbers_and_what_training_sets_lost() -> None:
    text = section(render(*both()), "How encoders were transferred")
    assert "full, augmented pictures (crops of 0.08 to 1 of the area, mirrored 0.5)" in text
    assert "encoder: lr 0.0001, layer_decay 0.75, weight_decay 0.05 and drop_path 0.2" in text
    assert "frozen, cached features of unaugmented pictures, epochs 20" in text
    assert "left out of the training set of classify: decode_error 3" in text


def test_a_length_in_steps_and_randaugment_are_printed_where_they_are_used() -> None:
    recipe = {
        "pictures": "augmented",
        "crop": [0.9, 1.0],
        "flip": 0.0,
        "rand_augment": 9.0,
        "epochs": None,
        "steps": 5000,
    }
    said = transfers._said({"mode": "frozen", "recipe": recipe})
    assert said == (
        "frozen, augmented pictures (crops of 0.9 to 1 of the area, mirrored 0, RandAugment 9), steps 5,000"
    )


def test_a_table_of_cached_rows_alone_is_printed_as_before() -> None:
    page = render(TABLE, publication(SCORES))
    assert "How encoders were transferred" not in page and "# Frozen transfer" not in page
