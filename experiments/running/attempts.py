"""Who does a run: numbered attempts in its folder, each with one owner that shows that it is alive.

runs/<run_id>/attempts/0003.json is made by the process that takes the run, under a name that was free: every network
file system creates such a file for one of several callers (file locks do not reach all of them). The highest number
owns the run. Its owner touches the file every BEAT_SECONDS and writes into it how the attempt ended. Without a touch
for STALE_SECONDS it is taken for dead and the next number may be claimed; should it live all the same (a node that was
cut off), it sees the higher number and writes nothing more. Nobody changes or removes the file of another.
"""

import json
import logging
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from results.record import RECORD_FILE, RecordError, read, write_atomic
from results.schema import Status

logger = logging.getLogger(__name__)

FOLDER = "attempts"
BEAT_SECONDS = 10.0
STALE_SECONDS = 60.0

Ended = Literal["", "done", "failed", "blocked", "stopped"]


class Saved(NamedTuple):
    """What a run has on disk to go on from (saved.py)."""

    step: int = 0  # of the newest checkpoint; 0 without one
    answers: int = 0  # of a dialogue run


NOTHING_SAVED = Saved()


@dataclass(frozen=True)
class Attempt:
    """One process at one run."""

    number: int
    host: str  # as a reader knows it
    machine: str  # host, boot and process name space: where `pid` means something
    pid: int
    started: int  # of the process, in clock ticks since boot: a process id is used again
    job: str  # what a scheduler calls it, "" without one
    log: str  # path
    began: float  # seconds since the epoch
    ended: Ended = ""
    reason: str = ""
    seconds: float = 0.0  # of work, once it has ended
    from_step: int = 0  # what was saved when it began
    from_answers: int = 0

    @property
    def who(self) -> str:
        """In words, for messages."""
        return f"process {self.pid} on {self.host}" + (f" (job {self.job})" if self.job else "")


class Held(RuntimeError):
    """Another process is at this run."""

    def __init__(self, folder: Path, attempt: Attempt) -> None:
        super().__init__(f"{folder.name} is being done by {attempt.who}")
        self.attempt = attempt


class LeaseLost(RuntimeError):
    """This process was taken for dead and another owns the run; nothing more may be written."""


def newest(folder: Path) -> Attempt | None:
    """The last attempt at a run; None where there is none. One that was just begun may lack its details."""
    numbers = [int(path.stem) for path in (folder / FOLDER).glob("[0-9]*.json") if path.stem.isdecimal()]
    return _read(folder, max(numbers)) if numbers else None


def every(folder: Path) -> list[Attempt]:
    """All attempts at a run, in order."""
    last = newest(folder)
    return [_read(folder, number) for number in range(1, last.number + 1)] if last else []


def spent(folder: Path, before: int) -> float:
    """Seconds of the attempts with lower numbers; of one that was killed, until it was last seen to live."""
    total = 0.0
    for attempt in every(folder)[: before - 1]:
        seen = _path(folder, attempt.number).stat().st_mtime
        total += attempt.seconds if attempt.ended else max(0.0, seen - attempt.began) if attempt.began else 0.0
    return total


def in_vain(folder: Path, job: str, now: Saved) -> list[Attempt]:
    """The latest attempts of a job, in a row, that went on from what there is now."""

    def got_nowhere(each: Attempt) -> bool:
        return each.job == job and (each.from_step, each.from_answers) == now

    return list(takewhile(got_nowhere, reversed(every(folder))))


def alive(folder: Path, attempt: Attempt) -> bool:
    """Whether an attempt's owner is at work.

    A process of this machine is asked for; of another, the file system's clock says when it was last seen.
    """
    if attempt.ended:
        return False
    if attempt.machine == machine():
        return started(attempt.pid) == attempt.started
    return last_seen(folder, attempt) < STALE_SECONDS


def last_seen(folder: Path, attempt: Attempt) -> float:
    """Seconds since the owner touched its file, by the clock of the file system: those of two hosts differ."""
    with suppress(OSError), tempfile.NamedTemporaryFile(dir=folder / FOLDER, prefix=".now-") as now:
        return os.fstat(now.fileno()).st_mtime - _path(folder, attempt.number).stat().st_mtime
    with suppress(OSError):  # a folder that may only be read
        return time.time() - _path(folder, attempt.number).stat().st_mtime
    return STALE_SECONDS


