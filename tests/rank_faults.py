"""Ranks that fail, as processes of their own: forked, because some of them are killed."""

import json
import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed as dist

from experiments.running.distributed.rendezvous import FREE_PORT, Seat, store_of
from experiments.running.distributed.together import together
from experiments.running.stopping import Stopped

HERE = "127.0.0.1"
Fault = Callable[[], None]
LIMIT = timedelta(seconds=2)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def come_late() -> None:
    time.sleep(LIMIT.total_seconds() + 1)


def run_out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def misuse() -> None:
    raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def stop() -> None:
    raise Stopped("stopped by SIGTERM")


def work(at: int, own: int, fault: Fault) -> None:
    """Three exchanges; rank `at` fails between the first and the second."""
    for exchange in range(3):
        if exchange == 1 and own == at:
            fault()
        dist.all_reduce(torch.ones(1))


def ends(folder: Path, world: int, at: int, fault: Fault) -> dict[int, str]:
    """What each rank that lives says of the end, once all have ended or hang; seconds that takes are bounded."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    with socket.socket() as taken:
        taken.bind((HERE, FREE_PORT))
        port = taken.getsockname()[1]
    children = [_forked(folder, Seat(rank, world, rank, HERE, port), at, fault) for rank in range(world)]
    until = time.monotonic() + 30
    left = dict(enumerate(children))
    while left and time.monotonic() < until:
        left = {rank: pid for rank, pid in left.items() if os.waitpid(pid, os.WNOHANG)[0] == 0}
        if left.keys() == {at} and fault is hang:
            break
        time.sleep(0.02)
    for pid in left.values():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert left.keys() <= {at}, f"{sorted(left)} are still there"
    return {int(path.stem): json.loads(path.read_text()) for path in folder.glob("*.json")}


def _forked(folder: Path, seat: Seat, at: int, fault: Fault) -> int:
    child = os.fork()
    if child:
        return child
    said = "done"
    try:
        with together(seat, store_of(seat, LIMIT), LIMIT):
            work(at, seat.rank, fault)
    except BaseException as error:
        said = f"{type(error).__name__}: {error}"
    (folder / f"{seat.rank}.json").write_text(json.dumps(said))
    os._exit(0)
