"""Pre-training through `lifecycle.execute`, on a very small corpus: exact continuation, and equal footing."""

import json
import signal
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sweep_helpers import BUDGET, small_place
from sweep_helpers import plan_pretraining as plan

from data.batch import Batch
from data.loading import held_out
from data.loading.loader import Loader
from experiments.configuration.place import Place
from experiments.running import fit, lifecycle, outcome
from experiments.running.fit import Cadence, Stopped
from experiments.running.lifecycle import execute
from experiments.running.stages import pretrain
from experiments.running.world import ENCODER_FILE
from objectives.registry import available, get
from results import provenance, record
from results.schema import Row, Status

SIX_STEPS = tuple(change for change in BUDGET if not change.startswith("pretrain.images")) + (
    "pretrain.images=90",  # the last step is shorter
    "pretrain.images_per_step=16",
)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


def row(name: str) -> Row:
    return Row(label=name, objective=name, data="mmc4-pair" if get(name).reads == "pairs" else "mmc4")


def files(place: Place, run_id: str) -> tuple[bytes, bytes]:
    folder = place.runs / run_id
    return (folder / ENCODER_FILE).read_bytes(), (folder / "metrics.jsonl").read_bytes()


def done(place: Place, run_id: str) -> record.RunRecord:
    status = execute(run_id, place, "tiny")
    found = record.read(place.runs / run_id / record.RECORD_FILE)
    assert status is found.status is Status.DONE, found.reason
    return found


class StopAfter:
    """Asks the run to stop after each of these steps, as a signal does."""

    def __init__(self, patch: pytest.MonkeyPatch, steps: set[int]) -> None:
        original = fit._step

        def step(*arguments: Any) -> Any:
            result = original(*arguments)
            if arguments[-1] in steps:
                steps.remove(arguments[-1])
                signal.raise_signal(signal.SIGTERM)
            return result

        patch.setattr(fit, "_step", step)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lcl", "clip", "beit3"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(pretrain, "Cadence", lambda: Cadence(log_every=1))
    whole, parts = (small_place(corpora, tmp_path / which, SIX_STEPS) for which in ("whole", "parts"))
    run_id = plan(whole, row(name), SIX_STEPS)
    assert plan(parts, row(name), SIX_STEPS) == run_id
    expected = done(whole, run_id)
    StopAfter(monkeypatch, {1, 4})
    for _ in range(2):
        with pytest.raises(Stopped):
            execute(run_id, parts, "tiny")
        assert not (parts.runs / run_id / record.RECORD_FILE).exists()
        torch.rand(5)  # another process has drawn other numbers
    found = done(parts, run_id)
    assert files(parts, run_id) == files(whole, run_id)
    for each in ("metrics", "images_seen", "lm_passes", "train_flops", "coverage", "data_digest"):
        assert getattr(found, each) == getattr(expected, each), each
    assert expected.busy_seconds and found.busy_seconds is None  # what the first two attempts were at work, none knows
    assert not (parts.runs / run_id / "checkpoint").exists()


