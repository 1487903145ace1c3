"""What is said before a sweep starts: what the machine multiplies in, and how long the missing runs will take."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from plan_helpers import DIGESTS, TINY, FakeCatalogue, record_of, without_details
from plan_helpers import PAPERS_TABLE1 as TABLE1

from experiments.configuration.overrides import apply, parse
from experiments.launching.forecast import forecast
from experiments.planning.plan import Plan, build_plan
from experiments.planning.specs import PretrainSpec
from experiments.planning.timing import Timing
from experiments.running import hardware
from results.schema import RunRecord

HELD: dict[str, Any] = {"pretrain": 100.0, "text_lm": 30.0, "classify": 10.0, "retrieve": 20.0, "caption": 40.0}
# 8 trained encoders, one that is only written down, the language model, three transfers of each of the nine, and
# captions of none
PROCESS_SECONDS = 9 * 100 + 30 + 9 * 70 + HELD["caption"]


def plan(*changes: str, seed: int = 1) -> Plan:
    config = apply(without_details(TINY.config), parse(changes))
    return build_plan([TABLE1], [seed], TINY, config, FakeCatalogue(), DIGESTS)


AMX, FP32 = ({"device": "cpu", "cpu": "A", "multiplies_in": each} for each in ("bf16 (AMX)", "fp32"))


def records(seed: int = 0, factor: float = 1.0, env: Mapping[str, str] = AMX) -> list[RunRecord]:
    """Finished runs of a seed."""
    done = []
    for run in plan(seed=seed).runs:
        images = run.spec.images if isinstance(run.spec, PretrainSpec) else 0
        seconds = factor * HELD[run.plain.get("task", run.kind.value)]
        done.append(replace(record_of(run, {}, seconds=seconds, images_seen=images), env=env))
    return done


def test_another_seed_takes_as_long_as_the_finished_one_shared_by_the_workers() -> None:
    made = plan()
    assert PROCESS_SECONDS == 1600
    expected = "about 13 min 20 s expected (finished runs: 26 min 40 s on A, bf16 (AMX))"
    said = forecast(made.runs, 2, AMX, Timing(records()))
    assert said == f"this machine multiplies in bf16 (AMX); {expected}"


@pytest.mark.parametrize("busy", [0, 2, 3])
def test_a_seed_of_a_busy_machine_changes_nothing(busy: int) -> None:
    held = [each for seed in (0, 2, 3) for each in records(seed, 4.0 if seed == busy else 1.0)]
    assert "about 26 min 40 s expected" in forecast(plan().runs, 1, AMX, Timing(held))
    two = [*records(0), *records(2, 4.0)]
    assert "about 26 min 40 s expected" in forecast(plan().runs, 1, AMX, Timing(two)), "of two the shorter"


def test_where_the_work_of_runs_is_known_a_busy_machine_makes_none_longer() -> None:
    loaded = [replace(each, busy_seconds=each.seconds / 4) for each in records(0, 4.0, {**AMX, "threads": "1"})]
    assert "about 26 min 40 s expected" in forecast(plan().runs, 1, AMX, Timing([*loaded, *records(2, 3.0)]))
    threaded = [replace(each, env={**AMX, "threads": "2"}) for each in loaded]
    assert "about 1 h 46 min expected" in forecast(plan().runs, 1, AMX, Timing(threaded)), "their work is shared"


def test_a_device_that_ran_a_part_takes_its_ratio_for_the_rest() -> None:
    other = {**AMX, "cpu": "B"}
    some = [each for each in records(2, 1.5, other) if each.run_id.startswith(("pretrain-lcl", "transfer-classify"))]
    timing = Timing([*records(), *some])
    assert timing.ratio("B, bf16 (AMX)", "A, bf16 (AMX)") == pytest.approx(1.5)
    said = forecast(plan().runs, 1, other, timing)
    assert "about 40 min 00 s expected" in said and "in part of A, bf16 (AMX) × 1.50" in said


def test_a_machine_nothing_was_run_on_says_so_and_without_bf16_takes_longer() -> None:
    said = forecast(plan().runs, 2, {**AMX, "cpu": "B"}, Timing(records()))
    assert "about 13 min 20 s expected" in said and "nothing was ever run on this machine" in said
    said = forecast(plan().runs, 2, FP32, Timing(records()))
    assert "multiplies in fp32; about 26 min 40 s expected" in said and "× 2 for fp32" in said


def test_pre_training_takes_longer_with_more_images() -> None:
    more = plan(f"pretrain.images={3 * TINY.config.pretrain.images}")
    trained = [run for run in more.runs if isinstance(run.spec, PretrainSpec) and run.spec.images]
    assert "about 5 min 00 s expected" in forecast(trained[:1], 1, AMX, Timing(records()))


def test_what_is_not_known_is_not_made_up() -> None:
    assert "is not known beforehand" in forecast(plan().runs, 2, AMX, Timing(()))


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


@pytest.mark.parametrize(
    ("native", "said", "precision"), [(True, "bf16 (CUDA)", "bf16"), (False, "fp32 (CUDA)", "fp32")]
)
def test_bf16_that_a_gpu_only_emulates_is_not_chosen(
    monkeypatch: pytest.MonkeyPatch, native: bool, said: str, precision: str
) -> None:
    """A V100 or T4 computes it, slower than fp32; PyTorch counts that as supported unless it is asked otherwise."""

    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert (hardware.multiplies_in(), hardware.best_precision()) == (said, precision)
