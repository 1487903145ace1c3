"""What ranks do in tests of the training loop: train LCL in float64 on their share of eight documents a step."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import torch
from helpers import batch_for
from rank_share import Shared
from rank_steps import held, objective, wide
from torch import nn
from torch.distributed.tensor import DTensor

from data.batch import Batch
from experiments.configuration.config import Algorithm
from experiments.configuration.distributed import Strategy
from experiments.running.distributed.sharding import shard
from experiments.running.fit import Cadence, NonFiniteLoss, Optimisation, fit
from experiments.running.optim import parameter_groups
from experiments.running.outcome import Owned
from experiments.running.progress import Progress
from experiments.running.stopping import Stopped
from objectives.gather import rank

STEPS = 20


class Documents:
    """The same documents in an order of each step's own; `at` calls something when a step's batch is asked for."""

    steps = STEPS

    def __init__(self, of: nn.Module, at: int = -1, event: str = "") -> None:
        self.of, self.at, self.event = of, at, event

    def state(self) -> None:
        return None

    def batches(self, start: int = 0) -> Iterator[Batch]:
        docs = held("lcl")
        for step in range(start, self.steps):
            batch = wide(batch_for(self.of, [docs[(i + step) % len(docs)] for i in range(len(docs))]), torch.float64)
            if step == self.at and rank() == 1:
                if self.event == "signal":
                    os.kill(os.getpid(), signal.SIGTERM)
                else:
                    batch.images.fill_(torch.nan)
            yield batch


def train(
    number: int,
    world: int,
    folder: str,
    matrices: Algorithm = "adamw",
    at: int = -1,
    event: str = "",
    micro_batch: int | None = None,
    strategy: Strategy = "ddp",
) -> dict[str, dict[str, torch.Tensor] | str]:
    """Weights after the run, and what ended it early. event: what happens to rank 1 at step `at`."""
    of, path = objective("lcl", torch.float64), Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if strategy == "fsdp2":
        shard(of)
    groups = parameter_groups(of, lr=1e-3, weight_decay=0.1, matrices=matrices)
    ended = ""
    try:
        fit(
            of, Shared(Documents(of, at, event)), groups, Optimisation(warmup_steps=3, clip_norm=1.0),
            run=Owned(path, Progress(path, "test"), may_write=lambda: None), seed=0,
            cadence=Cadence(log_every=1, checkpoint_seconds=1e9), micro_batch=micro_batch,
        )  # fmt: skip
    except (Stopped, NonFiniteLoss) as error:
        ended = f"{type(error).__name__}: {error}"
    return {"weights": {name: whole(p.detach()) for name, p in of.named_parameters()}, "ended": ended}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
