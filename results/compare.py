"""Settings in which two specs differ. Standard library only: planning uses it too."""

from collections.abc import Mapping
from typing import Any

from results.canonical import flatten
from results.schema import RunRecord

# Top-level keys of a spec that say which copy of the inputs was read and which run this is, not how it was run.
IDENTITY = frozenset({"kind", "seed", "inputs"})
ABSENT = object()


def settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of a spec that are part of the recipe, by dotted key."""
    return flatten({key: value for key, value in spec.items() if key not in IDENTITY})


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings in which two specs differ: dotted key -> (value in a, value in b), ABSENT where one has none."""
    left, right = settings(a), settings(b)
    keys = sorted(left.keys() | right.keys())
    pairs = {key: (left.get(key, ABSENT), right.get(key, ABSENT)) for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def departures(reference: Mapping[str, Any], record: RunRecord) -> dict[str, tuple[Any, Any]]:
    """Settings in which a run differs from what is planned now: dotted key -> (planned value, the run's).

    A setting that the run does not hold was added since, and one at its default that is planned no more is gone since:
    names leave out defaults, so neither made a difference when it was run.
    """
    found = differences(reference, record.resolved)
    gone = {key for key, (planned, had) in found.items() if planned is ABSENT and (key in record.defaults or had == {})}
    return {key: pair for key, pair in found.items() if pair[1] is not ABSENT and key not in gone}
