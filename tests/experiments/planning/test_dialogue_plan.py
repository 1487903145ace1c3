"""Dialogue as a task of tables: which runs a row needs, what they share, and what is refused."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from plan_helpers import DIGESTS, FakeCatalogue, without_details

from data.toyworld.dialogue import write_dialogue
from data.toyworld.spec import ToyDialogueSpec
from experiments.configuration import dialogue as configured
from experiments.configuration.corpora import digests, own_sets, with_embedded
from experiments.configuration.dialogue import embedded_dialogue
from experiments.configuration.overrides import ConfigError, apply, parse
from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.launching.dialogue import check_dialogue
from experiments.launching.machine import ordered
from experiments.planning.plan import Plan, build_plan
from experiments.planning.specs import DialogueSpec, TextLmSpec
from experiments.tables import TABLE4, TABLE10, TABLE11

_, PARTS = embedded_dialogue(0)


def plan(tables=(TABLE4,), scale="tiny", sets=(), data=None) -> Plan:
    chosen, catalogue = get_scale(scale), FakeCatalogue()
    config = apply(without_details(chosen.config), parse(sets), catalogue.config_class)
    return build_plan(tables, [0], chosen, config, catalogue, {**DIGESTS, **PARTS} if data is None else data)


def talks(made: Plan) -> dict[str, DialogueSpec]:
    return {run.run_id: run.spec for run in made.runs if isinstance(run.spec, DialogueSpec)}


def test_frozen_and_full_rows_share_the_first_stage_and_tables_4_and_11_all_that_is_frozen() -> None:
    made = plan((TABLE4, TABLE11))
    specs = list(talks(made).values())
    assert sum(spec.stage == "align" for spec in specs) == 4  # an encoder, not for the blind
    assert sorted(spec.mode for spec in specs if spec.stage == "tune") == ["blind", *["frozen"] * 4, *["full"] * 4]
    assert all(spec.benchmarks == ("gqa", "pope") for spec in specs if spec.stage == "tune")
    (shared,) = [run for run in made.runs if isinstance(run.spec, TextLmSpec)]
    assert all(spec.inputs["text_lm"] == shared.run_id for spec in specs)
    assert len(made.runs) == len(plan((TABLE4,)).runs)


def test_a_run_starts_after_those_it_goes_on_from() -> None:
    made = plan()
    for runs in (made.runs, ordered(made.runs)):
        place = {run.run_id: number for number, run in enumerate(runs)}
        for run in runs:
            assert all(place[parent] < place[run.run_id] for parent in run.needs)
            if isinstance(run.spec, DialogueSpec):
                names = ("encoder", "text_lm", "align")
                assert set(run.needs) == {run.spec.inputs[name] for name in names if name in run.spec.inputs}


def test_the_papers_scale_asks_for_a_named_model_and_for_eight_benchmarks() -> None:
    made = plan(scale="large14")
    assert {run.problem for run in made.runs if isinstance(run.spec, DialogueSpec) and run.spec.stage == "tune"} == {
        "data.llm is not set"
    }
    assert {run.spec.language for run in made.runs if isinstance(run.spec, DialogueSpec)} == {"llm"}
    here = {**DIGESTS, "llm": "vicuna 1", **{f"dialogue.{name}": name for name in ("align", "tune", "gqa", "mme")}}
    made = plan(scale="large14", data=here)
    assert {spec.benchmarks for spec in talks(made).values()} == {(), ("gqa", "mme")}  # those that are there
    assert not any(run.problem for run in made.runs)


def test_both_stages_read_the_same_layer() -> None:
    with pytest.raises(ConfigError, match=r"align.select_layer=-1 and dialogue.tune.select_layer=-2; set both"):
        plan(sets=["dialogue.tune.select_layer=-2"])
    both = plan(sets=["dialogue.tune.select_layer=-2", "dialogue.align.select_layer=-2"])
    assert talks(both).keys().isdisjoint(talks(plan()))


def test_columns_of_one_mode_are_asked_of_its_rows_alone() -> None:
    made = plan((TABLE10,))
    stages = {(slot.row, slot.stage) for slot in made.slots["table10"] if slot.stage != "pretrain"}
    assert ("CLIP", "classify") in stages and ("CLIP", "retrieve") in stages and ("CLIP", "caption") not in stages
    assert ("CLIP, full", "caption") in stages and ("CLIP, full", "retrieve") not in stages


def test_how_the_encoder_is_trained_renames_the_runs_that_train_it() -> None:
    before, after = talks(plan()), talks(plan(sets=["dialogue.tune.vision.lr=3e-5"]))
    assert [before[name].mode for name in before if name not in after] == ["full"] * 4


def test_a_stage_that_a_row_overrides_is_declared_and_any_other_difference_is_none() -> None:
    other = replace(TABLE4.rows[0], label="CLIP, twice", override={"dialogue.tune.epochs": 2.0})
    made = plan((replace(TABLE4, rows=(*TABLE4.rows, other)),))
    assert len(talks(made)) == len(talks(plan())) + 1


def test_a_table_prints_no_part_of_a_benchmark_under_its_name(tmp_path: Path) -> None:
    write_dialogue(tmp_path / "mine", ToyDialogueSpec(align=2, tune=2, test=2))
    config = replace(get_scale("large14").config.data, dialogue=tmp_path / "mine")
    place = Place(runs=tmp_path, data=config)
    found = digests(config)
    assert {key for key in found if key.startswith("dialogue.")} == {
        f"dialogue.{name}" for name in ("align", "tune", "gqa", "pope")
    }
    assert own_sets(config)["pope"] == ""  # the benchmark itself, as nothing else is let through
    made = plan(scale="large14", data={**DIGESTS, **found, "llm": "a model"})
    with pytest.raises(ConfigError, match=r"gqa holds 8 questions, gqa testdev_balanced has 12578; a"):
        check_dialogue(made.runs, place)
    check_dialogue([replace(run, used_by=()) for run in made.runs], place)


def test_the_embedded_dialogue_corpus_is_written_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configured, "ToyDialogueSpec", partial(ToyDialogueSpec, align=2, tune=2, test=2))
    config, known = with_embedded(get_scale("tiny").config, tmp_path, uses_it=True)
    assert config.data.dialogue is not None and not config.data.dialogue.exists()
    place = Place(runs=tmp_path, data=config.data)
    check_dialogue([], place)
    assert not config.data.dialogue.exists()
    check_dialogue(plan(data={**DIGESTS, **known}).runs, place)
    written = sorted(path.name for path in config.data.dialogue.iterdir())
    assert written == ["align.json", "gqa", "images", "pope", "tune.json"]
    check_dialogue(plan(data={**DIGESTS, **known}).runs, place)
