"""The watch of a worker process over the sweep that started it."""

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

logger = logging.getLogger(__name__)


@contextmanager
def watching(held: Path) -> Iterator[None]:
    """Inside, this process is interrupted when nobody holds the lock `held` any more: an orphan trains for nobody.

    A lock and not a process id: a killed process keeps its id until its own parent has asked for it.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(2.0):
            with suppress(Timeout), FileLock(held, timeout=0):
                logger.warning("the sweep that started this run is gone; stopping after this step")
                os.kill(os.getpid(), signal.SIGINT)  # again and again: one at the end of a training is not heard

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
