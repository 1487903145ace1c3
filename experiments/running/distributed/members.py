"""Rank 0 and the others: the owner of a run starts them on its machine, or finds them started by SLURM.

`python -m experiments.running.distributed.members` is one of the others: its seat is in torchrun's variables, its work
comes through the connection that its argument names. It does what the owner does and writes nothing.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import torch

import objectives
from experiments.configuration.distributed import DistributedConfig, Strategy
from experiments.configuration.place import Place
from experiments.planning.specs import PretrainSpec, load_spec
from experiments.running.distributed.rendezvous import FREE_PORT, Seat, seat_of, store_of
from experiments.running.distributed.roll_call import FAREWELL_SECONDS
from experiments.running.distributed.together import together
from experiments.running.outcome import Owned
from experiments.running.progress import Unseen
from experiments.running.stages.pretrain import pretrain
from experiments.running.stopping import Stopped, stoppable
from objectives.registry import add_folder

logger = logging.getLogger(__name__)

HERE = "127.0.0.1"


@dataclass(frozen=True)
class Work:
    """What every rank of a run is told."""

    run_id: str
    place: Place
    limit: timedelta
    threads: int
    objectives: tuple[str, ...]  # folders of further objectives
    strategy: Strategy

    @classmethod
    def on(cls, place: Place, run_id: str, asked: DistributedConfig) -> "Work":
        """That of a process like this one."""
        limit = timedelta(seconds=asked.limit_seconds)
        return cls(run_id, place, limit, torch.get_num_threads(), tuple(objectives.__path__[1:]), asked.strategy)


@contextmanager
def ranks_of(run_id: str, place: Place, asked: DistributedConfig) -> Iterator[None]:
    """Inside, the owner of a run is rank 0 of as many as asked for, whether SLURM has started them or it does.

    Raises what `together` raises, and ValueError where SLURM has started another number.
    """
    work, seat = Work.on(place, run_id, asked), seat_of(os.environ)
    limit = work.limit
    if seat is not None:
        if (seat.rank, seat.ranks) != (0, asked.ranks):
            raise ValueError(
                f"this is rank {seat.rank} of {seat.ranks}, and distributed.ranks is {asked.ranks}; the owner of a run "
                "is rank 0 of as many"
            )
        with together(seat, store_of(seat, limit), limit):
            yield
        return
    # Of one machine, whose name may resolve to an address at which nothing listens: the first interface is its own.
    os.environ.setdefault("GLOO_SOCKET_IFNAME", next(name for _, name in socket.if_nameindex()))
    store = store_of(Seat(0, asked.ranks, 0, HERE, FREE_PORT), limit)
    seats = [Seat(rank, asked.ranks, rank, HERE, store.port) for rank in range(asked.ranks)]
    with _started(seats[1:], work) as others, together(seats[0], store, limit, others.gone):
        yield


class _Others:
    """The processes of the other ranks."""

    def __init__(self) -> None:
        self.processes: dict[int, subprocess.Popen[bytes]] = {}

    def gone(self, rank: int) -> str:
        """How a rank's process has ended; "" while it lives."""
        code = self.processes[rank].poll()
        if code is None:
            return ""
        if code >= 0:
            return f"ended with exit code {code}; its error is in the log"
        return f"was killed by {signal.Signals(-code).name}" + (" (out of memory?)" if -code == signal.SIGKILL else "")

    def start(self, seat: Seat, work: Work) -> None:
        """In a session of its own: Ctrl-C at the terminal is for the owner, which tells the others."""
        ours, its = Pipe()
        path = os.pathsep.join(os.path.abspath(each) for each in sys.path)
        with ours, its:
            self.processes[seat.rank] = subprocess.Popen(
                [sys.executable, "-P", "-m", "experiments.running.distributed.members", str(its.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,
                env={**os.environ, **seat.variables(), "PYTHONPATH": path},
                pass_fds=[its.fileno()],
                start_new_session=True,
            )
            ours.send(work)

    def end(self) -> None:
        """They have heard how it ended; one that hangs is killed."""
        until = time.monotonic() + FAREWELL_SECONDS
        for process in self.processes.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def _started(seats: list[Seat], work: Work) -> Iterator[_Others]:
    others = _Others()
    try:
        for seat in seats:
            others.start(seat, work)
        yield others
    finally:
        others.end()


def follow(seat: Seat, work: Work) -> None:
    """What every rank but 0 does: the run, of which it writes nothing. Raises what `together` raises."""
    folder = work.place.runs / work.run_id
    with stoppable(), together(seat, store_of(seat, work.limit), work.limit):
        spec = load_spec(folder)
        assert isinstance(spec, PretrainSpec)
        pretrain(spec, work.place, Owned(folder, Unseen(folder, "pre-training"), _never, work.strategy))


def _never() -> None:
    raise AssertionError("only rank 0 writes")


def main() -> None:
    """One of the others. Ends at once: a store whose owner is stopped would hold up an orderly end."""
    seat = seat_of(os.environ)
    assert seat is not None
    form = f"%(asctime)s rank {seat.rank} %(name)s: %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form)
    work: Work = Connection(int(sys.argv[1])).recv()
    for folder in work.objectives:
        add_folder(Path(folder))
    torch.set_num_threads(work.threads)
    try:
        follow(seat, work)
    except Stopped as stopped:
        logger.info("%s", stopped)
    except Exception:
        logger.exception("rank %d of %s", seat.rank, work.run_id)
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
