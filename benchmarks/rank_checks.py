"""What ranks owe one process, checked on this machine: on its GPUs over NCCL, and on its CPUs over gloo.

    python -m benchmarks.rank_checks

CLIP at the embedded size in float64 on made-up pairs that ranks hold unequally many of. Numbers are the largest
difference of any weight after ten steps of AdamW with clipped gradients from those of one process on the same device
that reads all pairs; the gather with gradients, the mean over ranks and the shards all enter it. Then the last rank is
killed, and the others say of whom they have lost, and when. NCCL wants a GPU for each rank: with fewer than two its
column says so.
"""

import argparse
import os
import platform
import signal
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import get_args

import torch
from torch import distributed as dist

from backbones.build import build_language, build_vision
from backbones.sizes import SIZES
from benchmarks.ranks import SPECIAL, pairs
from data.batch import Batch
from data.block import block
from experiments.configuration.distributed import Strategy
from experiments.running.distributed import gradients
from experiments.running.distributed.rendezvous import FIRST_PORT, PORTS, Seat, store_of
from experiments.running.distributed.roll_call import RankLost
from experiments.running.distributed.sharding import gathered, shard
from experiments.running.distributed.together import together
from experiments.running.optim import optimizers, parameter_groups
from experiments.running.training import device
from objectives.clip import CLIP
from objectives.functional import total
from objectives.gather import alone

STEPS, PAIRS = 10, 9
LIMIT = timedelta(seconds=20)
Found = dict[str, str]  # by check


def objective() -> CLIP:
    """The same on every call and rank: float64, on the device of this process."""
    torch.manual_seed(0)
    made = CLIP(CLIP.Config(), build_vision(SIZES["tiny"], 0), build_language(SIZES["tiny"], 512, 0), SPECIAL)
    return made.double().to(device())


def train(of: CLIP, batch: Batch) -> None:
    """STEPS steps on one batch."""
    (optimizer,) = optimizers(parameter_groups(of, lr=1e-3, weight_decay=0.1, matrices="adamw"), (0.9, 0.95), 1e-6)
    trained = list(of.parameters())
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        total(of(batch)).backward()
        gradients.average(trained)
        gradients.clip(trained, 1.0)
        optimizer.step()
        of.after_step()


def apart(strategy: Strategy, own: Batch, whole: Batch) -> float:
    """How far the weights of ranks that hold `own` end from those of one process that holds `whole`; rank 0 knows."""
    of, one = objective(), objective()
    if strategy == "fsdp2":
        shard(of)
    train(of, own)
    with alone():
        train(one, whole)
    expected = one.state_dict()
    weights = gathered(of.state_dict())
    return max((float((each - expected[name].cpu()).abs().max()) for name, each in weights.items()), default=0.0)


def check(answer: Connection, seat: Seat) -> None:
    """Answers what this rank found, by check. Rank 0 knows all of it; the last rank is killed at the end."""
    torch.set_num_threads(1)
    noise = pairs(PAIRS, 0).to(device())
    whole = replace(noise, images=noise.images.double())
    shares = {
        "shares that differ by one pair": block(whole, seat.rank, seat.ranks),
        "all pairs on rank 0": whole if seat.rank == 0 else block(whole, 0, PAIRS + 1),
    }
    found: Found = {}
    try:
        with together(seat, store_of(seat, LIMIT), LIMIT):
            for strategy in get_args(Strategy):
                for name, own in shares.items():
                    found[f"{strategy}, {name}"] = f"{apart(strategy, own, whole):.1e}"
            dist.barrier()
            began = time.monotonic()
            if seat.rank == seat.ranks - 1:
                os.kill(os.getpid(), signal.SIGKILL)
            dist.all_reduce(torch.ones(1, device=device()))
    except RankLost as lost:
        found["the last rank is killed"] = f"{lost}; said after {time.monotonic() - began:.0f} s"
    answer.send(found)
    answer.close()
    os._exit(0)  # a group that lost a rank has no orderly end


def ask(ranks: int, port: int) -> Found:
    """What rank 0 of so many finds. Raises RuntimeError where it ends without an answer."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    context, pipes = get_context("spawn"), []  # a CUDA context does not survive a fork
    for rank in range(ranks):
        ours, theirs = context.Pipe(duplex=False)
        context.Process(target=check, args=(theirs, Seat(rank, ranks, rank, "127.0.0.1", port))).start()
        theirs.close()
        pipes.append(ours)
    try:
        found: Found = pipes[0].recv()
    except EOFError:
        raise RuntimeError(f"rank 0 of {ranks} ended without an answer; its error is above") from None
    return found


def main() -> int:
    """Run the command line."""
    argparse.ArgumentParser("python -m benchmarks.rank_checks", description=__doc__.partition("\n")[0]).parse_args()
    gpus, port = torch.cuda.device_count(), FIRST_PORT + os.getpid() % PORTS
    columns: dict[str, Found] = {}
    if gpus > 1:
        columns[f"nccl, {gpus} GPUs"] = ask(gpus, port)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    columns["gloo, 2 processes"] = ask(2, port + 1)
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if gpus else "none"
    name = torch.cuda.get_device_name() if gpus else platform.processor() or platform.machine()
    print(f"{datetime.now(UTC):%Y-%m-%d}; {gpus} GPUs, {name}; torch {torch.__version__}, NCCL {nccl}")
    if gpus < 2:
        print(f"not checked: NCCL, which wants a GPU for each of two ranks, and this machine has {gpus}")
    print("| largest difference of a weight from one process | " + " | ".join(columns) + " |")
    print("| --- |" + " --- |" * len(columns))
    for row in next(iter(columns.values())):
        print(f"| {row} | " + " | ".join(found[row] for found in columns.values()) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
