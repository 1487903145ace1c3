"""What is said before a sweep starts: what the machine multiplies in, and how long the missing runs will take."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from plan_helpers import DIGESTS, TINY, FakeCatalogue, record_of, without_details
from plan_helpers import PAPERS_TABLE1 as TABLE1

from experiments.configuration.overrides import apply, parse
from experiments.launching.forecast import forecast
from experiments.planning.plan import Plan, build_plan
from experiments.planning.specs import PretrainSpec
from experiments.running import hardware
from results.publish import export

HELD: dict[str, Any] = {"pretrain": 100.0, "text_lm": 30.0, "classify": 10.0, "retrieve": 20.0, "caption": 40.0}
# 8 trained encoders, one that is only written down, the language model, three transfers of each of the nine, and
# captions of none
PROCESS_SECONDS = 9 * 100 + 30 + 9 * 70 + HELD["caption"]


def plan(*changes: str, seed: int = 1) -> Plan:
    config = apply(without_details(TINY.config), parse(changes))
    return build_plan([TABLE1], [seed], TINY, config, FakeCatalogue(), DIGESTS)


@pytest.fixture
def records(tmp_path: Path) -> Path:
    """Committed records of seed 0, made where bf16 is multiplied by AMX."""
    made = plan(seed=0)
    done = []
    for run in made.runs:
        stage = run.plain.get("task", run.kind.value)
        images = run.spec.images if isinstance(run.spec, PretrainSpec) else 0
        one = record_of(run, {}, seconds=HELD[stage], images_seen=images)
        done.append(replace(one, env={**one.env, "multiplies_in": "bf16 (AMX)"}))
    export(made.publication("table1", done), tmp_path)
    return tmp_path


def test_another_seed_takes_as_long_as_the_committed_one_shared_by_the_workers(records: Path) -> None:
    made = plan()
    assert PROCESS_SECONDS == 1600
    said = forecast(made, made.runs, 2, "bf16 (AMX)", records)
    expected = "about 13 min 20 s expected (committed runs: 26 min 40 s on bf16 (AMX))"
    assert said == f"this machine multiplies in bf16 (AMX); {expected}"


def test_without_bf16_in_hardware_it_takes_longer_and_says_so(records: Path) -> None:
    made = plan()
    said = forecast(made, made.runs, 2, "fp32", records)
    assert "multiplies in fp32; about 26 min 40 s expected" in said and "× 2 for fp32" in said


def test_pre_training_takes_longer_with_more_images(records: Path) -> None:
    more = plan(f"pretrain.images={3 * TINY.config.pretrain.images}")
    trained = [run for run in more.runs if isinstance(run.spec, PretrainSpec) and run.spec.images]
    said = forecast(more, trained[:1], 1, "bf16 (AMX)", records)
    assert "about 5 min 00 s expected" in said


def test_what_is_not_known_is_not_made_up(tmp_path: Path) -> None:
    made = plan()
    assert "is not known beforehand" in forecast(made, made.runs, 2, "bf16 (AMX)", tmp_path)


@pytest.mark.parametrize(
    ("has", "said", "precision"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, "bf16 (AMX)", "bf16"),
        ({"amx_bf16": False, "avx512_bf16": True}, "bf16 (AVX512-BF16)", "bf16"),
        ({"avx512_f": True, "amx_int8": True}, "fp32", "fp32"),
        ({}, "fp32", "fp32"),
    ],
)
def test_precision_follows_what_the_processor_can(
    monkeypatch: pytest.MonkeyPatch, has: dict[str, bool], said: str, precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert (hardware.multiplies_in(), hardware.best_precision()) == (said, precision)
