"""Every committed table is planned under the names its runs have: nothing that was trained is asked for again."""

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
from experiments.tables import get_table

RESULTS = Path(__file__).parents[3] / "results"
TABLES = sorted(path.stem for path in (RESULTS / "records").glob("*.jsonl"))


def committed(table: str) -> list[dict[str, Any]]:
    text = (RESULTS / "records" / f"{table}.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [line for line in lines if "spec" in line]


def digests(specs: list[dict[str, Any]]) -> dict[str, str]:
    """Content of the data by field of DataConfig, as the records tell it."""
    found = {}
    for spec in specs:
        if spec["kind"] == "pretrain" and spec["data"]:
            parts = get_corpus(spec["data"]["name"]).parts
            inputs = ["corpus"] if len(parts) == 1 else [f"corpus:{part.name}" for part in parts]
            found |= {part.source: spec["inputs"][name] for part, name in zip(parts, inputs, strict=True)}
        if spec["kind"] == "transfer":
            data = get_task(spec["task"])
            found |= {data.train: spec["inputs"]["train"], **{name: spec["inputs"][name] for name in data.tests}}
    return found


@pytest.mark.parametrize("table", TABLES)
def test_the_committed_runs_are_the_planned_ones(table: str) -> None:
    records = committed(table)
    specs = [record["spec"] for record in records]
    (precision,) = {spec["optim"]["precision"] for spec in specs if spec.get("optim")}
    scale = get_scale("tiny")
    resolved = {"pretrain.optim.precision": precision, "text_lm.optim.precision": precision}
    config = apply(scale.config, resolved)
    seeds = sorted({spec["seed"] for spec in specs})
    made = build_plan([get_table(table)], seeds, scale, config, Suite(), digests(specs))
    assert len(seeds) >= (1 if table == "table3" else 3)  # whose page says that one seed tells nothing
    assert {run.run_id for run in made.runs} == {record["run_id"] for record in records}


@pytest.mark.parametrize("table", TABLES)
def test_the_committed_table_is_what_collating_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    """A new option stands in the recipe beside the table: `python -m experiments.sweep TABLE --collate` writes it."""
    for folder in ("records", "tables"):
        shutil.copytree(RESULTS / folder, tmp_path / folder)
    monkeypatch.setattr(hardware, "best_precision", lambda: "fp32")  # on a machine of another kind too
    seed = str(committed(table)[0]["spec"]["seed"])
    assert (
        main(
            [table, "--seeds", f"{seed}-{seed}", "--collate", "--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
        )
        == 0
    )
    for path in sorted(tmp_path.glob(f"*/{table}.*")):
        assert path.read_bytes() == (RESULTS / path.relative_to(tmp_path)).read_bytes(), path.name
