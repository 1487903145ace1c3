"""Writes the fixture of the golden report and its page: `PYTHONPATH=.:tests python tests/golden/report/make.py`.

Every number here is invented. Run it after a deliberate change of the report and read the difference before committing.
"""

import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from plan_helpers import PAPERS_TABLE1 as TABLE1
from results_helpers import make_record, pretrain_spec

from results import report
from results.canonical import plain, run_id
from results.details import samples
from results.details.samples import Said
from results.publish import collate, export
from results.record import write_atomic
from results.schema import Publication, Row, RunRecord, Slot, Status

FOLDER = Path(__file__).parent
SEEDS = (0, 1, 2)
TASKS = ("classify", "retrieve", "caption")
CHANCE = {"imagenet/acc1": 100 / 24, "imagenet/acc1_standardised": 100 / 24, "coco/tr1": 0.2, "coco/ir1": 0.2}
# level and spread of a row; the columns go down from it
LEVELS = {"CLIP": (80.0, 1.0), "CoCa": (79.5, 2.0), "BLIP2": (81.0, 0.5), "BEiT3": (50.0, 3.0), "Flamingo": (10.0, 0.2)}
LEVELS |= {"Emu": (5.0, 0.4), "LCL": (77.0, 1.5), "Random encoder": (44.0, 0.3)}
LEVELS |= {"Blind (captions without an image)": (30.0, 0.1)}
LEVELS |= {"Supervised (labels of the same images)": (96.0, 0.2)}


def pretrain(row: Row, seed: int) -> dict[str, Any]:
    """A pre-training spec with a few settings."""
    return pretrain_spec(row.objective, seed, data={"name": row.data} if row.objective else None)


def transfer(row: Row, encoder: RunRecord | None, task: str, seed: int) -> RunRecord | None:
    """An invented transfer record: some fail, one is not there, one has a metric that could not be computed."""
    spec: dict[str, Any] = {"kind": "transfer", "protocol": 1, "task": task, "mode": row.mode, "seed": seed}
    spec |= {"recipe": {"epochs": 20.0, "batch": 128}, "inputs": {"encoder": encoder.run_id} if encoder else {}}
    level, spread = LEVELS[row.label]
    columns = [column for column in (*TABLE1.columns, *TABLE1.more_columns) if column.task == task]
    metrics = {c.metric_key: round(level * 0.95**i + spread * (seed - 1), 3) for i, c in enumerate(columns)}
    items = {column.dataset: 1500 if task == "classify" else 500 for column in columns}
    chance = {key: CHANCE[key] for key in metrics if key in CHANCE}
    record = make_record(spec, metrics, items=items, chance=chance, train_flops=0.0, images_seen=0, lm_passes=0)
    if (row.label, task) == ("Emu", "caption"):
        why = "scorer: Java | `java` was not found <PATH>"
        return replace(record, metrics={}, unavailable={key: why for key in metrics})
    if (row.label, task, seed) == ("BEiT3", "retrieve", 2):
        return replace(record, metrics={}, status=Status.FAILED, reason="loss is nan at step 17")
    return None if (row.label, task, seed) == ("CoCa", "classify", 1) else record


def publication() -> Publication:
    """Table 1 with three seeds of every row."""
    slots: list[Slot] = []
    records: dict[str, RunRecord] = {}
    references: dict[str, dict[str, dict[str, Any]]] = {}
    for row in TABLE1.rows:
        for seed in SEEDS:
            if row.mode == "blind":
                blind = transfer(row, None, "caption", seed)
                assert blind is not None
                slots.append(Slot(row=row.label, stage="caption", seed=seed, run_id=blind.run_id))
                records[blind.run_id] = blind
                references[row.label] = {}
                continue
            encoder = make_record(pretrain(row, seed), {"probe_rankme": LEVELS[row.label][0], "loss": 1.0})
            flops = 1e12 * (1 + TABLE1.rows.index(row))
            encoder = replace(encoder, dirty=seed == 2, train_flops=flops)
            if row.objective is None:
                encoder = replace(encoder, train_flops=0.0, images_seen=0, coverage={}, metrics={}, lm_passes=0)
            slots.append(Slot(row=row.label, stage="pretrain", seed=seed, run_id=encoder.run_id))
            records[encoder.run_id] = encoder
            for task in TASKS:
                made = transfer(row, encoder, task, seed)
                missing = run_id("transfer", "made-up", {"row": row.label, "task": task, "seed": seed})
                slots.append(Slot(row=row.label, stage=task, seed=seed, run_id=made.run_id if made else missing))
                if made:
                    records[made.run_id] = made
        if row.label in references:
            continue
        paper = pretrain(row, 0)
        if row.objective is not None:
            paper |= {"images": 2_048_000_000, "optim": {"lr": 0.0003}}
        if row.objective == "lcl":
            paper["objective"] = {"name": "lcl", "config": {"weight": 0.1}}
        references[row.label] = {
            "pretrain": paper,
            "classify": {"recipe": {"epochs": 90.0, "batch": 8192}, "protocol": 1},
        }
        references[row.label]["classify"] |= {"task": "classify", "mode": "frozen"}
    return Publication(
        table="table1",
        scale="tiny",
        warning="TINY SCALE, not comparable with the paper",
        data_prefix="toy ",
        slots=tuple(slots),
        records=records,
        references=references,
        declared=plain(TABLE1),
    )


def said(publication: Publication) -> None:
    """What two rows said of two pictures, one of them of four pixels, beside the records."""
    runs = {(slot.row, slot.stage): slot.run_id for slot in publication.slots if slot.seed == 0}
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (200, 30, 30)).save(buffer, "png")
    uri = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    pictures = {("coco", item): (f"reference of {item} <b>", uri) for item in ("a", "b")}
    retrieved = {
        ("coco", item): Said(
            (f"caption of {item} & more", "another"), (item == "a", False), 100.0 * (item == "a"), "tr1"
        )
        for item in ("a", "b")
    }
    written = {("coco", item): Said(("",), (), None if item == "a" else 12.5, "cider") for item in ("a", "b")}
    held = {runs["LCL", "retrieve"]: retrieved, runs["CLIP", "caption"]: written}
    samples.save(FOLDER / f"table1{samples.SUFFIX}", samples.Samples(pictures, held))


if __name__ == "__main__":
    made = publication()
    export(made, FOLDER)
    collate(TABLE1, made, FOLDER)
    said(made)
    write_atomic(FOLDER / "table1.html", report.load(FOLDER, "tiny").page())
