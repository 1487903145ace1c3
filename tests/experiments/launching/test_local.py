"""Which GPUs the processes of a local sweep see: those the user has given it, shared out evenly."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from experiments.configuration.distributed import DistributedConfig
from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.launching import local
from experiments.launching.machine import Machine
from experiments.launching.worker import Worker


@dataclass
class Started:
    """Stands for a process."""

    gpus: tuple[str, ...]
    run: None = None


@pytest.mark.parametrize(
    ("given", "count", "together", "seen"),
    [
        (None, 2, 1, [("0",), ("1",), ("0",)]),
        ("2,3", 2, 1, [("2",), ("3",), ("2",)]),
        (" GPU-8f, MIG-1/2/3", 2, 1, [("GPU-8f",), ("MIG-1/2/3",), ("GPU-8f",)]),
        ("7,5,3,1", 4, 2, [("7", "5"), ("3", "1"), ("7", "5")]),
        ("5,-1,6", 1, 1, [("5",), ("5",), ("5",)]),  # CUDA sees none after one that is not there
        ("", 0, 1, [(), (), ()]),
        (None, 0, 1, [(), (), ()]),
    ],
)
def test_workers_share_the_gpus_the_sweep_sees(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: str | None,
    count: int,
    together: int,
    seen: list[tuple[str, ...]],
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.setattr(Worker, "start", lambda machine, log, gpus: Started(gpus))
    place = Place(runs=tmp_path, data=get_scale("tiny").config.data)
    machine = Machine(place=place, scale="tiny", workers=3, threads=1, distributed=DistributedConfig(ranks=together))
    workers: list[Worker] = []
    sweep = local._Sweep([], machine, tmp_path, workers)
    for _ in range(4):
        sweep._start()
    assert [worker.gpus for worker in workers] == seen
