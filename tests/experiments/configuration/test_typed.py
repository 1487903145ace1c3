"""JSON back to dataclasses: the inverse of writing, strict on the way."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import pytest

from data.seeds import generator
from experiments.configuration.slurm import SlurmConfig
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
        ({"flag": 0}, "value.flag is 0; input should be a valid boolean"),
        ({"pair": [1.0]}, r"value.pair\[1\] is missing"),
        ({"many": "p"}, "value.many is 'p'"),
        ({"kind": "c"}, "value.kind is 'c'; input should be 'a' or 'b'"),
        ({"colour": "blue"}, "value.colour is 'blue'; input should be 'red'"),
        ({"inner": {"rate": "fast"}}, "value.inner.rate is 'fast'; input should be a valid number"),
        ({"inner": {"rate": True}}, "value.inner.rate is True"),
        ({"inner": {"name": "x"}}, "value.inner.rate is missing"),
        ({"inner": {"rate": 1, "speed": 2}}, "value.inner.speed is unknown"),
        ({"free": []}, "value.free is"),
        ({"perhaps": {"rate": 1, "speed": 2}}, "value.perhaps.speed is unknown"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, Any], named: str) -> None:
    with pytest.raises(TypeMismatch, match=named):
        from_plain(Outer, plain(VALUE) | change)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(TypeMismatch, match="value.flag is 0.*; value.kind is 'c'|value.kind is 'c'.*; value.flag is 0"):
        from_plain(Outer, plain(VALUE) | {"flag": 0, "kind": "c"})


def test_what_a_class_refuses_is_raised_as_it_says_it() -> None:
    with pytest.raises(ValueError, match="^slurm.time must be at least 1, got 0$"):
        from_plain(SlurmConfig, {"time": 0})


def test_numbers_come_back_to_the_last_bit() -> None:
    numbers = generator("floats").standard_normal(10_000) * 10.0 ** generator("powers").integers(-300, 300, 10_000)
    assert from_plain(tuple[float, ...], numbers.tolist()) == tuple(numbers.tolist())


def test_paths_read_from_text() -> None:
    assert from_plain(Path | None, "a/b") == Path("a/b") and from_plain(Path | None, None) is None
