"""One run on several ranks: one process's weights, steps that end together, checkpoints for any number of ranks."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from rank_fit import train
from ranks import Ranks

from experiments.configuration.distributed import Strategy

pytestmark = pytest.mark.slow
Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Weights]:
    """Twenty steps of one process that reads whole batches: its folder and its weights."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, train(0, 1, str(folder))["weights"]


@pytest.fixture
def alone(one: tuple[Path, Weights]) -> Weights:
    return one[1]


def furthest(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_twenty_adamw_steps_on_two_ranks_end_with_the_weights_of_one_process(
    ranks: Ranks, alone: Weights, tmp_path: Path
) -> None:
    found = ranks(train, 2, str(tmp_path))
    assert furthest(found[0]["weights"], found[1]["weights"]) == 0
    assert furthest(found[0]["weights"], alone) < 1e-8
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(20))  # written once, by rank 0


def test_steps_in_parts_end_with_the_weights_of_whole_ones(ranks: Ranks, alone: Weights, tmp_path: Path) -> None:
    one = train(0, 1, str(tmp_path / "one"), "adamw", -1, "", 3)
    assert furthest(one["weights"], alone) < 1e-8
    two = ranks(train, 2, str(tmp_path / "two"), "adamw", -1, "", 3)
    assert furthest(two[0]["weights"], alone) < 1e-8
    means = [[json.loads(line)["contrast"] for line in (tmp_path / n / "metrics.jsonl").open()] for n in ("one", "two")]
    assert means[0] == pytest.approx(means[1], rel=1e-6)


def test_a_signal_to_one_rank_stops_all_at_its_step_and_any_number_of_ranks_continues(
    ranks: Ranks, alone: Weights, tmp_path: Path
) -> None:
    for number in (1, 3):
        folder = tmp_path / str(number)
        stopped = ranks(train, 2, str(folder), "adamw", 6, "signal")
        assert {each["ended"] for each in stopped} == {"Stopped: stopped by SIGTERM on rank 1 after step 7 of 20"}
        assert furthest(stopped[0]["weights"], alone) > 1e-5
        for continued in ranks(train, number, str(folder)):
            assert furthest(continued["weights"], alone) < 1e-8


def test_sharded_weights_end_as_those_of_one_process(ranks: Ranks, one: tuple[Path, Weights], tmp_path: Path) -> None:
    found = ranks(train, 2, str(tmp_path), "adamw", -1, "", None, "fsdp2")
    assert furthest(found[0]["weights"], found[1]["weights"]) == 0
    assert furthest(found[0]["weights"], one[1]) < 1e-8
    logged, expected = ([json.loads(line) for line in (f / "metrics.jsonl").open()] for f in (tmp_path, one[0]))
    for norm in ("grad_norm", "grad_norm_vision"):
        assert [row[norm] for row in logged] == pytest.approx([row[norm] for row in expected], rel=1e-5)
    assert max(row["grad_norm"] for row in expected) > 1  # so they were clipped


def test_a_checkpoint_knows_nothing_of_shards(ranks: Ranks, alone: Weights, tmp_path: Path) -> None:
    ways: list[tuple[Strategy, list[tuple[Strategy, int]]]] = [
        ("fsdp2", [("fsdp2", 3), ("ddp", 1)]),
        ("ddp", [("fsdp2", 2)]),
    ]
    for first, continued in ways:
        saved = tmp_path / first
        stopped = ranks(train, 2, str(saved), "adamw", 15, "signal", None, first)
        assert {each["ended"] for each in stopped} == {"Stopped: stopped by SIGTERM on rank 1 after step 16 of 20"}
        for then, number in continued:
            folder = shutil.copytree(saved, tmp_path / f"{first}-{then}-{number}")
            found = ranks(train, number, str(folder), "adamw", -1, "", None, then)
            assert max(furthest(each["weights"], alone) for each in found) < 1e-8, (first, then, number)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_the_optimiser_moves(
    ranks: Ranks, tmp_path: Path, strategy: Strategy
) -> None:
    signal = ("adamw", 2, "signal", None, strategy)
    before = ranks(train, 2, str(tmp_path / "fine"), *signal)[0]["weights"]  # after steps 0, 1 and 2
    ended = ranks(train, 2, str(tmp_path / "nan"), "adamw", 3, "nan", None, strategy)
    for each in ended:
        assert each["ended"].startswith("NonFiniteLoss: step 3: loss nan on rank 0 and 1")  # the contrast spreads it
        assert furthest(each["weights"], before) == 0
    dumped = json.loads((tmp_path / "nan" / "non_finite.json").read_text())
    assert dumped["step"] == 3 and [len(each["documents"]) for each in dumped["ranks"]] == [4, 4]
    assert not any(map(lambda each: each["terms"] == {}, dumped["ranks"]))


def test_muon_orthogonalises_whole_matrices_on_every_rank(ranks: Ranks, tmp_path: Path) -> None:
    one = train(0, 1, str(tmp_path / "one"), "muon")["weights"]
    two = ranks(train, 2, str(tmp_path / "two"), "muon")
    assert furthest(two[0]["weights"], two[1]["weights"]) == 0
    # Not 1e-8: torch's Muon orthogonalises in bf16, which rounds gradients that differ in the last bit apart.
    assert furthest(two[0]["weights"], one) < 1e-3
