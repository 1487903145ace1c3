"""Typed values from text and from JSON, by the annotations of frozen dataclasses.

The two readers share one idea of a type: nested dataclass, `X | None`, `tuple[X, ...]`, `tuple[X, Y]`, `Literal`,
enumeration, Path, str, bool, int, float. Nothing is guessed: "1" is no bool, 1.5 no int.
"""

import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class TypeMismatch(ValueError):
    """A value that is not of the type asked for; `expected` says in words what is."""

    def __init__(self, expected: str, detail: str = "") -> None:
        super().__init__(detail or f"expected {expected}")
        self.expected = expected


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
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if type(None) in arguments and text.lower() == "none":
            return None
        return _first(hint, [each for each in arguments if each is not type(None)], text)
    if origin is Literal:
        return _chosen(hint, {str(each): each for each in arguments}, text)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return _chosen(hint, {str(each.value): each for each in hint}, text)
    if origin is tuple:
        parts = [part.strip() for part in text.strip("()").split(",") if part.strip()]
        kinds = [arguments[0]] * len(parts) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(parts):
            raise TypeMismatch(describe(hint))
        return tuple(parse_text(kind, part) for kind, part in zip(kinds, parts, strict=True))
    if hint is bool:
        return _chosen(hint, {"true": True, "false": False}, text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise TypeMismatch(describe(hint)) from None
    if hint is Path:
        if not text:
            raise TypeMismatch(describe(hint))
        return Path(text).expanduser()
    if hint is str:
        return text
    raise TypeMismatch(f"nothing: {describe(hint)} cannot be written as one value, set a key below it")


def from_plain(hint: Any, value: Any, where: str = "value") -> Any:
    """A value of that type from decoded JSON; the inverse of `results.canonical.plain` for configs and specs.

    Raises TypeMismatch naming the place, the value and the type; unknown and missing keys are named too.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        complaints = []
        for each in arguments:
            if each is not type(None):
                try:
                    return from_plain(each, value, where)
                except TypeMismatch as error:
                    complaints.append(error)
        raise complaints[0] if len(complaints) == 1 else _mismatch(hint, value, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return _dataclass_from_plain(hint, value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise _mismatch(hint, value, where)
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            raise _mismatch(hint, value, where)
        return tuple(
            from_plain(kind, each, f"{where}[{i}]") for i, (kind, each) in enumerate(zip(kinds, value, strict=True))
        )
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise _mismatch(hint, value, where)
        return {key: from_plain(arguments[1], each, f"{where}.{key}") for key, each in value.items()}
    if origin is Literal and value in arguments:
        return value
    if isinstance(hint, type) and issubclass(hint, Enum) and value in [each.value for each in hint]:
        return hint(value)
    if hint is float and type(value) in (int, float):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (str, bool, int) and type(value) is hint:
        return value
    raise _mismatch(hint, value, where)


def _dataclass_from_plain(cls: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _mismatch(cls, value, where)
    known = hints(cls)
    required = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
    unknown, missing = sorted(value.keys() - known.keys()), sorted(required - value.keys())
    if unknown or missing:
        detail = [f"unknown {name}" for name in unknown] + [f"missing {name}" for name in missing]
        raise TypeMismatch(cls.__name__, f"{where}: {', '.join(detail)} (fields of {cls.__name__}: {', '.join(known)})")
    return cls(**{name: from_plain(known[name], each, f"{where}.{name}") for name, each in value.items()})


def _first(hint: Any, kinds: list[Any], text: str) -> Any:
    for kind in kinds:
        try:
            return parse_text(kind, text)
        except TypeMismatch:
            continue
    raise TypeMismatch(describe(hint))


def _chosen(hint: Any, choices: Mapping[str, Any], text: str) -> Any:
    try:
        return choices[text]
    except KeyError:
        raise TypeMismatch(describe(hint)) from None


def _mismatch(hint: Any, value: Any, where: str) -> TypeMismatch:
    return TypeMismatch(describe(hint), f"{where} is {value!r}, expected {describe(hint)}")
