"""A run that several processes do: one owner, one record, one process's encoder; killed, any number of them go on."""

import functools
import math
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from sweep_helpers import BUDGET, plan_pretraining, small_place

from experiments.configuration.distributed import ALONE, DistributedConfig, Strategy
from experiments.configuration.place import Place
from experiments.running import attempts, fit
from experiments.running.distributed import members
from experiments.running.fit import Cadence
from experiments.running.lifecycle import execute
from experiments.running.stages import pretrain
from experiments.running.stopping import Stopped
from experiments.running.world import ENCODER_FILE
from objectives.registry import get
from results import record
from results.schema import Row, RunRecord, Status

pytestmark = pytest.mark.slow
CHANGES = (*BUDGET, "pretrain.optim.matrices=adamw")  # torch's Muon computes in bf16, which 1e-5 is beyond
TWO = DistributedConfig(ranks=2, limit_seconds=60)
After = Callable[[int, Callable[[], None]], None]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> dict[int, int]:
    """Process ids of the other ranks, once they are started; each step saves a checkpoint."""
    monkeypatch.setattr(
        pretrain, "Cadence", lambda: Cadence(log_every=1, checkpoint_seconds=0.0, checkpoint_share=math.inf)
    )
    pids: dict[int, int] = {}
    start = members._Others.start

    def noted(self: Any, seat: Any, work: Any) -> None:
        start(self, seat, work)
        pids[seat.rank] = self.processes[seat.rank].pid

    monkeypatch.setattr(members._Others, "start", noted)
    return pids


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> After:
    """Does something once, after rank 0 has done a step."""

    def once(number: int, event: Callable[[], None]) -> None:
        original, left = fit._step, [number]

        def step(*arguments: Any) -> Any:
            result = original(*arguments)
            if left == [arguments[-1]]:
                left.clear()
                event()
            return result

        monkeypatch.setattr(fit, "_step", step)

    return once


def planned(corpora: Path, runs: Path, name: str) -> tuple[Place, str]:
    place = small_place(corpora, runs, CHANGES)
    data = "mmc4-pair" if get(name).reads == "pairs" else "mmc4"
    return place, plan_pretraining(place, Row(label=name, objective=name, data=data), CHANGES)


def result(place: Place, run_id: str) -> tuple[RunRecord, dict[str, torch.Tensor]]:
    return record.read(place.runs / run_id / record.RECORD_FILE), load_file(place.runs / run_id / ENCODER_FILE)


def done(place: Place, run_id: str, distributed: DistributedConfig) -> tuple[RunRecord, dict[str, torch.Tensor]]:
    assert execute(run_id, place, "tiny", distributed=distributed) is Status.DONE, record.read(
        place.runs / run_id / record.RECORD_FILE
    ).reason
    return result(place, run_id)


Result = tuple[RunRecord, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def single(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Result]:
    """What one process leaves of an objective."""
    return functools.cache(lambda name: done(*planned(corpora, tmp_path_factory.mktemp(name), name), ALONE))


# BEiT-3 fits a codebook before its first step.
@pytest.mark.parametrize(("name", "strategy"), [("lcl", "ddp"), ("lcl", "fsdp2"), ("beit3", "fsdp2")])
def test_two_processes_leave_the_encoder_and_the_record_of_one(
    tmp_path: Path, corpora: Path, single: Callable[[str], Result], name: str, strategy: Strategy
) -> None:
    one, weights = single(name)
    two, shared = done(*planned(corpora, tmp_path / "two", name), replace(TWO, strategy=strategy))
    torch.testing.assert_close(shared, weights, atol=1e-5, rtol=1e-5)
    assert two.run_id == one.run_id and two.coverage == one.coverage and two.images_seen == one.images_seen
    assert two.lm_passes == one.lm_passes
    assert two.train_flops == pytest.approx(one.train_flops, rel=0.1)  # rows are padded to the longest of a rank
    assert {"ranks", "strategy"} & one.env.keys() == set()
    assert (two.env["ranks"], two.env["strategy"]) == ("2", strategy)
    assert one.busy_seconds and two.busy_seconds is None
    assert one.process_seconds == one.seconds and two.process_seconds == 2 * two.seconds


def test_a_rank_that_is_killed_is_named_and_one_process_continues(
    tmp_path: Path, corpora: Path, single: Callable[[str], Result], other: dict[int, int], after: After
) -> None:
    _, weights = single("lcl")
    place, run_id = planned(corpora, tmp_path / "two", "lcl")
    after(1, lambda: os.kill(other[1], signal.SIGKILL))
    assert execute(run_id, place, "tiny", distributed=replace(TWO, strategy="fsdp2")) is Status.FAILED
    failed = record.read(place.runs / run_id / record.RECORD_FILE)
    assert failed.reason == "RankLost: rank 1 was killed by SIGKILL (out of memory?)"
    _, continued = done(place, run_id, ALONE)
    torch.testing.assert_close(continued, weights, atol=1e-5, rtol=1e-5)
    assert attempts.every(place.runs / run_id)[-1].from_step > 0


def test_a_signal_to_another_rank_stops_the_run_at_a_step_of_all(
    tmp_path: Path, corpora: Path, other: dict[int, int], after: After
) -> None:
    place, run_id = planned(corpora, tmp_path, "lcl")
    after(0, lambda: os.kill(other[1], signal.SIGTERM))
    with pytest.raises(Stopped, match=r"stopped by SIGTERM on rank 1 after step \d of 3"):
        execute(run_id, place, "tiny", distributed=TWO)
    assert attempts.newest(place.runs / run_id).ended == "stopped"
