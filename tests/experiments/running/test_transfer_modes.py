"""Frozen and full transfer as runs; a head that is there is scored again and never trained again."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from plan_helpers import DIGESTS
from safetensors.torch import load_file, save_file
from sweep_helpers import BUDGET, CLIP, LCL, SMALL, TABLE, small_place

from data.batch import Split
from experiments.configuration.overrides import ConfigError, apply, parse
from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.configuration.typed import from_plain
from experiments.launching import preflight
from experiments.planning.catalogue import Suite
from experiments.planning.plan import Plan, build_plan
from experiments.planning.specs import PlannedRun, TransferSpec
from experiments.running import lifecycle, source
from experiments.running.stages import transfer
from experiments.running.stages.heads import Heads
from experiments.running.world import ENCODER_FILE
from results import record
from results.schema import Row, RunRecord, Status
from transfer import registry as tasks
from transfer.encoder import fingerprint

FULL = replace(CLIP, label="CLIP, full", mode="full")
WEIGHTS = {"encoder": "f1"}
pytestmark = pytest.mark.slow


def plan(place: Place, rows: Sequence[Row], *changes: str) -> Plan:
    table = replace(TABLE, rows=tuple(rows), cost_reference=rows[0].label)
    config = replace(apply(get_scale("tiny").config, parse([*BUDGET, *changes])), data=place.data)
    known = dict.fromkeys(DIGESTS, SMALL.folder_name)
    return build_plan([table], [0], get_scale("tiny"), preflight.with_precision(config), Suite(), known)


def do(place: Place, runs: Sequence[PlannedRun]) -> dict[str, RunRecord]:
    """Do runs that are not done; their records by task and mode."""
    found = {}
    for run in runs:
        run.written.save(place.runs / run.run_id)
        assert lifecycle.execute(run.run_id, place, "tiny") is Status.DONE, run.run_id
        if isinstance(run.spec, TransferSpec):
            found[f"{run.spec.task} {run.spec.mode}"] = record.read(place.runs / run.run_id / record.RECORD_FILE)
    return found


@pytest.fixture(scope="module")
def place(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return small_place(corpus.parent, tmp_path_factory.mktemp("modes") / "runs")


@pytest.fixture(scope="module")
def done(place: Place) -> dict[str, RunRecord]:
    return do(place, plan(place, [CLIP, FULL]).runs)


def test_full_transfer_changes_every_cell_and_leaves_the_encoder_s_file(
    place: Place, done: dict[str, RunRecord]
) -> None:
    for task in ("classify", "retrieve", "caption"):
        frozen, full = done[f"{task} frozen"], done[f"{task} full"]
        assert frozen.parent == full.parent and full.run_id.startswith(f"transfer-{task}-full-clip")
        assert full.resolved["recipe"]["pictures"] == "augmented" and frozen.resolved["recipe"]["pictures"] == "cached"
        assert full.images_seen == frozen.images_seen > 0
        curves = [(place.runs / r.run_id / "metrics.jsonl").read_text().splitlines() for r in (frozen, full)]
        assert all(json.loads(line)["grad_norm_vision"] > 0 for line in curves[1])
        assert not any("grad_norm_vision" in line for line in curves[0])
        assert not (place.runs / full.run_id / "features").exists()
    assert done["retrieve frozen"].metrics != done["retrieve full"].metrics


def test_a_head_that_is_there_is_scored_again_without_training(
    place: Place, done: dict[str, RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(transfer, "fit", refuse)
    again = do(place, plan(place, [CLIP, FULL], "transfer.caption.decoding.beams=5").runs)
    for mode in ("frozen", "full"):
        one, five = done[f"caption {mode}"], again[f"caption {mode}"]
        assert five.run_id != one.run_id and five.fitted_by == one.run_id and one.fitted_by == ""
        assert five.metrics["coco/decode_beams"] == 5 and one.metrics["coco/decode_beams"] == 1


def test_the_same_decoding_from_the_kept_head_gives_the_same_scores(place: Place, done: dict[str, RunRecord]) -> None:
    for mode in ("frozen", "full"):
        folder = place.runs / done[f"caption {mode}"].run_id
        lines = (folder / record.ITEMS_FILE).read_text()
        (folder / record.RECORD_FILE).unlink()
        assert lifecycle.execute(folder.name, place, "tiny") is Status.DONE
        again = record.read(folder / record.RECORD_FILE)
        assert again.fitted_by == "" and again.metrics == done[f"caption {mode}"].metrics
        assert (folder / record.ITEMS_FILE).read_text() == lines


def test_a_head_of_other_weights_or_of_its_own_other_source_is_not_taken(
    place: Place, done: dict[str, RunRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a user who mends an objective, or a task, removes: the folder of the run, whose name stays."""
    run = next(each for each in plan(place, [CLIP]).runs if getattr(each.spec, "task", "") == "classify")
    at = Place(runs=tmp_path, data=place.data)
    for name in (run.run_id, run.needs[0], "shared"):
        shutil.copytree(place.runs / name, tmp_path / name, symlinks=True)

    def again() -> int:
        (tmp_path / run.run_id / record.RECORD_FILE).unlink()
        (tmp_path / run.run_id / "metrics.jsonl").unlink(missing_ok=True)
        assert do(at, [run])["classify frozen"].fitted_by == ""
        return len(list((tmp_path / run.run_id).glob("metrics.jsonl")))

    assert again() == 0, "it was trained, and nothing has changed"
    file = tmp_path / run.needs[0] / ENCODER_FILE
    weights = load_file(file)
    save_file({name: tensor * 0.5 for name, tensor in weights.items()}, file)
    assert again() == 1 and again() == 0
    monkeypatch.setattr(source, "digests", lambda: {"transfer/classify.py": "mended"})
    assert again() == 1 and again() == 0


