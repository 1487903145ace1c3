"""A run keeps its result when names change: it is found by its settings, and by nothing less."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plan_helpers import DIGESTS, PAPERS_TABLE1, FakeCatalogue, record_of, without_details

from experiments.configuration.recipe import get_scale
from experiments.planning.migrate import rename_folders, renamed
from experiments.planning.plan import build_plan
from experiments.planning.specs import PlannedRun, load_spec
from results.canonical import merge, run_id
from results.record import load_all, write
from results.schema import RunRecord, Status


def planned() -> tuple[PlannedRun, ...]:
    scale = get_scale("tiny")
    return build_plan([PAPERS_TABLE1], [0], scale, without_details(scale.config), FakeCatalogue(), DIGESTS).runs


def older(runs: tuple[PlannedRun, ...]) -> list[RunRecord]:
    """The runs as a version wrote them that hashed every setting and did not know the newest one."""
    names: dict[str, str] = {}
    made = []
    for run in runs:
        spec: dict[str, Any] = merge(run.written.spec, run.written.defaults)
        spec["inputs"] = {key: names.get(value, value) for key, value in spec["inputs"].items()}
        if spec["kind"] == "transfer":
            del spec["recipe"]["warmup"]
        old = run_id(run.kind.value, run.spec.label, spec)
        names[run.run_id] = old
        parent = spec["inputs"].get("encoder")
        made.append(replace(record_of(run, {}), run_id=old, spec=spec, defaults={}, parent=parent, seconds=len(made)))
    return made


def test_every_run_is_found_under_the_name_it_had() -> None:
    runs = planned()
    before = older(runs)
    kept = {run.run_id for run in runs} & {record.run_id for record in before}
    assert {name.rpartition("-")[0] for name in kept} == {
        "pretrain-initial-s0",
        "text_lm-mmc4-s0",
    }  # nothing to leave out
    made = renamed(runs, before)
    by_name = {record.run_id: made.get(record.run_id, record) for record in before}
    assert [found.run_id for found in by_name.values()] == [run.run_id for run in runs]
    by_name = {found.run_id: found for found in by_name.values()}
    for number, run in enumerate(runs):
        found = by_name[run.run_id]
        assert found.seconds == number and found.resolved == run.plain
        assert found.parent == run.plain["inputs"].get("encoder")
    assert renamed(runs, by_name.values()) == {}, "names that are planned already stay"


@pytest.mark.parametrize(("label", "found"), [("frozen-cached", 1), ("augmented", 0)])
def test_a_setting_nobody_could_choose_may_be_gone_with_the_value_every_run_had(label: str, found: int) -> None:
    runs = planned()
    classify = next(run for run in runs if run.spec.label.startswith("classify"))
    spec = merge(classify.written.spec, classify.written.defaults)
    spec["recipe"]["label"] = label
    name = run_id(classify.kind.value, classify.spec.label, spec)
    record = replace(record_of(classify, {}), run_id=name, spec=spec, defaults={})
    assert len(renamed(runs, [record])) == found


@pytest.mark.parametrize("change", ["another value", "a setting that is gone", "not finished", "new and not default"])
def test_a_run_of_other_settings_is_no_such_run(change: str) -> None:
    runs = planned()
    clip = next(run for run in runs if run.spec.label.startswith("clip"))
    spec = merge(clip.written.spec, clip.written.defaults)
    record = replace(record_of(clip, {}), spec=spec, defaults={})
    if change == "another value":
        spec["images"] += 1
    elif change == "a setting that is gone":
        spec["data"]["quality"] = 7
    elif change == "not finished":
        record = replace(record, status=Status.FAILED, reason="it broke")
    else:
        del spec["images_per_step"]  # has no default: what an old run did is not known
    record = replace(record, run_id=run_id(clip.kind.value, clip.spec.label, {**spec, "old": True}))
    assert renamed(runs, [record]) == {}


def test_folders_get_the_names_and_an_interrupted_migration_is_finished(tmp_path: Path) -> None:
    runs = planned()
    before = older(runs)
    for record in before:
        write(record, tmp_path / record.run_id, [{"item_id": "a"}])
        (tmp_path / record.run_id / "encoder.safetensors").write_text(record.run_id)
    made = renamed(runs, before)
    first, second = before[:2]
    write(made[first.run_id], tmp_path / first.run_id)  # killed before the folder was renamed
    assert rename_folders(tmp_path, made) == len(made) == 36
    records, problems = load_all(tmp_path)
    assert not problems and {record.run_id for record in records} == {run.run_id for run in runs}
    for record in made:
        folder = tmp_path / made[record].run_id
        assert (folder / "encoder.safetensors").read_text() == record
        assert json.loads((folder / "items.jsonl").read_text()) == {"item_id": "a"}
    (run,) = [run for run in runs if run.run_id == made[second.run_id].run_id]
    assert load_spec(tmp_path / run.run_id) == run.spec
