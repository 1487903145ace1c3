"""One JSON text for one value: sorted keys, no spaces, finite numbers only. The hash of it names runs."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

HASH_DIGITS = 12


def plain(value: Any, where: str = "value") -> Any:
    """The value as JSON types: dataclasses and mappings become objects, tuples lists, enums their values.

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
        return {f.name: plain(getattr(value, f.name), f"{where}.{f.name}") for f in fields(value)}
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


def flatten(spec: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of nested mappings by dotted key. Lists are leaves; so is an empty mapping."""
    leaves: dict[str, Any] = {}
    for key, value in spec.items():
        if isinstance(value, Mapping) and value:
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves
