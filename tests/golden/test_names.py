"""Names are for good: no run of today may have another name tomorrow, and no name may come to mean another run."""

import copy
import json
from dataclasses import field, make_dataclass

import pytest
from golden_names import FILE, broken, declared, runs

from experiments.planning import specs
from objectives.lcl import LCL
from transfer.caption import Caption

HELD = json.loads(FILE.read_text())


def test_the_runs_of_every_table_have_the_names_they_had() -> None:
    now = runs()
    for scale, held in HELD["runs"].items():
        assert now[scale] == held, f"{scale}: a change of names needs a migration (experiments/planning/migrate.py)"


def test_no_default_changed_under_its_protocol() -> None:
    assert not broken(HELD["declared"], declared()), "equal names would mean different runs: bump the protocol"


def test_every_default_is_written_down() -> None:
    now, held = declared(), HELD["declared"]
    new = [
        f"{who}.{key}"
        for who in now
        for key in now[who]["defaults"]
        if key not in held.get(who, {"defaults": {}})["defaults"]
    ]
    assert not new and {who: now[who]["protocol"] for who in now} == {who: held[who]["protocol"] for who in held}, (
        f"run `python tests/golden_names.py` to write down {', '.join(new) or 'the new protocol'}"
    )


def test_a_changed_default_is_noticed_and_a_bumped_protocol_allows_it() -> None:
    changed = copy.deepcopy(HELD["declared"])
    changed["objective lcl"]["defaults"]["contrast_weight"] = 0.2
    (said,) = broken(HELD["declared"], changed)
    assert "objective lcl: contrast_weight was 0.1 and is 0.2" in said
    changed["objective lcl"]["protocol"] += 1
    assert not broken(HELD["declared"], changed)


@pytest.mark.parametrize("cls", [LCL, Caption])
def test_a_new_option_of_an_objective_or_a_task_changes_no_name(cls: type, monkeypatch: pytest.MonkeyPatch) -> None:
    new = [("newest", float, field(default=0.5, kw_only=True))]
    more = make_dataclass("Config", new, bases=(cls.Config,), frozen=True, kw_only=True)  # type: ignore[attr-defined]
    monkeypatch.setattr(cls, "Config", more)
    assert runs() == HELD["runs"]


def test_a_new_setting_of_the_recipe_changes_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from experiments.planning import resolver

    new = [("newest", float, field(default=0.5, kw_only=True))]
    more = make_dataclass("CorpusSpec", new, bases=(specs.CorpusSpec,), frozen=True, kw_only=True)
    monkeypatch.setattr(resolver, "CorpusSpec", more)
    assert runs() == HELD["runs"]
