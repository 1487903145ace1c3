"""How the processes of one run find each other: which of them this one is, and a store at rank 0 that all reach.

Who is who comes from the variables that torchrun sets, which this suite sets as well where it starts ranks itself
(members.py), or from SLURM's through submitit. The store outlives the process group, so that ranks can say how they
ended when they can no longer compute together (roll_call.py).
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import submitit
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

# Ports that follow from a job's number: below those that Linux hands out by itself (32768 and up).
FIRST_PORT, PORTS = 10_000, 20_000
FREE_PORT = 0  # whichever is free
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_POLL_SECONDS = 0.05


class RanksMissing(RuntimeError):
    """Not all ranks of a run have come within its limit; the message names those that have not."""


@dataclass(frozen=True)
class Seat:
    """One of the processes of a run."""

    rank: int
    ranks: int
    local_rank: int  # among those of its node: which GPU is its own
    host: str  # of rank 0
    port: int  # of rank 0

    def variables(self) -> dict[str, str]:
        """As torchrun sets them."""
        return dict(
            zip(_TORCHRUN, map(str, (self.rank, self.ranks, self.local_rank, self.host, self.port)), strict=True)
        )


def seat_of(environment: Mapping[str, str]) -> Seat | None:
    """What torchrun's variables or SLURM's say of this process; None where it is no one of several.

    Raises ValueError where torchrun's are incomplete.
    """
    if "RANK" in environment:
        if missing := [name for name in _TORCHRUN if name not in environment]:
            raise ValueError(
                f"RANK is {environment['RANK']}, but {', '.join(missing)} not set; start ranks by torchrun"
            )
        rank, ranks, local, host, at = (environment[name] for name in _TORCHRUN)
        return Seat(int(rank), int(ranks), int(local), host, int(at))
    # Submitit's own variable: a shell that runs in an allocation of SLURM is no rank of anything.
    if environment.get("SUBMITIT_EXECUTOR") == "slurm" and int(environment.get("SLURM_NTASKS", "1")) > 1:
        job = submitit.JobEnvironment()
        port = FIRST_PORT + int(environment["SLURM_JOB_ID"]) % PORTS
        # SLURM's names of nodes need not be known to the network, and on one node none is needed.
        host = job.hostnames[0] if len(job.hostnames) > 1 else "localhost"
        return Seat(job.global_rank, job.num_tasks, job.local_rank, host, port)
    return None


def store_of(seat: Seat, limit: timedelta) -> TCPStore:
    """The store: rank 0 opens it, the others reach it. Raises RanksMissing where they do not within the limit."""
    first = seat.rank == 0
    try:
        return TCPStore(seat.host, seat.port, is_master=first, timeout=limit, wait_for_workers=False)
    except DistError as error:
        where, said = f"{seat.host}:{seat.port}", str(error).splitlines()[0]
        raise RanksMissing(
            f"rank 0 cannot listen at {where}: {said}; another program has the port: run again"
            if first
            else f"rank {seat.rank}: rank 0 cannot be reached at {where} within {limit.total_seconds():g} s: {said}"
        ) from error


def gather(store: TCPStore, seat: Seat, limit: timedelta) -> None:
    """Return once every rank has come. Raises RanksMissing naming those that have not within the limit."""
    store.set(f"here/{seat.rank}", "")
    until = time.monotonic() + limit.total_seconds()
    while away := [rank for rank in range(seat.ranks) if not store.check([f"here/{rank}"])]:
        if time.monotonic() > until:
            raise RanksMissing(
                f"{named(away)} of {seat.ranks} did not come to {seat.host}:{store.port} within "
                f"{limit.total_seconds():g} s; look at the log of its node, or wait longer with "
                "--set distributed.limit_seconds"
            )
        time.sleep(_POLL_SECONDS)


def named(ranks: Sequence[int]) -> str:
    """Ranks in words: "rank 3", "ranks 1, 4 and 7"."""
    *most, last = map(str, ranks)
    return f"ranks {', '.join(most)} and {last}" if most else f"rank {last}"
