"""How many processes do a run: no part of its name, refused while planning where a step cannot be shared."""

import pytest
import torch
from plan_helpers import DIGESTS, TINY, FakeCatalogue, without_details

from experiments.configuration.config import RunConfig
from experiments.configuration.distributed import DistributedConfig
from experiments.configuration.overrides import ConfigError, apply, parse
from experiments.launching import preflight
from experiments.launching.preflight import NotReady, check_ranks
from experiments.planning.plan import Plan, build_plan
from experiments.planning.specs import ranks
from experiments.tables import TABLE1, TABLE5
from results.schema import Kind, Table

ADAMW = "pretrain.optim.matrices=adamw"


def config(*changes: str) -> RunConfig:
    return apply(without_details(TINY.config), parse(changes))


def plan(table: Table, *changes: str) -> Plan:
    return build_plan([table], [0], TINY, config(*changes), FakeCatalogue(), DIGESTS)


def test_names_do_not_know_how_many_processes_do_a_run() -> None:
    one, two = plan(TABLE1, ADAMW), plan(TABLE1, ADAMW, "distributed.ranks=2")
    three = plan(TABLE1, ADAMW, "distributed.ranks=3", "distributed.strategy=fsdp2")
    assert [run.run_id for run in one.runs] == [run.run_id for run in two.runs] == [run.run_id for run in three.runs]


def test_nor_how_many_documents_are_computed_at_once() -> None:
    before, after = plan(TABLE1), plan(TABLE1, "pretrain.micro_batch=8")
    assert [run.run_id for run in before.runs] == [run.run_id for run in after.runs]
    of = {run.run_id: run.written for run in after.runs if run.kind is Kind.PRETRAIN and "initial" not in run.run_id}
    assert all(written.whole.micro_batch == 8 and "micro_batch" not in written.spec for written in of.values())
    assert all("micro_batch" not in run.written.defaults for run in before.runs)
    with pytest.raises(ConfigError, match="micro_batch is a number of documents, at least 1, or none, got 0"):
        plan(TABLE1, "pretrain.micro_batch=0")


def test_only_what_pre_trains_is_shared() -> None:
    shared = {run.kind for run in plan(TABLE1).runs if ranks(run.spec, DistributedConfig(ranks=4)) == 4}
    assert shared == {Kind.PRETRAIN}
    (initial,) = {ranks(run.spec, DistributedConfig(ranks=4)) for run in plan(TABLE1).runs if "initial" in run.run_id}
    assert initial == 1


@pytest.mark.parametrize(
    ("table", "changes", "said"),
    [
        (TABLE5, ["distributed.ranks=2"], "distributed.ranks is 2, but obelics is read in windows"),
        (
            TABLE1,
            ["distributed.ranks=32"],
            "a step of 64 images of mmc4 may hold no more than 10 entries, too few for 32",
        ),
        (TABLE1, ["distributed.ranks=0"], "distributed.ranks must be at least 1, got 0"),
        (TABLE1, ["distributed.ranks=6", "distributed.ranks_per_node=4"], "is 4, which does not divide"),
        (TABLE1, ["distributed.strategy=fsdp2"], "shards weights over ranks, and distributed.ranks is 1; raise"),
        (TABLE1, ["distributed.strategy=fsdp3", "distributed.ranks=2"], "'fsdp3' is not one of ddp, fsdp2"),
        (
            TABLE1,
            ["distributed.strategy=fsdp2", "distributed.ranks=2"],
            "matrices is muon, which orthogonalises whole matrices, .* leave distributed.strategy at ddp",
        ),
    ],
)
def test_what_ranks_cannot_share_is_refused_while_planning(table: Table, changes: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        plan(table, *changes)


def test_a_machine_with_too_few_gpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_ranks(DistributedConfig(ranks=2))
    with pytest.raises(NotReady, match="distributed.ranks is 4, and this machine has 2 GPUs"):
        check_ranks(DistributedConfig(ranks=4))
    monkeypatch.setattr(preflight, "accelerators", lambda: 0)
    check_ranks(DistributedConfig(ranks=4))  # processors are shared out by the system


def test_nodes_hold_equally_many() -> None:
    assert DistributedConfig(ranks=16).nodes == 1
    assert DistributedConfig(ranks=16, ranks_per_node=8).nodes == 2
