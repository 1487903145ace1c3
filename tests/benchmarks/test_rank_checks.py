"""The checks of ranks find nothing here, would find something, and print one table."""

from dataclasses import replace

import pytest
import torch
from ranks import Ranks

from benchmarks import rank_checks
from benchmarks.ranks import pairs
from data.block import block


def apart(rank: int, world: int) -> torch.Tensor:
    """Of shares that make up the whole, and of shares that leave a pair out."""
    noise = pairs(5, 0)
    whole = replace(noise, images=noise.images.double())
    own = block(whole, rank, world)
    fewer = block(whole, rank, world + 1)
    return torch.tensor([rank_checks.apart("fsdp2", own, whole), rank_checks.apart("ddp", fewer, whole)])


@pytest.mark.slow
def test_shards_of_all_pairs_end_as_one_process_and_those_of_fewer_do_not(ranks: Ranks) -> None:
    same, other = ranks(apart, 2)[0].tolist()
    assert same < 1e-10 and other > 1e-4


@pytest.mark.parametrize(("gpus", "columns"), [(0, 1), (1, 1), (4, 2)])
def test_the_table_has_nccl_where_there_is_a_gpu_for_each_rank(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gpus: int, columns: int
) -> None:
    monkeypatch.setattr("sys.argv", ["rank_checks"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # main empties it
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "H100")
    monkeypatch.setattr(torch.cuda.nccl, "version", lambda: (2, 28, 9))
    monkeypatch.setattr(rank_checks, "ask", lambda ranks, port: {"ddp": f"{ranks}"})
    assert rank_checks.main() == 0
    said = capsys.readouterr().out
    assert said.count("| 2 |") == 1 and ("nccl, 4 GPUs" in said) == (gpus == 4)
    assert said.splitlines()[-1] == ("| ddp | 4 | 2 |" if columns == 2 else "| ddp | 2 |")
    assert (f"this machine has {gpus}" in said) == (columns == 1)
