"""Files of a release and of answers: read whole, and refused by name where they are something else."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def read_json(path: Path) -> Any:
    """A JSON file. Raises ValueError where it is none, FileNotFoundError where there is none."""
    try:
        return json.loads(found(path).read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}") from error


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON objects, one a line. Raises ValueError naming the line that is none."""
    entries = []
    for number, line in enumerate(found(path).read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                entries.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is no JSON: {error}") from error
            if not isinstance(entries[-1], dict):
                raise ValueError(f"{path}, line {number} holds {type(entries[-1]).__name__}, expected an object")
    return entries


def found(path: Path) -> Path:
    """The path. Raises FileNotFoundError that names the folder and what lies there instead."""
    if path.is_file():
        return path
    folder = next(each for each in path.absolute().parents if each.is_dir())
    names = sorted(each.name for each in folder.iterdir())
    there = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") or "nothing"
    raise FileNotFoundError(f"there is no {path}; {folder} holds {there}")


@contextmanager
def schema_of(path: Path) -> Iterator[None]:
    """Turn a missing or mistyped field into a message that names the file."""
    try:
        yield
    except KeyError as error:
        raise ValueError(f"{path}: field {error} is missing; is this the file of the release?") from error
    except (TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"{path} has another structure than the release: {error}") from error


def add(questions: dict[str, Any], key: str, question: object, path: Path) -> None:
    """Enter a question. Raises ValueError where its id is taken."""
    if key in questions:
        raise ValueError(f"{path} has two questions {key!r}; one of them would never be scored")
    questions[key] = question


def text_of(entry: Mapping[str, Any], field: str) -> str:
    """A text field. Raises TypeError where it is something else, KeyError where it is missing."""
    if not isinstance(entry[field], str):
        raise TypeError(f"{field} is {entry[field]!r}, expected text")
    return str(entry[field])
