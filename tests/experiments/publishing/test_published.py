"""Tables are made from published records and local runs together, and nothing is ever replaced by less.

Records are made up here: no run is done, `--collate` is.
"""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from plan_helpers import record_of
from sweep_helpers import BUDGET, TABLE, arguments, small_suite

from experiments import sweep
from experiments.command.exits import EXIT_DONE, EXIT_INCOMPLETE, EXIT_USAGE
from experiments.configuration.corpora import with_embedded
from experiments.configuration.overrides import apply, parse
from experiments.configuration.recipe import get_scale
from experiments.launching import preflight
from experiments.planning.catalogue import Suite
from experiments.planning.plan import Plan, build_plan
from experiments.planning.specs import TransferSpec
from results import publish, record
from results.canonical import spec_hash
from results.details import curves, items
from results.schema import Kind, RunRecord, metric_key


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_suite(monkeypatch)


def plan(runs: Path, seeds: int, *changes: str) -> Plan:
    """What a small sweep with these further settings plans."""
    options = sweep.parser().parse_args(arguments(runs, *[part for each in changes for part in ("--set", each)]))
    scale = get_scale("tiny")
    config = preflight.with_precision(apply(scale.config, parse(options.set)))
    config, known = with_embedded(config, runs, uses_it=True)
    return build_plan([TABLE], range(seeds), scale, config, Suite(), known)


def done(made: Plan) -> list[RunRecord]:
    """A finished record of every run, each with a number of its own."""
    records = []
    for number, run in enumerate(made.runs):
        columns = [c for c in TABLE.columns if isinstance(run.spec, TransferSpec) and c.task == run.spec.task]
        metrics = {metric_key(c.dataset, c.metric): float(number) for c in columns}
        if run.kind is Kind.PRETRAIN:
            metrics["probe_rankme"] = float(number)
        records.append(record_of(run, metrics))
    return records


def published(runs: Path, seeds: int) -> dict[str, bytes]:
    """A complete table of that many seeds in the folder that `arguments` writes to; the bytes of its files."""
    made = plan(runs, seeds)
    publication = replace(made.publication(TABLE.name, done(made)), settings=parse(BUDGET))
    publish.export(publication, runs / "out" / "records")
    items.export(TABLE, publication, runs, runs / "out" / "records")
    for each in publication.records.values():
        rows = [{"step": step, "probe_rankme": each.metrics.get("probe_rankme", 0.0)} for step in (5, 10)]
        text = "".join(f"{json.dumps(row)}\n" for row in rows)
        record.write_atomic(runs / "gone" / each.run_id / curves.METRICS_FILE, text)
    curves.export(publication, runs / "gone", runs / "out" / "records")
    publish.collate(TABLE, publication, runs / "out" / "tables")
    return files(runs / "out")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_without_any_run_the_published_table_comes_out_of_its_records(tmp_path: Path) -> None:
    before = published(tmp_path, seeds=3)
    assert sweep.main(arguments(tmp_path, "--collate")) == EXIT_DONE
    assert files(tmp_path / "out") == before


def test_a_local_run_takes_the_place_of_its_published_one_and_the_other_seeds_stay(tmp_path: Path) -> None:
    before = published(tmp_path, seeds=2)
    mine = next(each for each in done(plan(tmp_path, 1)) if "coco/tr1" in each.metrics)
    mine = replace(mine, metrics={**mine.metrics, "coco/tr1": 77.25})
    record.write(mine, tmp_path / mine.run_id, [])
    assert sweep.main(arguments(tmp_path, "--collate")) == EXIT_DONE
    after = publish.load(tmp_path / "out" / "records" / "small.jsonl")
    assert {slot.seed for slot in after.slots} == {0, 1} and len(after.records) == len(plan(tmp_path, 2).runs)
    assert after.records[mine.run_id].metrics["coco/tr1"] == 77.25
    assert files(tmp_path / "out") != before


