"""Three processes that play the ranks of one run, started once a test session.

Forked, not spawned: importing torch three times more costs more than everything the ranks do.
"""

import io
import os
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import multiprocessing as mp

MOST = 3
LIMIT = timedelta(seconds=60)  # of a collective: a rank that fails leaves the others waiting in one


class RankFailed(AssertionError):
    """A rank raised; holds its traceback."""


class Ranks:
    """Runs functions on two or three processes that are the ranks of a gloo group."""

    def __init__(self, folder: Path, pipes: list[Connection]) -> None:
        self.folder, self.pipes, self.jobs = folder, pipes, 0

    def __call__(self, function: Callable[..., Any], world: int, *args: Any) -> list[Any]:
        """What `function(rank, world, *args)` gives on each rank. Raises RankFailed with all tracebacks.

        function: of a module that was imported before the first call, as the processes are copies of that moment.
        args: what multiprocessing can send. Results: whatever torch.save writes and loads as weights only.
        """
        self.jobs += 1
        store = self.folder / f"store-{self.jobs}"
        for rank, pipe in enumerate(self.pipes[:world]):
            pipe.send((function, rank, world, str(store), args))
        answers = [pipe.recv() for pipe in self.pipes[:world]]
        failed = [f"rank {rank}: {said}" for rank, (said, _) in enumerate(answers) if said]
        if failed:
            raise RankFailed("\n".join(failed))
        return [torch.load(io.BytesIO(written), weights_only=True) for _, written in answers]


@contextmanager
def pool(folder: Path) -> Iterator[Ranks]:
    """The processes; they end with the block."""
    context = mp.get_context("fork")
    pipes, processes = [], []
    for _ in range(MOST):
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        yield Ranks(folder, pipes)
    finally:
        for pipe in pipes:
            pipe.close()
        for process in processes:
            process.kill()  # they hold nothing
            process.join()


def _serve(pipe: Connection) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    while True:
        try:
            function, rank, world, store, args = pipe.recv()
        except EOFError:  # the session is over
            os._exit(0)  # nothing of the parent's is to be cleaned up twice
        pipe.send(_do(function, rank, world, store, args))


def _do(function: Callable[..., Any], rank: int, world: int, store: str, args: tuple[Any, ...]) -> tuple[str, bytes]:
    """What to say of a failure, and the result."""
    try:
        dist.init_process_group("gloo", f"file://{store}", timeout=LIMIT, rank=rank, world_size=world)
        try:
            torch.manual_seed(0)
            found = function(rank, world, *args)
        finally:
            dist.destroy_process_group()
        written = io.BytesIO()
        torch.save(found, written)
        return "", written.getvalue()
    except Exception:
        return traceback.format_exc(), b""