def is_done(folder: Path) -> bool:
    """Whether a run is finished; one whose record cannot be used is not."""
    try:
        return read(folder / RECORD_FILE).status is Status.DONE
    except (FileNotFoundError, RecordError):
        return False


class Lease:
    """What the owner of a run holds."""

    def __init__(self, folder: Path, attempt: Attempt) -> None:
        self.folder, self.attempt = folder, attempt
        self.lost = False  # that another owns the run was noticed, and this process told to stop
        self._over = threading.Event()

    def check(self) -> None:
        """Call before every write. Raises LeaseLost where another owns the run by now."""
        if _path(self.folder, self.attempt.number + 1).exists() or not self._path.exists():
            raise LeaseLost(f"{self.folder.name}: {self.attempt.who} was taken for dead, another process goes on")

    def end(self, ended: Ended, reason: str = "") -> None:
        """Say how it ended, unless that is said or another owns the run."""
        if not self.attempt.ended:
            self.check()
            seconds = round(time.time() - self.attempt.began, 1)
            self.attempt = replace(self.attempt, ended=ended, reason=reason, seconds=seconds)
            write_atomic(self._path, _text(self.attempt))

    @property
    def _path(self) -> Path:
        return _path(self.folder, self.attempt.number)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            try:
                self.check()
                os.utime(self._path)
            except LeaseLost:
                logger.warning("%s was taken over; stopping without another write", self.folder.name)
                self.lost = True
                os.kill(os.getpid(), signal.SIGTERM)
                return
            except OSError as error:  # a file system that is away for a moment
                logger.warning("the heartbeat of %s cannot be written: %s", self.folder.name, error)

    @contextmanager
    def beating(self) -> Iterator["Lease"]:
        """Inside, a thread shows that the owner is alive."""
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._over.set()
            thread.join()


def claim(folder: Path, job: str = "", log: str = "", begins_from: Saved = NOTHING_SAVED) -> Lease:
    """Take a run. Raises Held where another is at it, OSError where the folder cannot be written."""
    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    while True:
        last = newest(folder)
        if last is not None and alive(folder, last):
            raise Held(folder, last)
        pid = os.getpid()
        attempt = Attempt(
            number=last.number + 1 if last else 1,
            host=socket.gethostname(),
            machine=machine(),
            pid=pid,
            started=started(pid) or 0,
            job=job,
            log=log,
            began=time.time(),
            from_step=begins_from.step,
            from_answers=begins_from.answers,
        )
        try:
            descriptor = os.open(_path(folder, attempt.number), os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            continue  # another was faster; it is alive
        with os.fdopen(descriptor, "w") as file:
            file.write(_text(attempt))
            file.flush()
            os.fsync(file.fileno())
        return Lease(folder, attempt)


@cache
def machine() -> str:
    """Where the process ids of this process mean something: two containers of one name have their own."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    with suppress(OSError):
        return f"{socket.gethostname()} {boot.read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return f"{socket.gethostname()} {time.time()}"  # without /proc nobody can be asked for; heartbeats decide


def started(pid: int) -> int | None:
    """When a process of this machine began, in ticks since boot; None where there is none, or it is a zombie."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if words[0] in "ZX" else int(words[19])


def _path(folder: Path, number: int) -> Path:
    return folder / FOLDER / f"{number:04d}.json"


def _text(attempt: Attempt) -> str:
    return json.dumps(asdict(attempt), indent=1) + "\n"


_LATER = {"from_step": 0, "from_answers": 0}  # fields that files of earlier versions lack


def _read(folder: Path, number: int) -> Attempt:
    """An attempt; where its file is not whole, one of an unknown machine, whose heartbeat says whether it lives."""
    unknown = Attempt(number, host="an unknown host", machine="", pid=0, started=0, job="", log="", began=0.0)
    try:
        found = {**_LATER, **json.loads(_path(folder, number).read_text())}
        kinds = {field.name: type(getattr(unknown, field.name)) for field in fields(Attempt)}
        if all(isinstance(found[name], kind) for name, kind in kinds.items()) and found["ended"] in get_args(Ended):
            return Attempt(**{name: found[name] for name in kinds})
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return unknown
