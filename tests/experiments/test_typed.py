"""JSON back to dataclasses: the inverse of writing, strict on the way."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from experiments.configuration.typed import TypeMismatch, from_plain
from results.canonical import plain


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    pair: tuple[float, float]
    many: tuple[str, ...]
    kind: Literal["a", "b"]
    colour: Colour
    flag: bool
    free: dict[str, Any]
    perhaps: Inner | None = None


VALUE = Outer(
    inner=Inner(rate=0.5, name="x"), pair=(1.0, 2.0), many=("p", "q"), kind="b", colour=Colour.RED, flag=False,
    free={"k": [1, None]}, perhaps=None,
)  # fmt: skip


def test_what_was_written_reads_back_equal() -> None:
    assert from_plain(Outer, plain(VALUE)) == VALUE


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"flag": 0}, "value.flag is 0, expected true or false"),
        ({"pair": [1.0]}, r"value.pair is \[1.0\]"),
        ({"many": "p"}, "value.many is 'p'"),
        ({"kind": "c"}, "one of a, b"),
        ({"colour": "blue"}, "one of red"),
        ({"inner": {"rate": "fast"}}, "value.inner.rate is 'fast', expected a number"),
        ({"inner": {"rate": True}}, "value.inner.rate is True"),
        ({"inner": {"name": "x"}}, "value.inner: missing rate"),
        ({"inner": {"rate": 1, "speed": 2}}, "value.inner: unknown speed .*fields of Inner: rate, name"),
        ({"free": []}, "value.free is"),
        ({"perhaps": {"rate": 1, "speed": 2}}, "value.perhaps: unknown speed"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(TypeMismatch, match=named):
        from_plain(Outer, plain(VALUE) | change)


def test_paths_read_from_text() -> None:
    assert from_plain(Path | None, "a/b") == Path("a/b") and from_plain(Path | None, None) is None
