"""The committed Table 1 is planned under the names its runs have: nothing that was trained is asked for again."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments.configuration.corpora import get_corpus, get_task
from experiments.configuration.overrides import apply
from experiments.configuration.recipe import get_scale
from experiments.planning.catalogue import Suite
from experiments.planning.plan import build_plan
from experiments.running import hardware
from experiments.sweep import main
from experiments.tables import TABLE1

RESULTS = Path(__file__).parents[2] / "results"
RECORDS = RESULTS / "records" / "table1.jsonl"


def committed() -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "spec" in line]


def digests(specs: list[dict[str, Any]]) -> dict[str, str]:
    """Content of the data by field of DataConfig, as the records tell it."""
    found = {}
    for spec in specs:
        if spec["kind"] == "pretrain" and spec["data"]:
            found[get_corpus(spec["data"]["name"]).parts[0].source] = spec["inputs"]["corpus"]
        if spec["kind"] == "transfer":
            data = get_task(spec["task"])
            found |= {data.train: spec["inputs"]["train"], **{name: spec["inputs"][name] for name in data.tests}}
    return found


def test_the_committed_runs_are_the_planned_ones() -> None:
    records = committed()
    specs = [record["spec"] for record in records]
    (precision,) = {spec["optim"]["precision"] for spec in specs if spec.get("optim")}
    scale = get_scale("tiny")
    resolved = {"pretrain.optim.precision": precision, "text_lm.optim.precision": precision}
    config = apply(scale.config, resolved)
    seeds = sorted({spec["seed"] for spec in specs})
    made = build_plan([TABLE1], seeds, scale, config, Suite(), digests(specs))
    assert seeds == [0, 1, 2]
    assert {run.run_id for run in made.runs} == {record["run_id"] for record in records}


def test_the_committed_table_is_what_collating_makes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new option stands in the recipe beside the table: `python -m experiments.sweep table1 --collate` writes it."""
    for folder in ("records", "tables"):
        shutil.copytree(RESULTS / folder, tmp_path / folder)
    monkeypatch.setattr(hardware, "best_precision", lambda: "fp32")  # on a machine of another kind too
    assert main(["table1", "--collate", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]) == 0
    for path in sorted(tmp_path.glob("*/table1*")):
        assert path.read_bytes() == (RESULTS / path.relative_to(tmp_path)).read_bytes(), path.name
