"""What a plan says of clusters follows from the model of docs/scale.md, and the model from the paper's own bill."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest
from plan_helpers import DIGESTS, decided

from experiments.configuration.distributed import ALONE, DistributedConfig, Strategy
from experiments.configuration.recipe import get_scale
from experiments.planning.catalogue import Suite
from experiments.planning.cluster import (
    CLUSTERS,
    UTILISATION,
    Cluster,
    Fit,
    exchanged,
    fit,
    on_clusters,
    parameters,
    sharded_parameters,
)
from experiments.planning.plan import Plan, build_plan
from experiments.planning.price import closed_form, work_of
from experiments.planning.specs import PretrainSpec
from experiments.tables import TABLE6A

A800 = CLUSTERS[0]


def plan(scale: str) -> Plan:
    made = get_scale(scale)
    return build_plan([TABLE6A], [0], made, decided(made.config), Suite(), DIGESTS)


def spec(scale: str) -> PretrainSpec:
    """LCL with both of its losses."""
    return next(run.spec for run in plan(scale).runs if isinstance(run.spec, PretrainSpec))


def known(found: Fit | None) -> Fit:
    assert found is not None and found.seconds is not None
    return found


def test_the_share_of_the_peak_is_that_of_the_papers_own_bill() -> None:
    flops = closed_form(spec("large14"))
    assert flops is not None
    assert flops / (512 * A800.peak * UTILISATION) == pytest.approx(5 * 86_400, rel=0.05)  # seconds on 512 A800


def test_more_gpus_take_less_memory_and_time_until_no_micro_batch_is_needed() -> None:
    found = [known(fit(spec("base16"), A800, gpus, "ddp")) for gpus in (1, 8, 64, 512)]
    assert [each.micro_batch is None for each in found] == [False, False, False, True]
    assert all(each.memory < A800.memory for each in found)
    times = [each.seconds for each in found]
    assert times == sorted(times, reverse=True)
    assert 256 < times[0] / times[3] < 512 * 4 / 3  # the second pass is gone, the exchange is new


def test_a_model_that_no_gpu_holds_has_no_micro_batch() -> None:
    assert fit(spec("large14"), replace(A800, memory=4e9), 512, "ddp") is None


def test_what_ranks_exchange_is_what_the_page_says() -> None:
    sizes, work = work_of(spec("base16"))
    assert parameters(sizes) == pytest.approx(213e6, rel=0.02)
    assert exchanged(sizes, work, 1, "ddp", 3) == exchanged(sizes, work, 1, "fsdp2", 3) == 0
    assert exchanged(sizes, work, 512, "ddp", 3) == pytest.approx(1.7e9 + 50e6 + 50e6, rel=0.02)
    assert sharded_parameters(sizes, "fsdp2") == pytest.approx(170e6, rel=0.01)
    assert exchanged(sizes, work, 512, "fsdp2", 3) == pytest.approx(4 * (2 * 43e6 + 3 * 170e6) + 100e6, rel=0.02)


def step_ms(scale: str, cluster: Cluster, gpus: int, strategy: Strategy) -> float:
    """Of 128 images a GPU, all at once."""
    asked = replace(spec(scale), images=128 * gpus, images_per_step=128 * gpus)
    found = known(fit(asked, replace(cluster, memory=1e15), gpus, strategy))
    assert found.micro_batch is None and found.seconds is not None
    return 1000 * found.seconds


@pytest.mark.parametrize("scale", ["base16", "large14"])
@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.name)
def test_the_page_s_weak_scaling_is_the_model_s(scale: str, cluster: Cluster) -> None:
    one = step_ms(scale, cluster, 1, "ddp")
    strategies: tuple[Strategy, ...] = get_args(Strategy)
    many = [f"{one / step_ms(scale, cluster, gpus, each):.0%}" for each in strategies for gpus in (8, 64, 512)]
    row = " | ".join((f"| {scale}, {cluster.name}", f"{one:.0f} ms", *many))
    assert f"{row} |\n" in (Path(__file__).parents[3] / "docs/scale.md").read_text(), row


def test_sharded_weights_leave_memory_and_cost_exchange() -> None:
    whole, parts = (known(fit(spec("large14"), A800, 512, strategy)) for strategy in ("ddp", "fsdp2"))
    sizes, _ = work_of(spec("large14"))
    held = sharded_parameters(sizes, "fsdp2")
    assert whole.memory - parts.memory == pytest.approx(16 * held * 511 / 512)
    assert parts.seconds > whole.seconds


def test_a_line_says_nodes_micro_batch_memory_and_hours() -> None:
    lines = on_clusters(plan("base16"), [], DistributedConfig(ranks=64)).splitlines()
    assert len(lines) == 1 + len(CLUSTERS)
    assert lines[1].startswith("- 64 A800 on 8 nodes: pretrain.micro_batch=")
    assert " of 80 GB a GPU, " in lines[1] and lines[1].endswith(" GPU hours")
    assert len(on_clusters(plan("small16"), [], ALONE).splitlines()) == 1 + 4 * len(CLUSTERS)
    head, line, *_ = on_clusters(plan("base16"), [], DistributedConfig(ranks=64, strategy="fsdp2")).splitlines()
    assert "docs/scale.md with fsdp2 at" in head and line != lines[1]