@pytest.fixture(scope="module")
def every_objective(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Three steps of every objective: its record, the vision weights it began with and the documents it read."""
    place = small_place(corpora, tmp_path_factory.mktemp("runs"))
    seen: dict[str, dict[str, Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        build, batches, once = pretrain.build_vision, Loader.batches, Loader.once
        current: dict[str, Any] = {}

        def build_and_look(*arguments: Any) -> Any:
            vision = build(*arguments)
            current["vision"] = {name: tensor.clone() for name, tensor in vision.state_dict().items()}
            return vision

        def look(self: Loader, start: Any = 0) -> Iterator[Batch]:
            current["uids"] = uids = []  # of the latest iteration: training comes last
            for batch in batches(self, start):
                uids.append(batch.doc_uid)
                yield batch

        def look_once(self: Loader, images: int) -> Batch | None:
            current["probe"] = once(self, images)
            return current["probe"]

        patch.setattr(pretrain, "build_vision", build_and_look)
        patch.setattr(Loader, "batches", look)
        patch.setattr(Loader, "once", look_once)
        for name in available():
            current.clear()
            run_id = plan(place, row(name))
            found = done(place, run_id)
            seen[name] = {**current, "record": found, "rows": _rows(place, run_id)}
    return seen


def _rows(place: Place, run_id: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (place.runs / run_id / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_every_objective_trains_and_says_what_it_cost(every_objective: dict[str, dict[str, Any]]) -> None:
    for name, seen in every_objective.items():
        found = seen["record"]
        assert found.lm_passes == get(name).lm_passes, name
        assert found.images_seen == found.coverage["images"] == 48, name
        assert found.train_flops > 0, name
        assert [row["step"] for row in seen["rows"]] == [0, 1, 2], name


@pytest.mark.slow
def test_every_row_starts_from_the_same_encoder(every_objective: dict[str, dict[str, Any]]) -> None:
    first = every_objective["clip"]["vision"]
    for name, seen in every_objective.items():
        assert seen["vision"].keys() == first.keys(), name
        assert all(torch.equal(seen["vision"][key], first[key]) for key in first), name


@pytest.mark.slow
@pytest.mark.parametrize("reads", ["pairs", "documents"])
def test_rows_on_one_corpus_see_the_same_documents_in_the_same_steps(
    every_objective: dict[str, dict[str, Any]], reads: str
) -> None:
    orders = {name: seen["uids"] for name, seen in every_objective.items() if get(name).reads == reads}
    assert len(orders) > 2
    first = next(iter(orders.values()))
    assert len(first) == 3 and all(first)
    for name, order in orders.items():
        assert order == first, name


def pages(uids: Iterable[str]) -> set[str]:
    return {uid.partition("#")[0] for uid in uids}


@pytest.mark.slow
def test_every_row_is_probed_with_the_same_images_which_none_trains_on(
    every_objective: dict[str, dict[str, Any]],
) -> None:
    first = every_objective["clip"]["probe"]
    trained = set().union(*(pages(sum(seen["uids"], ())) for seen in every_objective.values()))
    assert len(first.images) > 2 and trained
    for name, seen in every_objective.items():
        assert torch.equal(seen["probe"].images, first.images), name
        assert pages(seen["probe"].doc_uid).isdisjoint(trained), name
        assert seen["rows"][-1]["probe_mean_cosine"] <= 1, name
    assert "probe_visual_use_shuffled" in every_objective["lcl"]["record"].metrics


@pytest.mark.slow
def test_a_corpus_too_small_to_be_probed_trains_and_says_so(
    tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out, "SHARE", 61)
    place = small_place(corpora, tmp_path)
    found = done(place, plan(place, row("clip")))
    assert not any(name.startswith("probe") for name in found.metrics)
    assert "holds out 0 of" in found.unavailable["probe"]


@pytest.mark.slow
def test_another_seed_has_another_encoder_and_another_order(tmp_path: Path, corpora: Path) -> None:
    place = small_place(corpora, tmp_path)
    one, two = (plan(place, row("clip"), seed=seed) for seed in (0, 1))
    assert one != two
    done(place, one)
    done(place, two)
    assert files(place, one)[0] != files(place, two)[0]
    assert _rows(place, one)[0] != _rows(place, two)[0]


def test_the_initial_encoder_is_written_without_training(tmp_path: Path, corpora: Path) -> None:
    from backbones.build import build_vision
    from backbones.sizes import SIZES
    from experiments.running.world import load_encoder

    place = small_place(corpora, tmp_path)
    run_id = plan(place, Row(label="Random", objective=None, data="mmc4", control=True), seed=4)
    found = done(place, run_id)
    assert found.images_seen == found.lm_passes == found.train_flops == 0
    encoder, fresh = load_encoder(place, run_id).module.state_dict(), build_vision(SIZES["tiny"], 4).state_dict()
    assert all(torch.equal(encoder[name], fresh[name]) for name in fresh)


def test_a_finished_run_is_not_run_again(tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = small_place(corpora, tmp_path)
    run_id = plan(place, Row(label="Random", objective=None, data="mmc4", control=True))
    first = done(place, run_id)
    monkeypatch.setattr(pretrain, "build_vision", None)  # would fail
    assert done(place, run_id) == first


def test_a_failure_is_recorded_with_its_reason(tmp_path: Path, corpora: Path) -> None:
    place = small_place(corpora, tmp_path)
    run_id = plan(place, row("clip"))
    gone = replace(place, data=replace(place.data, mmc4=tmp_path / "nowhere"))
    assert execute(run_id, gone, "tiny") is Status.FAILED
    found = record.read(place.runs / run_id / record.RECORD_FILE)
    assert found.status is Status.FAILED and "nowhere does not exist" in found.reason
    assert not found.metrics and not found.images_seen


def test_a_metric_that_is_not_finite_is_unavailable_and_the_run_is_not_lost(
    tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = small_place(corpora, tmp_path)
    run_id = plan(place, Row(label="Random", objective=None, data="mmc4", control=True))
    metrics = {"rankme": float("nan"), "std_ratio": 0.5}
    monkeypatch.setitem(lifecycle._RUNNERS, "pretrain", lambda *_: outcome.Outcome(metrics=metrics))
    found = done(place, run_id)
    assert found.metrics == {"std_ratio": 0.5} and found.unavailable == {"rankme": "it is nan"}


def test_a_record_names_the_commit_the_run_began_with(
    tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = small_place(corpora, tmp_path)
    run_id = plan(place, Row(label="Random", objective=None, data="mmc4", control=True))
    commits = ["a" * 40]
    lifecycle._code.cache_clear()
    monkeypatch.setattr(provenance, "revision", lambda root: provenance.Revision(commits[-1], False))

    def work(*_: object) -> outcome.Outcome:
        commits.append("b" * 40)  # somebody commits while the run is at work
        return outcome.Outcome()

    monkeypatch.setitem(lifecycle._RUNNERS, "pretrain", work)
    found = done(place, run_id)
    lifecycle._code.cache_clear()
    assert found.commit == "a" * 40