def test_runs_of_other_settings_never_replace_a_fuller_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = published(tmp_path, seeds=2)
    (mine, *_) = done(plan(tmp_path, 1, "pretrain.images=64"))
    record.write(mine, tmp_path / mine.run_id, [])
    code = sweep.main(arguments(tmp_path, "--set", "pretrain.images=64", "--collate"))
    assert code == EXIT_INCOMPLETE
    assert files(tmp_path / "out") == before
    said = capsys.readouterr().err
    assert f"holds {len(plan(tmp_path, 2).runs)} finished runs of Small table, of which" in said
    assert mine.run_id in publish.load(tmp_path / "records" / "small.jsonl").records


def test_other_rows_never_replace_as_many(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = plan(tmp_path, 1)
    for each in done(made):
        record.write(each, tmp_path / each.run_id, [])
    sweep.main(arguments(tmp_path, "--collate", "--only", "CLIP"))
    before = files(tmp_path / "out")
    sweep.main(arguments(tmp_path, "--collate", "--only", "LCL"))
    assert files(tmp_path / "out") == before and "are missing here" in capsys.readouterr().err


def test_settings_are_published_with_a_table_and_folders_are_not(tmp_path: Path) -> None:
    more = ("--set", "data.toyworld_redundancy=0.5", "--set", f"data.nocaps={tmp_path}", "--set", "slurm.partition=a")
    sweep.main(arguments(tmp_path, "--collate", *more))
    held = publish.load(tmp_path / "out" / "records" / "small.jsonl").settings
    assert held == {**parse(BUDGET), "data.toyworld_redundancy": "0.5"}


def test_one_more_seed_in_a_runs_folder_only_adds_to_cells(tmp_path: Path) -> None:
    published(tmp_path, seeds=3)
    before = publish.load(tmp_path / "out" / "records" / "small.jsonl")
    for each in done(plan(tmp_path, 4)):
        if each.seed == 3:
            record.write(each, tmp_path / each.run_id, [])
    assert sweep.main([*arguments(tmp_path, "--collate"), "--seeds", "4"]) == EXIT_DONE
    after = publish.load(tmp_path / "out" / "records" / "small.jsonl")
    assert set(before.slots) < set(after.slots) and {slot.seed for slot in after.slots} == {0, 1, 2, 3}
    assert {run_id: after.records[run_id] for run_id in before.records} == before.records
    cells = pd.read_csv(tmp_path / "out" / "tables" / "small.csv")
    assert set(cells["n"]) == {4}
    assert sweep.main(arguments(tmp_path, "--collate")) == EXIT_DONE, "and asked for fewer, none is lost"
    assert publish.load(tmp_path / "out" / "records" / "small.jsonl") == after


def test_names_of_an_older_version_are_refused_until_they_are_migrated(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = published(tmp_path, seeds=2)
    made, folder = plan(tmp_path, 2), tmp_path / "out" / "records"
    names = {record.run_id: f"{record.run_id.rpartition('-')[0]}-{spec_hash(record.resolved)}" for record in done(made)}
    text = (folder / "small.jsonl").read_text()
    old = [replace(each, run_id=names[each.run_id], spec=each.resolved, defaults={}) for each in done(made)]
    slots = tuple(replace(slot, run_id=names[slot.run_id]) for slot in made.slots[TABLE.name])
    held = replace(publish.load(folder / "small.jsonl"), slots=slots, records={each.run_id: each for each in old})
    publish.export(held, folder)
    assert curves.load(folder / "small.curves.csv.gz")
    curves.rename(folder / "small.curves.csv.gz", names)
    assert (folder / "small.jsonl").read_text() != text
    assert sweep.main(arguments(tmp_path)) == EXIT_USAGE
    assert "under the names of an older version" in capsys.readouterr().err
    assert sweep.main(arguments(tmp_path, "--migrate")) == EXIT_DONE
    assert files(tmp_path / "out") == before


def test_a_dry_run_prices_what_would_run_also_where_the_table_is_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    published(tmp_path, 1)
    runs = len(plan(tmp_path, 1).runs)
    assert sweep.main([*arguments(tmp_path), "--dry-run"]) == EXIT_DONE
    said = capsys.readouterr().out
    assert f"{runs} runs: {runs} to run" in said and f"price of {runs} runs, 0 reused" in said
