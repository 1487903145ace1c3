"""Names leave out what nobody chose: the two parts of a value, and the value made of them again."""

from dataclasses import dataclass, field, make_dataclass
from typing import Any

import pytest

from results.canonical import merge, plain, run_id, split


@dataclass(frozen=True, kw_only=True)
class Inner:
    depth: int = 2
    width: int = 8


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    rate: float = 0.5
    inner: Inner = field(default_factory=Inner)
    at_once: int = field(default=64, metadata={"hashed": False})
    extra: dict[str, Any] = field(default_factory=dict)


def name(value: Any) -> str:
    return run_id("kind", "label", split(value)[0])


def test_fields_at_their_defaults_are_left_out_and_others_stay() -> None:
    assert split(Outer(name="a")) == (
        {"name": "a"},
        {"rate": 0.5, "inner.depth": 2, "inner.width": 8, "at_once": 64, "extra": {}},
    )
    hashed, left = split(Outer(name="a", rate=0.25, inner=Inner(depth=3), extra={"b": 1}))
    assert hashed == {"name": "a", "rate": 0.25, "inner": {"depth": 3}, "extra": {"b": 1}}
    assert left == {"inner.width": 8, "at_once": 64}


@pytest.mark.parametrize(
    "value",
    [Outer(name="a"), Outer(name="b", rate=1.0, inner=Inner(width=1), at_once=2, extra={"c": {"d": [1, 2]}})],
)
def test_the_parts_make_the_whole(value: Outer) -> None:
    assert merge(*split(value)) == plain(value)


def test_what_decides_no_result_is_in_no_name() -> None:
    assert name(Outer(name="a", at_once=2)) == name(Outer(name="a"))
    assert split(Outer(name="a", at_once=2))[1]["at_once"] == 2
    assert name(Outer(name="a", rate=0.25)) != name(Outer(name="a"))


def test_a_new_field_with_a_default_renames_nothing() -> None:
    more = make_dataclass("more", [("new", str, field(default="x", kw_only=True))], bases=(Outer,), frozen=True)
    assert name(more(name="a", rate=0.25)) == name(Outer(name="a", rate=0.25))
    assert name(more(name="a", rate=0.25, new="y")) != name(Outer(name="a", rate=0.25))


def test_an_option_that_came_later_changes_no_byte_until_it_is_used() -> None:
    late = field(default=None, kw_only=True, metadata={"later": True})
    more = make_dataclass("more", [("new", int | None, late)], bases=(Outer,), frozen=True)
    assert plain(more(name="a")) == plain(Outer(name="a")) and split(more(name="a")) == split(Outer(name="a"))
    used = more(name="a", new=3)
    assert plain(used)["new"] == split(used)[0]["new"] == 3 and merge(*split(used)) == plain(used)


def test_declarations_behind_plain_mappings_apply_where_they_stand() -> None:
    tree = {"config": plain(Inner(depth=3)), "other": plain(Inner(depth=3))}
    hashed, left = split(tree, {"config": Inner(depth=3)})
    assert hashed == {"config": {"depth": 3}, "other": {"depth": 3, "width": 8}} and left == {"config.width": 8}
    assert merge(hashed, left) == tree
