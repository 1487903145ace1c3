"""Objectives by name: adding one is one file, and looking one up imports only that file.

`objectives/siglip.py` that holds `@register("siglip") class SigLIP(Objective)` is complete; nothing else is edited.
Files outside the package join through `add_folder`.
"""

import ast
import difflib
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import objectives
from objectives.base import Objective

ObjectiveType = TypeVar("ObjectiveType", bound=type[Objective])

_REGISTERED: dict[str, type[Objective]] = {}


def register(name: str) -> Callable[[ObjectiveType], ObjectiveType]:
    """Class decorator. Raises ValueError where the file is not called `<name>.py` or the name is taken."""

    def add(cls: ObjectiveType) -> ObjectiveType:
        file = cls.__module__.rpartition(".")[2]
        if file != name:
            raise ValueError(f"{cls.__name__} is registered as {name!r} but lives in {file}.py; the two must be equal")
        if name in _REGISTERED:
            raise ValueError(f"objective {name!r} is registered twice: {_REGISTERED[name].__name__}, {cls.__name__}")
        cls.name = name
        _REGISTERED[name] = cls
        return cls

    return add


def get(name: str) -> type[Objective]:
    """The objective of that name. Raises ValueError with the nearest and all names where there is none."""
    if name not in _REGISTERED:
        known = available()
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ValueError(f"no objective {name!r}; {hint}available: {', '.join(known) or 'none'}")
        importlib.import_module(f"objectives.{name}")
    return _REGISTERED[name]


def available() -> tuple[str, ...]:
    """Names of all objectives, found by reading the files, none of which is imported."""
    names = {path.stem for folder in objectives.__path__ for path in Path(folder).glob("*.py") if _registers(path)}
    return tuple(sorted(names))


def add_folder(folder: Path) -> None:
    """Let `get` find objectives in another folder too. Raises ValueError where a file's name is already taken."""
    if not folder.is_dir():
        raise ValueError(f"no folder {folder} to read objectives from")
    taken = {path.stem for known in objectives.__path__ for path in Path(known).glob("*.py")}
    clash = sorted(taken & {path.stem for path in folder.glob("*.py")})
    if clash:
        raise ValueError(f"{folder} holds {', '.join(clash)}, which already exist in objectives; rename the files")
    objectives.__path__.append(str(folder))
    importlib.invalidate_caches()


def _registers(path: Path) -> bool:
    """Whether the file decorates a class with `@register(<its own name>)`."""
    decorators = [
        decorator
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
        for decorator in node.decorator_list
    ]
    return any(
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == register.__name__
        and [getattr(argument, "value", None) for argument in call.args] == [path.stem]
        for call in decorators
    )
