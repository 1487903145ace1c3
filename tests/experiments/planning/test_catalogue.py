"""The real objectives and tasks answer as planning expects, and every declared table can be planned from them."""

from typing import Literal, get_origin

import pytest
from plan_helpers import DIGESTS, decided

from experiments.configuration.corpora import TASKS
from experiments.configuration.overrides import ConfigError, apply, parse
from experiments.configuration.recipe import SCALES, get_scale
from experiments.configuration.typed import from_plain, hints
from experiments.planning.catalogue import Suite
from experiments.planning.plan import build_plan
from experiments.planning.specs import PretrainSpec, read_spec, to_plain
from experiments.tables import TABLES
from objectives import registry as objectives
from transfer import registry as tasks


def test_more_slots_than_documents_are_cut_for_are_refused_for_documents() -> None:
    chosen = get_scale("tiny")
    wide = apply(decided(chosen.config), parse(["objectives.emu.queries=32"]))
    with pytest.raises(ConfigError, match="row 'Emu': an image takes 32 slots of a row, .* the 16 patches"):
        build_plan((TABLES["table1"],), [0], chosen, wide, Suite(), DIGESTS)


@pytest.mark.parametrize("scale", SCALES)
def test_every_declared_table_resolves(scale: str) -> None:
    chosen = get_scale(scale)
    held = {**DIGESTS, "llm": "llm-v1", **{f"dialogue.{name}": f"{name}-v1" for name in ("align", "tune", "gqa")}}
    made = build_plan(tuple(TABLES.values()), [0], chosen, decided(chosen.config), Suite(), held)
    assert not any(run.problem for run in made.runs)
    for run in made.runs:
        assert read_spec(to_plain(run.spec)) == run.spec
        if isinstance(run.spec, PretrainSpec) and run.spec.objective is not None:
            config = Suite().config_class("objectives", run.spec.objective.name)
            from_plain(config, run.spec.objective.config)  # what a job does with it


def closed_choices() -> list[str]:
    """Keys of every closed choice of every objective and transfer task."""
    found = []
    for group, names in (("objectives", objectives.available()), ("transfer", tasks.available())):
        for name in names:
            for field, hint in hints(Suite().config_class(group, name)).items():
                if get_origin(hint) is Literal:
                    found.append(f"{group}.{name}.{field}")
    return found


def test_what_is_no_choice_is_refused_while_planning() -> None:
    keys = closed_choices()
    assert {"objectives.lcl.skip_rule", "objectives.blip2.negatives", "transfer.classify.probe_tokens"} <= set(keys)
    for key in (*keys, "transfer.classify.probes"):
        with pytest.raises(ConfigError, match=f"--set {key}=sometimes: 'sometimes' is not .*one of "):
            apply(get_scale("tiny").config, parse([f"{key}=sometimes"]))


@pytest.mark.parametrize("task", TASKS)
def test_every_task_of_a_column_declares_the_metrics_of_its_columns(task: str) -> None:
    from transfer.registry import get

    columns = [c for table in TABLES.values() for c in (*table.columns, *table.more_columns) if c.task == task]
    assert columns and {column.metric for column in columns} <= set(get(task).metrics)


def test_real_settings_can_be_changed_and_mistakes_are_named() -> None:
    config = get_scale("tiny").config
    changed = apply(config, parse(["objectives.lcl.contrast_weight=0.5", "transfer.caption.decoding.beams=3"]))
    assert changed.objectives["lcl"]["contrast_weight"] == 0.5
    assert changed.transfer["caption"]["decoding.beams"] == 3
    with pytest.raises(ConfigError, match="Did you mean 'contrast_weight'"):
        apply(config, parse(["objectives.lcl.contrast_wieght=0.5"]))
    with pytest.raises(ConfigError, match="did you mean 'lcl'"):
        apply(config, parse(["objectives.lclr.contrast_weight=0.5"]))
    with pytest.raises(ConfigError, match="unknown size 'tyny'"):
        Suite().size("tyny")
