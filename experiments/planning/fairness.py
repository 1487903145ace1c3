"""Rows of one table may differ in what they declare and in nothing else. Planning refuses every other table.

What a row declares: its objective, its corpus (with it the corpus's learning rate and layout), its transfer mode and
its overrides. What an override changes is found by resolving the row without it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from experiments.configuration.corpora import get_corpus
from experiments.planning.specs import PlannedRun
from results.compare import ABSENT, differences
from results.schema import FULL, Kind, Row

PRETRAIN = Kind.PRETRAIN.value
Differences = dict[str, tuple[Any, Any]]  # dotted key -> value in one row and in the other


class FairnessError(ValueError):
    """Two rows of a table differ in a setting that neither declares."""


@dataclass(frozen=True)
class Resolved:
    """A row with its runs for one seed, by stage."""

    row: Row
    stages: Mapping[str, PlannedRun]
    bare: Mapping[str, PlannedRun]  # without the row's overrides
    implied: frozenset[str] = frozenset()  # settings of its objective that follow from the kind of its corpus

    def overridden(self, stage: str) -> set[str]:
        """Settings of a stage that the row's overrides change."""
        return set(differences(self.bare[stage].plain, self.stages[stage].plain))


def undeclared_differences(a: Resolved, b: Resolved, stage: str = PRETRAIN) -> Differences:
    """Settings, seed or data of a stage in which two rows differ although neither says so."""
    declared = _declared(a, b, stage)
    found = {key: pair for key, pair in _differences(a, b, stage).items() if not _covered(key, declared)}
    left, right = a.stages[stage].plain, b.stages[stage].plain
    own = ("encoder", "align")  # runs of the row's own
    inputs = [{name: value for name, value in spec["inputs"].items() if name not in own} for spec in (left, right)]
    same_data = stage != PRETRAIN or (a.row.data == b.row.data and _both_trained(a, b))
    if same_data and inputs[0] != inputs[1]:
        found["inputs"] = inputs[0], inputs[1]
    if left["seed"] != right["seed"]:
        found["seed"] = left["seed"], right["seed"]
    return found


def check(table: str, rows: Sequence[Resolved]) -> None:
    """Raises FairnessError naming two rows, every undeclared setting and both values."""
    for a, b in combinations(rows, 2):
        complaints = [
            f"{stage} {key} is {_shown(left)} and {_shown(right)}"
            for stage in a.stages
            if stage in b.stages
            for key, (left, right) in undeclared_differences(a, b, stage).items()
        ]
        if complaints:
            raise FairnessError(
                f"{table}: rows {a.row.label!r} and {b.row.label!r} differ in what neither declares: "
                f"{'; '.join(complaints)}. Make them equal, or declare the difference in Row.override"
            )


def _differences(a: Resolved, b: Resolved, stage: str) -> Differences:
    left, right = a.stages[stage].plain, b.stages[stage].plain
    if stage == PRETRAIN and not _both_trained(a, b):  # an initial encoder shares the backbones and nothing else
        left, right = {"model": left["model"]}, {"model": right["model"]}
    return differences(left, right)


def _declared(a: Resolved, b: Resolved, stage: str) -> set[str]:
    """Keys in which two rows may differ; one that ends in a dot covers all keys below it."""
    declared = a.overridden(stage) | b.overridden(stage)
    if a.row.mode != b.row.mode:
        declared |= {"mode", "recipe."} if FULL in (a.row.mode, b.row.mode) else {"mode"}
    if stage == PRETRAIN and a.row.objective != b.row.objective:
        declared.add("objective.")
    if stage == PRETRAIN and a.row.data != b.row.data:
        declared |= {"data.", *(a.implied ^ b.implied)}
        if _both_trained(a, b) and get_corpus(a.row.data).rate != get_corpus(b.row.data).rate:
            declared.add("optim.lr")
    return declared


def _covered(key: str, declared: set[str]) -> bool:
    return any(key == each or (each.endswith(".") and key.startswith(each)) for each in declared)


def _both_trained(a: Resolved, b: Resolved) -> bool:
    return a.row.objective is not None and b.row.objective is not None


def _shown(value: Any) -> str:
    return "not set" if value is ABSENT else repr(value)
