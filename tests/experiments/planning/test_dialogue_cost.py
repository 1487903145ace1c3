"""The model of what dialogue costs with a 7B language model is held to what LLaVA-1.5's authors state."""

from dataclasses import replace

import pytest
from plan_helpers import DIGESTS, decided

from experiments.configuration.recipe import get_scale
from experiments.planning.catalogue import Suite
from experiments.planning.cluster import CLUSTERS
from experiments.planning.dialogue_cost import (
    GPUS,
    VICUNA_7B,
    answer_seconds,
    memory,
    of_dialogue,
    stage_seconds,
)
from experiments.planning.plan import Plan, build_plan
from experiments.planning.specs import DialogueSpec
from experiments.tables import TABLE1, TABLE4
from results.schema import Table

A800 = CLUSTERS[0]  # an A100 in all that counts here


def plan(table: Table) -> Plan:
    made = get_scale("large14")
    return build_plan([table], [0], made, decided(made.config), Suite(), DIGESTS)


@pytest.fixture(scope="module")
def specs() -> dict[tuple[str, str], DialogueSpec]:
    found = (run.spec for run in plan(TABLE4).runs)
    return {(spec.stage, spec.mode): spec for spec in found if isinstance(spec, DialogueSpec)}


def test_llava_tunes_the_model_in_the_hours_its_authors_state(specs: dict[tuple[str, str], DialogueSpec]) -> None:
    assert VICUNA_7B.weights == pytest.approx(6.74e9, rel=0.01)
    hours = {stage: stage_seconds(specs[stage, "frozen"], A800, patches=576) / 3600 for stage in ("align", "tune")}
    assert hours["tune"] == pytest.approx(10, rel=0.05) and hours["align"] == pytest.approx(3.5, rel=0.25)


def test_full_takes_longer_and_more_memory_and_one_process_does_not_hold_it(
    specs: dict[tuple[str, str], DialogueSpec],
) -> None:
    frozen, full = specs["tune", "frozen"], specs["tune", "full"]
    assert stage_seconds(full, A800) > stage_seconds(frozen, A800) > stage_seconds(specs["align", "frozen"], A800)
    assert memory(frozen, GPUS) < memory(full, GPUS) < A800.memory < 16 * VICUNA_7B.weights < memory(frozen, 1)
    assert answer_seconds(specs["align", "frozen"], A800) == 0
    assert 2 * answer_seconds(replace(frozen, benchmarks=("pope",)), A800) < answer_seconds(frozen, A800)


def test_a_plan_says_runs_hours_and_memory_where_a_row_converses() -> None:
    head, *lines = of_dialogue(plan(TABLE4), []).splitlines()
    assert head.startswith("dialogue: 4 runs of stage 1 and 9 of stage 2, if data.llm is Vicuna-7B")
    assert (
        len(lines) == len(CLUSTERS)
        and " GB a GPU with all state sharded, which is not offered for dialogue" in lines[0]
    )
    assert of_dialogue(plan(TABLE1), []) == ""
