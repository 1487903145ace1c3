"""The process that reads for a loader: `python -m data.loading.reader`, started by `Readers` (readers.py) only.

Its argument is the file descriptor of a connection. There come the `Drawing` and how many bytes of pictures to keep;
after that one (index, epoch) for each document to be read. Each is answered, in order, by what came of it, or by the
exception it raised. These are this process and its parent talking; no file is ever unpickled.

It does without torch, which takes half a gigabyte of memory and more than a second to start: there may be a reader for
each core, and all come anew when a run is continued.

It ends with the connection: a parent that is gone, however it ended, takes its readers along. Signals are for the
parent to obey; it finishes its step, for which it still needs them.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection

from data.errors import CorpusError
from data.loading.cache import Pictures
from data.loading.draw import Drawer, Drawn

# What asks a run to stop. A scheduler sends it to all processes of a job.
IGNORED = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2)


def main() -> None:
    """What the process does."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    parent: Connection = Connection(int(sys.argv[1]))
    try:
        serve(parent)
    except (EOFError, BrokenPipeError, ConnectionResetError):  # the parent has closed its end, or is gone
        os._exit(0)  # at once: whatever is held is of no use to anybody


def serve(parent: Connection) -> None:
    """Answer until the parent is gone: EOFError, BrokenPipeError or ConnectionResetError."""
    drawing, picture_bytes = parent.recv()
    drawer = Drawer(drawing, Pictures(picture_bytes))
    while True:
        index, epoch = parent.recv()
        parent.send(_answer(drawer.read, index, epoch))


def _answer(read: Callable[[int, int], Drawn], index: int, epoch: int) -> Drawn | Exception:
    try:
        return read(index, epoch)
    except Exception as error:  # a programming error, or a corpus that the rules do not fit: the loader raises it
        return portable(error)


def portable(error: Exception) -> Exception:
    """What says the same in another process, whatever that can import; where it was raised is a note."""
    said: Exception = CorpusError(str(error))
    if not isinstance(error, CorpusError):
        said = RuntimeError(f"{type(error).__name__}: {error}")
    said.add_note("".join(traceback.format_exception(error)))
    return said


if __name__ == "__main__":
    main()
