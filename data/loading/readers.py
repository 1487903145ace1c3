"""Processes that decode, crop and tokenise while the run trains: the parent's end (the other one is reader.py).

A thread here takes what each has read off its connection: a picture is more than that holds, and the reader would wait
for the end of the training step. Readers hold nothing a run depends on: to stop them is to kill them.
"""

import mmap
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np

from data.loading.draw import Drawing, Drawn

# One core each: libraries that start threads of their own would fight over the cores of the others.
ENVIRONMENT: Mapping[str, str] = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"),
    "TOKENIZERS_PARALLELISM": "false",
}


class ReaderDied(RuntimeError):
    """A reader ended by itself: killed from outside, or for want of memory. A run continues at its checkpoint."""


def _by_name(values: np.memmap) -> tuple[Any, ...]:
    """Sends a memory-mapped index as the name of its file: that of a real corpus takes gigabytes."""
    if not isinstance(values.base, mmap.mmap):  # a part of one
        return np.array, (values.tolist(), values.dtype)
    return np.memmap, (values.filename, values.dtype, "r", values.offset, values.shape)


ForkingPickler.register(np.memmap, _by_name)


class Readers:
    """So many processes over one corpus, until `close`."""

    def __init__(self, drawing: Drawing, count: int, picture_bytes: int) -> None:
        """picture_bytes: of decoded pictures, for all of them together."""
        told = drawing, picture_bytes // count
        self._readers: list[_Reader] = []
        try:
            for number in range(count):
                self._readers.append(_Reader(f"reader {number + 1} of {count}", drawing.corpus.name))
            for reader in self._readers:
                reader.tell(told)
        except BaseException:  # a signal too: nobody else knows of them yet
            self.close()
            raise

    def __len__(self) -> int:
        return len(self._readers)

    def ask(self, reader: int, index: int, epoch: int) -> None:
        """Let that reader read an entry of the corpus."""
        self._readers[reader].tell((index, epoch))

    def take(self, reader: int) -> Drawn | Exception:
        """The oldest answer of that reader that was not taken yet. Raises ReaderDied where none can come any more."""
        return self._readers[reader].take()

    def close(self) -> None:
        """End them, whatever they are at."""
        for reader in self._readers:
            reader.process.kill()
        for reader in self._readers:
            reader.end()


class _Reader:
    def __init__(self, called: str, corpus: str) -> None:
        self._called = f"{called} of corpus {corpus!r}"
        self._connection, its = Pipe()
        path = os.pathsep.join(os.path.abspath(each) for each in sys.path)  # the "" of an interactive session too
        with its:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "data.loading.reader", str(its.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr,  # whatever prints, prints where errors go
                env={**os.environ, **ENVIRONMENT, "PYTHONPATH": path},
                pass_fds=[its.fileno()],
                start_new_session=True,  # Ctrl-C at the terminal is for the parent
            )
        self._answers = queue.SimpleQueue[Drawn | Exception | None]()
        self._listener = threading.Thread(target=_listen, args=(self._connection, self._answers), daemon=True)
        self._listener.start()

    def tell(self, what: object) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # it is gone, which `take` says
            self._connection.send(what)

    def take(self) -> Drawn | Exception:
        answer = self._answers.get()
        if answer is None:
            self._answers.put(None)  # for whoever asks again
            raise ReaderDied(f"{self._called} {self._end()}")
        return answer

    def _end(self) -> str:
        code = self.process.wait()
        if code >= 0:
            return f"ended with exit code {code}; its error is in the log"
        advice = "; if memory ran out, lower data.workers" if -code == signal.SIGKILL else ""
        return f"(process {self.process.pid}) was ended by {signal.Signals(-code).name}{advice}"

    def end(self) -> None:
        """After it was killed: leave neither a process nor a connection nor a thread."""
        self.process.wait()
        self._listener.join()
        self._connection.close()


def _listen(connection: Connection, answers: "queue.SimpleQueue[Drawn | Exception | None]") -> None:
    try:
        while True:
            answers.put(connection.recv())
    except (EOFError, OSError):  # it has ended, perhaps in the middle of an answer
        answers.put(None)
