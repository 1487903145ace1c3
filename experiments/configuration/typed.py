"""Typed values from text and from JSON, by the annotations of frozen dataclasses.

The types are those of the standard library; pydantic reads them, strictly: "1" is no truth value, 1.5 no whole number,
and a key that no field has is a mistake. What comes out is an instance of the very class that was asked for.
"""

import json
import types
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import fields
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class TypeMismatch(ValueError):
    """A value that is not of the type asked for."""


def hints(cls: type) -> dict[str, Any]:
    """Annotations of a dataclass's fields, in order, forward references resolved."""
    resolved = get_type_hints(cls)
    return {f.name: resolved[f.name] for f in fields(cls)}


def describe(hint: Any) -> str:
    """A type in words: "true or false", "one of fp32, bf16", "a whole number or none"."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, arguments))
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"{describe(arguments[0])}, any number of times with commas between"
        return f"{len(arguments)} values with commas between: {', '.join(map(describe, arguments))}"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return f"one of {', '.join(str(each.value) for each in hint)}"
    names = {
        type(None): "none",
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        Path: "a path",
    }
    return names.get(hint, getattr(hint, "__name__", str(hint)))


def parse_text(hint: Any, text: str) -> Any:
    """A value of that type written on a command line. Raises TypeMismatch."""
    for reading in _readings(text):
        if reading == "" and Path in (hint, *get_args(hint)):  # which pathlib takes for the current folder
            continue
        with suppress(TypeMismatch):
            made = from_plain(hint, reading)
            return made.expanduser() if isinstance(made, Path) else made
    raise TypeMismatch(f"{text!r} is not {describe(hint)}")


def _readings(text: str) -> Iterator[Any]:
    """What a text can stand for, as JSON values; the type decides which of them it is."""
    if text.lower() == "none":
        yield None
    if text in ("true", "false"):
        yield text == "true"
    inside = text[1:-1] if text.startswith("(") and text.endswith(")") else text
    parts = [part.strip() for part in inside.split(",") if part.strip()]
    for read in (str, int, float):
        with suppress(ValueError):
            yield read(text)
        with suppress(ValueError):
            yield [read(part) for part in parts]


def from_plain(hint: Any, value: Any, where: str = "value") -> Any:
    """A value of that type from decoded JSON; the inverse of `results.canonical.plain` for configs and specs.

    Raises TypeMismatch naming every place that does not fit, its value and what would; what a dataclass itself refuses
    is raised as it is.
    """
    try:
        (made,) = _reader(hint).validate_json(json.dumps([value]))
    except ValidationError as error:
        found = error.errors(include_url=False)
        if refused := next((each["ctx"]["error"] for each in found if each["type"] == "value_error"), None):
            raise refused from None
        said = dict.fromkeys(f"{where}{_place(each['loc'][1:])} {_wrong(each)}" for each in found)
        raise TypeMismatch("; ".join(said)) from None
    return made


@cache
def _reader(hint: Any) -> TypeAdapter[Any]:
    """Inside a tuple, as dataclasses take such a configuration from what stands around them only."""
    return TypeAdapter(tuple[hint], config=STRICT)


def _place(path: tuple[int | str, ...]) -> str:
    return "".join(f"[{each}]" if isinstance(each, int) else f".{each}" for each in path)


def _wrong(error: Any) -> str:
    if error["type"] == "unexpected_keyword_argument":
        return "is unknown"
    if error["type"] == "missing":
        return "is missing"
    return f"is {error['input']!r}; {error['msg'][0].lower()}{error['msg'][1:]}"
