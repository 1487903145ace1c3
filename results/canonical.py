"""One JSON text for one value: sorted keys, no spaces, finite numbers only. The hash of it names runs.

A name depends on what somebody chose: fields at their declared defaults stay out of it (`split`), so a new option with
a default renames no finished run (as in facebookresearch/exca). Whoever changes a default bumps the protocol beside it.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any

HASH_DIGITS = 12


def plain(value: Any, where: str = "value") -> Any:
    """The value as JSON types: dataclasses and mappings become objects, tuples lists, enums their values.

    Fields whose metadata say {"later": True} are left out at their defaults: an option that came later changes no byte
    of what was written before it.

    Raises ValueError, naming the place, for anything else: a path, a tensor, NaN, a key that is not text.
    """
    if isinstance(value, Enum):
        return plain(value.value, where)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"{where} is {value}; only finite numbers can be written down")
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value) if not _late(f, value)
        }
    if isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ValueError(f"{where} has the key {wrong[0]!r}; JSON keys are text")
        return {str(key): plain(each, f"{where}.{key}") for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each, f"{where}[{index}]") for index, each in enumerate(value)]
    raise ValueError(f"{where} is a {type(value).__name__}, which JSON cannot hold: {value!r}")


def canonical_json(value: Any) -> str:
    """The one JSON text of a value. Raises ValueError as `plain` does."""
    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def spec_hash(spec: Any) -> str:
    """Hexadecimal digits that depend on the content of a spec only, not on the order of its keys."""
    return hashlib.sha256(canonical_json(spec).encode()).hexdigest()[:HASH_DIGITS]


def run_id(kind: str, label: str, spec: Any) -> str:
    """`<kind>-<label>-<hash>`: readable, safe as a folder name, and equal exactly for equal specs of one label."""
    slug = re.sub(r"[^a-z0-9_]+", "-", label.lower()).strip("-")
    return "-".join(part for part in (str(kind), slug, spec_hash(spec)) if part)


def split(value: Any, typed: Mapping[str, Any] | None = None, where: str = "") -> tuple[Any, dict[str, Any]]:
    """The JSON form of a value in two parts: what its name depends on, and the rest by dotted key.

    The rest are fields of dataclasses at their declared defaults, and fields whose metadata say
    {"hashed": False} because they decide no result. typed: dataclasses that
    stand at a dotted key of the value as plain mappings; their declarations apply there.

    Raises ValueError as `plain` does. `merge` puts the two parts together again.
    """
    typed = typed or {}
    value = typed.get(where, value)
    prefix = f"{where}." if where else ""
    if is_dataclass(value) and not isinstance(value, type):
        inner = {f.name: getattr(value, f.name) for f in fields(value) if not _left_out(f, getattr(value, f.name))}
        rest = {f.name: getattr(value, f.name) for f in fields(value) if f.name not in inner and not _late(f, value)}
        left = flatten(plain(rest, where or "value"), prefix)
    elif isinstance(value, Mapping):
        inner, left = dict(value), {}
    else:
        return plain(value, where or "value"), {}
    hashed = {}
    for key, each in inner.items():
        hashed[key], more = split(each, typed, f"{prefix}{key}")
        left |= more
    return plain(hashed, where or "value"), left


def merge(hashed: Mapping[str, Any], left: Mapping[str, Any]) -> dict[str, Any]:
    """The whole value of the two parts that `split` made."""
    whole = {key: merge(each, {}) if isinstance(each, Mapping) else each for key, each in hashed.items()}
    for key, each in left.items():
        *above, last = key.split(".")
        place = whole
        for name in above:
            place = place.setdefault(name, {})
        place[last] = each
    return whole


def _left_out(field: "Field[Any]", value: Any) -> bool:
    return not field.metadata.get("hashed", True) or _at_default(field, value)


def _at_default(field: "Field[Any]", value: Any) -> bool:
    if field.default is not MISSING:
        return bool(value == field.default)
    return field.default_factory is not MISSING and bool(value == field.default_factory())


def _late(field: "Field[Any]", value: Any) -> bool:
    return bool(field.metadata.get("later")) and _at_default(field, getattr(value, field.name))


def flatten(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted key. Lists are leaves; so is an empty mapping."""
    leaves: dict[str, Any] = {}
    for key, value in spec.items():
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