def test_what_training_depends_on_trains_another_head(place: Place, done: dict[str, RunRecord]) -> None:
    changed = plan(place, [CLIP], "transfer.classify.lr=1e-3")
    again = do(place, [run for run in changed.runs if getattr(run.spec, "task", "classify") == "classify"])
    assert (
        again["classify frozen"].fitted_by == "" and done["classify frozen"].run_id != again["classify frozen"].run_id
    )


def test_no_two_encoders_seeds_or_modes_share_a_head(place: Place, done: dict[str, RunRecord]) -> None:
    """What a run is fitted on is in the name of its head: encoder, training set, language model, seed, mode."""
    other = [run for run in plan(place, [LCL]).runs if getattr(run.spec, "task", "classify") == "classify"]
    found = do(place, other)["classify frozen"]
    assert found.fitted_by == "" and found.parent != done["classify frozen"].parent
    names = set()
    for run in plan(place, [CLIP, FULL]).runs:
        if isinstance(run.spec, TransferSpec) and run.spec.task == "caption":
            config = from_plain(tasks.get("caption").Config, run.spec.recipe, "caption")
            for inputs in ({}, {"encoder": "x"}, {"text_lm": "x"}, {"train": "x"}):
                spec = {**run.written.spec, "inputs": {**run.spec.inputs, **inputs}}
                names.add(Heads(place, replace(run.written, spec=spec), config, WEIGHTS).folder.name)
            names.add(
                Heads(place, replace(run.written, spec={**run.written.spec, "seed": 7}), config, WEIGHTS).folder.name
            )
            same = {**run.written.spec, "inputs": {**run.spec.inputs, "coco": "another test set"}}
            for other_weights in ({"encoder": "f2"}, {**WEIGHTS, "text_lm": "f3"}):
                names.add(Heads(place, run.written, config, other_weights).folder.name)
            names.add(Heads(place, replace(run.written, spec=same), config, WEIGHTS).folder.name)
    assert len(names) == 2 * 7  # a test set gives no new name


def test_a_frozen_encoder_reads_augmented_pictures_where_that_is_asked_for(place: Place) -> None:
    from experiments.running.world import load_encoder

    made = plan(place, [CLIP], "transfer.classify.pictures=augmented")
    runs = [run for run in made.runs if getattr(run.spec, "task", "classify") == "classify"]
    before = fingerprint(load_encoder(place, runs[0].run_id).module) if (place.runs / runs[0].run_id).exists() else None
    found = do(place, runs)["classify frozen"]
    assert found.unavailable["imagenet/acc1_standardised"] == "this probe is read from cached features only"
    assert before in (None, fingerprint(load_encoder(place, runs[0].run_id).module))


def test_settings_are_compared_on_held_out_training_images_and_never_on_a_test_set(
    place: Place, done: dict[str, RunRecord], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str, bool]] = []
    really = transfer.open_split

    def recorded(at: Place, name: str, training: bool) -> Split:
        opened.append((name, training))
        return really(at, name, training)

    monkeypatch.setattr(transfer, "open_split", recorded)
    runs = [run for run in plan(place, [CLIP], "transfer.classify.held_out=0.25").runs if "classify" in run.run_id]
    (found,) = do(place, runs).values()
    whole = done["classify frozen"]
    assert set(opened) == {("imagenet", True)} and found.run_id != whole.run_id
    assert {key.partition("/")[0] for key in found.metrics} == {"held_out"} and "held_out/acc1" in found.metrics
    assert "held_out=0.25: scored on held-out" in found.unavailable["imagenet/acc1"]
    images = really(place, "imagenet", training=True)
    assert found.items["held_out"] == round(0.25 * len(images)) and found.images_seen < whole.images_seen
    assert found.fitted_by == ""  # the head of the whole set has seen what is held out here


def test_settings_that_would_mean_nothing_are_refused(place: Place) -> None:
    with pytest.raises(
        ConfigError, match=r"transfer\.classify\.flip=0\.1 means nothing.*add --set .*pictures=augmented"
    ):
        plan(place, [CLIP], "transfer.classify.flip=0.1")
    with pytest.raises(ConfigError, match="full transfer changes the encoder at every step"):
        plan(place, [FULL], "transfer.classify.pictures=cached")
    made = plan(place, [CLIP, FULL], "full.classify.flip=0.1", "full.classify.vision.lr=3e-5")
    recipes = {run.spec.mode: run.spec.recipe for run in made.runs if getattr(run.spec, "task", "") == "classify"}
    assert recipes["full"]["flip"] == 0.1 and recipes["full"]["vision"]["lr"] == 3e-5
    assert (
        recipes["frozen"]
        == {
            run.spec.mode: run.spec.recipe
            for run in plan(place, [CLIP]).runs
            if getattr(run.spec, "task", "") == "classify"
        }["frozen"]
    )
