"""A process group around a piece of work: this process is one of the ranks that do it, or fails with all of them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from torch import distributed as dist
from torch.distributed import PrefixStore, TCPStore  # type: ignore[attr-defined]

from experiments.running.distributed.rendezvous import Seat, gather
from experiments.running.distributed.roll_call import Gone, RankLost, RollCall
from experiments.running.stopping import Stopped


@contextmanager
def together(seat: Seat, store: TCPStore, limit: timedelta, gone: Gone = lambda rank: "") -> Iterator[None]:
    """Inside, this process is a rank among the others; all of them end the block, or none does.

    gone: of rank 0, how the process of another rank has ended (roll_call.py).

    Raises RanksMissing where one does not come, RankLost naming the rank that failed, was killed or hung within the
    limit, Stopped where another rank was asked to stop before its steps. An error of this rank passes through.
    """
    gather(store, seat, limit)
    call = RollCall(store, seat, limit, gone)
    try:
        _join(seat, store, limit)
        yield
        dist.barrier()  # whoever gets here knows that all have done their work
    except BaseException as error:
        verdict = call.say(error)
        call.farewell()
        if isinstance(verdict, Stopped):
            raise verdict from error
        if verdict is not None:
            raise RankLost(verdict) from error
        raise
    call.farewell()
    dist.destroy_process_group()


def _join(seat: Seat, store: TCPStore, limit: timedelta) -> None:
    backend = "gloo"
    if torch.cuda.is_available():
        if 1 < torch.cuda.device_count() <= seat.local_rank:
            raise ValueError(
                f"rank {seat.rank} is number {seat.local_rank} of its node, which shows it {torch.cuda.device_count()} "
                "GPUs; lower distributed.ranks_per_node, or ask for more GPUs"
            )
        # Where a scheduler shows each rank one GPU, that is its own; NCCL refuses two ranks on one.
        torch.cuda.set_device(seat.local_rank % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
        os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"  # or a time limit would end the process before it can say so
    dist.init_process_group(
        backend, store=PrefixStore("group", store), rank=seat.rank, world_size=seat.ranks, timeout=limit
    )
