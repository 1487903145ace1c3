"""Transfer tasks by name: each lives in transfer/<name>.py and registers itself under its file's name."""

import difflib
import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

from transfer.base import TransferTask

_TASKS: dict[str, type[TransferTask]] = {}


def register(name: str) -> Callable[[type[TransferTask]], type[TransferTask]]:
    """Class decorator. Raises ValueError for a name that is taken or is not the file's own."""

    def add(task: type[TransferTask]) -> type[TransferTask]:
        file = task.__module__.rpartition(".")[2]
        if name != file:
            raise ValueError(f"transfer task {name!r} is defined in {file}.py; a task is named like its file")
        if name in _TASKS and _TASKS[name].__qualname__ != task.__qualname__:
            raise ValueError(f"transfer task {name!r} is registered twice, by {_TASKS[name].__qualname__} and {task}")
        task.name = name
        _TASKS[name] = task
        return task

    return add


def get(name: str) -> type[TransferTask]:
    """The task of that name. Raises ValueError with the closest names for an unknown one."""
    if name not in _TASKS and name in _modules():
        importlib.import_module(f"transfer.{name}")
    if name not in _TASKS:
        close = difflib.get_close_matches(name, available(), n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown transfer task {name!r}; {hint}available: {', '.join(available())}")
    return _TASKS[name]


def available() -> tuple[str, ...]:
    """Names of all tasks, sorted."""
    for module in _modules():
        importlib.import_module(f"transfer.{module}")
    return tuple(sorted(_TASKS))


def _modules() -> tuple[str, ...]:
    return tuple(info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)]) if not info.ispkg)
