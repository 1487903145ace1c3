"""What names depend on, written down: `python tests/golden_names.py` after a new option, a new table or a new protocol.

It refuses to take a default that changed while the protocol beside it did not: equal names would then mean different
runs.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest has it

from plan_helpers import DIGESTS, decided

from backbones.sizes import LanguageSize, VisionSize
from experiments.configuration.recipe import get_scale
from experiments.planning import plan, resolver, specs
from experiments.planning.catalogue import Suite
from experiments.tables import TABLES
from objectives import registry as objectives
from results.canonical import flatten, plain
from transfer import registry as tasks
from transfer.dialogue import registry as stages
from transfer.dialogue.recipe import PROTOCOL

FILE = Path(__file__).parent / "golden" / "names.json"
Declared = dict[str, dict[str, Any]]  # what declares -> {"protocol", "defaults"}


def defaults(cls: type) -> dict[str, Any]:
    """Declared defaults of a dataclass by dotted field, as JSON holds them."""
    found = {f.name: f.default if f.default is not MISSING else f.default_factory for f in fields(cls)}
    made = {name: value() if callable(value) else value for name, value in found.items() if value is not MISSING}
    return flatten(plain(made))


def declared() -> Declared:
    """Every default that a name leaves out, with the protocol that vouches for it."""
    made: Declared = {}
    for name in objectives.available():
        objective = objectives.get(name)
        made[f"objective {name}"] = {"protocol": objective.protocol, "defaults": defaults(objective.Config)}
    for name in tasks.available():
        task = tasks.get(name)
        made[f"task {name}"] = {"protocol": task.protocol, "defaults": defaults(task.Config)}
    for name in stages.available():
        made[f"stage {name}"] = {"protocol": PROTOCOL, "defaults": defaults(stages.get(name).Config)}
    for cls in (VisionSize, LanguageSize, specs.PretrainSpec, specs.ObjectiveSpec, specs.CorpusSpec):
        made[cls.__name__] = {"protocol": resolver.PRETRAIN_PROTOCOL, "defaults": defaults(cls)}
    made["TextLmSpec"] = {"protocol": resolver.TEXT_LM_PROTOCOL, "defaults": defaults(specs.TextLmSpec)}
    return made


def runs() -> dict[str, list[str]]:
    """Names of all runs of the declared tables, by scale, over made-up data."""
    made = {}
    for name in ("tiny", "base16"):
        scale = get_scale(name)
        planned = plan.build_plan(tuple(TABLES.values()), [0], scale, decided(scale.config), Suite(), DIGESTS)
        made[name] = sorted(run.run_id for run in planned.runs)
    return made


def broken(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Defaults that changed under an unchanged protocol."""
    return [
        f"{who}: {key} was {old!r} and is {now[who]['defaults'][key]!r} under protocol {now[who]['protocol']}"
        for who, held in before.items()
        if who in now and held["protocol"] == now[who]["protocol"]
        for key, old in held["defaults"].items()
        if key in now[who]["defaults"] and now[who]["defaults"][key] != old
    ]


def main() -> None:
    """Write the file anew, unless a default changed in silence."""
    new = declared()
    if FILE.exists() and (wrong := broken(json.loads(FILE.read_text())["declared"], new)):
        raise SystemExit("bump the protocol first: " + "; ".join(wrong))
    FILE.write_text(json.dumps({"declared": new, "runs": runs()}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
