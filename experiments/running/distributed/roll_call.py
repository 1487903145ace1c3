"""Who is to blame when ranks can no longer compute together: each says how it ended, and all hear the same verdict.

A rank that fails closes its connections, and the others fail in the collective they are in; one that hangs leaves them
there until the limit. Whichever it was, they meet again at the store: who says nothing is the one that hung or was
killed; where all have spoken it is the one whose error is no collective's.
"""

import json
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import TypeVar

from torch import distributed as dist
from torch.distributed import DistError, TCPStore  # type: ignore[attr-defined]

from experiments.running.distributed.rendezvous import Seat, named
from experiments.running.stopping import Stopped

T = TypeVar("T")
Gone = Callable[[int], str]  # how the process of a rank ended, in words; "" where it lives or nobody knows

FAREWELL_SECONDS = 10.0  # that rank 0 keeps the store open for others that still listen
_POLL_SECONDS = 0.05
_TIMED_OUT = re.compile("timed out|timing out", re.IGNORECASE)  # gloo says the one, NCCL the other


class RankLost(RuntimeError):
    """Another rank has failed or answers no more; the message names it."""


@dataclass(frozen=True)
class Said:
    """How a rank ended."""

    rank: int
    order: int  # in which ranks said it, from 1
    error: str
    in_collective: bool  # the error may well be another rank's
    stopped: bool  # by a signal


class RollCall:
    """What ranks say to each other at the end of their work."""

    def __init__(self, store: TCPStore, seat: Seat, limit: timedelta, gone: Gone) -> None:
        """gone: asked by rank 0, of the processes it has started."""
        self.store, self.seat, self.limit, self.gone = store, seat, limit.total_seconds(), gone

    def say(self, error: BaseException) -> str | Stopped | None:
        """How this rank ended; who ended the work of all, the same for every rank, or None where this one did itself.

        Closes its connections, so that whoever waits for it hears of it. Waits for the others up to the limit.
        """
        said = Said(
            rank=self.seat.rank,
            order=0,
            error=f"{type(error).__name__}: {error}".splitlines()[0],
            # torch raises its collectives' errors as plain RuntimeErrors (gloo) or DistErrors (NCCL, the store).
            in_collective=isinstance(error, DistError) or type(error) is RuntimeError,
            stopped=isinstance(error, Stopped),
        )
        try:
            in_time(self.limit, lambda: self._write(said))
            with suppress(TimeoutError):
                in_time(FAREWELL_SECONDS, dist.destroy_process_group)
            if self.seat.rank == 0:
                found = self._judged() if said.in_collective else _of([said])
                self.store.set("verdict", found)
            elif said.in_collective:
                longest = self.limit + FAREWELL_SECONDS
                in_time(longest, lambda: self.store.wait(["verdict"], timedelta(seconds=longest)))
                found = self.store.get("verdict").decode()
        except (DistError, TimeoutError):
            return "rank 0 has ended, or answers no more, without a word"
        if not said.in_collective:
            return None
        return Stopped(found) if found.startswith("stopped by") else found

    def _write(self, said: Said) -> None:
        numbered = replace(said, order=self.store.add("order", 1))
        self.store.set(f"ended/{said.rank}", json.dumps(asdict(numbered)))

    def _judged(self) -> str:
        until = time.monotonic() + self.limit
        while silent := self._silent():
            if died := [f"rank {rank} {how}" for rank in silent if (how := self.gone(rank))]:
                return "; ".join(died)
            if time.monotonic() > until:
                return f"{named(silent)} did not answer for {self.limit:g} s: hung, or killed with its node"
            time.sleep(_POLL_SECONDS)
        return _of([Said(**json.loads(self.store.get(f"ended/{rank}"))) for rank in range(self.seat.ranks)])

    def _silent(self) -> list[int]:
        return [rank for rank in range(self.seat.ranks) if not self.store.check([f"ended/{rank}"])]

    def farewell(self) -> None:
        """Call last: rank 0 leaves when all others that answer have left."""
        with suppress(DistError, TimeoutError):
            in_time(FAREWELL_SECONDS, self._leave)

    def _leave(self) -> None:
        self.store.set(f"left/{self.seat.rank}", "")
        silent = self._silent() if self.store.check(["verdict"]) else []
        others = [] if self.seat.rank else [f"left/{rank}" for rank in range(1, self.seat.ranks) if rank not in silent]
        until = time.monotonic() + FAREWELL_SECONDS
        while others and not self.store.check(others) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)


def _of(every: Sequence[Said]) -> str:
    """Whose error it was, in words, once all have spoken."""
    spoken = sorted(every, key=lambda each: each.order)
    blamed = next((each for each in spoken if not each.in_collective), None)
    if blamed is None:  # after a time limit the last to speak is the one that came back too late
        blamed = spoken[-1 if _TIMED_OUT.search(spoken[0].error) else 0]
    if blamed.stopped:
        return f"{blamed.error.partition(': ')[2]} on rank {blamed.rank}"
    return f"rank {blamed.rank} failed: {blamed.error}"


def in_time(seconds: float, ask: Callable[[], T]) -> T:
    """What the call gives. Raises TimeoutError where it takes longer: a store whose owner is stopped never answers."""
    answers = queue.SimpleQueue[T | BaseException]()

    def answer() -> None:
        try:
            answers.put(ask())
        except BaseException as error:
            answers.put(error)

    threading.Thread(target=answer, daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer for {seconds:g} s") from None
    if isinstance(found, BaseException):
        raise found
    return found
