"""Every committed table is planned under the names its runs have: nothing that was trained is asked for again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.configuration.corpora import get_corpus, get_task
from experiments.configuration.dialogue import key
from experiments.configuration.overrides import apply
from experiments.configuration.recipe import get_scale
from experiments.planning.catalogue import Suite
from experiments.planning.plan import build_plan
from experiments.running import hardware
from experiments.sweep import main
from experiments.tables import get_table
from results.declared import table_of
from results.publish import load
from results.schema import Row

RESULTS = Path(__file__).parents[3] / "results"
# Tables as the plain command writes them, and those of a setting in a folder of their own.
EVERY = sorted((*RESULTS.glob("records/*.jsonl"), *RESULTS.glob("*/records/*.jsonl")))
TABLES = pytest.mark.parametrize("path", EVERY, ids=[path.relative_to(RESULTS).as_posix() for path in EVERY])
ONE_SEED = {"table3", "table4", "budget"}  # whose page says that one seed tells nothing


def committed(path: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if "spec" in line]


def digests(specs: list[dict[str, Any]]) -> dict[str, str]:
    """Content of the data by field of DataConfig, as the records tell it."""
    found = {}
    for spec in specs:
        if spec["kind"] == "pretrain" and spec["data"]:
            parts = get_corpus(spec["data"]["name"]).parts
            inputs = ["corpus"] if len(parts) == 1 else [f"corpus:{part.name}" for part in parts]
            found |= {part.source: spec["inputs"][name] for part, name in zip(parts, inputs, strict=True)}
        if spec["kind"] == "text_lm":
            found["mmc4"] = spec["inputs"]["text"]
        if spec["kind"] == "transfer":
            data = get_task(spec["task"])
            found |= {data.train: spec["inputs"]["train"], **{name: spec["inputs"][name] for name in data.tests}}
        if spec["kind"] == "dialogue":
            asked = {key(name): spec["inputs"][name] for name in spec["benchmarks"]}
            found |= {key(spec["stage"]): spec["inputs"]["data"], **asked}
    return found


def rows(path: Path) -> tuple[Row, ...]:
    """The rows that were asked for: all, but under a setting of one's own."""
    held, declared = {row.label for row in table_of(load(path)).rows}, get_table(path.stem).rows
    assert path.parents[1] != RESULTS or held == {row.label for row in declared}
    return tuple(row for row in declared if row.label in held)


@TABLES
def test_the_committed_runs_are_the_planned_ones(path: Path) -> None:
    table, records = path.stem, committed(path)
    specs = [record["spec"] for record in records]
    (precision,) = {spec["optim"]["precision"] for spec in specs if spec.get("optim")}
    scale = get_scale("tiny")
    resolved = {"pretrain.optim.precision": precision, "text_lm.optim.precision": precision}
    config = apply(scale.config, {**load(path).settings, **resolved})
    seeds = sorted({spec["seed"] for spec in specs})
    made = build_plan([replace(get_table(table), rows=rows(path))], seeds, scale, config, Suite(), digests(specs))
    assert len(seeds) >= (1 if table in ONE_SEED else 3)
    assert {run.run_id for run in made.runs} == {record["run_id"] for record in records}


@TABLES
def test_the_committed_table_is_what_collating_makes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    """A new option stands in the recipe beside the table: `python -m experiments.sweep TABLE --collate` writes it."""
    home, table = path.parents[1], path.stem
    for folder in ("records", "tables"):
        shutil.copytree(home / folder, tmp_path / folder)
    monkeypatch.setattr(hardware, "best_precision", lambda: "fp32")  # on a machine of another kind too
    seed = str(committed(path)[0]["spec"]["seed"])
    sets = [word for name, value in load(path).settings.items() for word in ("--set", f"{name}={value}")]
    where = ["--runs", str(tmp_path / "runs"), "--out", str(tmp_path)]
    only = [word for row in rows(path) for word in ("--only", row.label)] if sets else []
    assert main([table, "--seeds", f"{seed}-{seed}", "--collate", *where, *sets, *only]) == 0
    for made in sorted(tmp_path.glob(f"*/{table}.*")):
        assert made.read_bytes() == (home / made.relative_to(tmp_path)).read_bytes(), made.name
