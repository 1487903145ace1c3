"""Being asked to stop: whatever signal asks, a run finishes its step, writes one checkpoint and ends.

Ctrl-C sends SIGINT, a closed terminal SIGHUP, a scheduler SIGTERM or (SLURM, before a time limit or a preemption)
SIGUSR2; they mean the same here. The first is obeyed, later ones change nothing: a second one in the middle of a save
must not spoil it. What the process was started without is left so: `nohup` means that the end of a terminal stops
nothing, and a shell's `&` that Ctrl-C is for somebody else.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
_OF_A_TERMINAL = (signal.SIGINT, signal.SIGHUP)


class Stopped(BaseException):
    """The run was asked to stop; what it has saved lets it be continued.

    No Exception: it comes at any moment, and must not be taken for a failure of whatever was being done.
    """


@dataclass
class Stop:
    """Whether this process was asked to stop, and whether it looks for that itself."""

    by: signal.Signals | None = None
    looked_for: bool = False  # inside `between_steps`

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The signal handler. Raises Stopped at the first signal, unless the code that runs looks for it itself."""
        first, self.by = self.by is None, self.by or signal.Signals(number)
        if first and not self.looked_for:
            self.raise_if_asked()

    def forget(self, number: signal.Signals) -> None:
        """Take a signal for not heard: one that was meant for what has ended by now."""
        self.by = None if self.by is number else self.by

    def raise_if_asked(self) -> None:
        """Raises Stopped where a signal has come."""
        if self.by is not None:
            raise Stopped(f"stopped by {self.by.name}")


_current: Stop | None = None  # of this process: signals are the process's too


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Inside, the signals raise Stopped in the main thread, once; afterwards the old handlers are back.

    SIGINT and SIGHUP stay ignored where they were. Inside another `stoppable` it is that one. Outside the main thread,
    where Python allows no handlers, nothing is heard.
    """
    global _current
    if _current is not None:
        yield _current
        return
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    old = {number: signal.signal(number, stop.hear) for number in SIGNALS if not _left_alone(number)}
    _current = stop
    try:
        yield stop
    finally:
        _current = None
        for number, handler in old.items():
            signal.signal(number, handler)


def _left_alone(number: signal.Signals) -> bool:
    """Whether whoever started this process had it ignore the signal; others are sent on purpose, and heard always."""
    return number in _OF_A_TERMINAL and signal.getsignal(number) is signal.SIG_IGN


@contextmanager
def between_steps() -> Iterator[Stop]:
    """Inside, a signal interrupts nothing; the code asks `raise_if_asked` where it can stop, and so does the end."""
    with stoppable() as stop:
        stop.raise_if_asked()
        before, stop.looked_for = stop.looked_for, True
        try:
            yield stop
        finally:
            stop.looked_for = before
        stop.raise_if_asked()
