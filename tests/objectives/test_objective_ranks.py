"""Whole objectives on two ragged ranks against one process (INV-LCL-8, INV-B2-4)."""

import pytest
import torch
from helpers import Doc, batch_for, build, documents, gradients, pairs
from torch import distributed as dist
from torch import multiprocessing as mp

from objectives.functional import means, total
from objectives.registry import available

OPTIONS = {"beit3": {"target": "rpq_random"}}  # the default's codebook is fitted before training

Case = tuple[list[Doc], list[Doc]]  # what each of two ranks holds


def cases() -> dict[str, Case]:
    some, more = pairs(5), documents(copies=2)
    ragged = {
        "lcl-3-0": ("lcl", (more[:1], more[2:3])),  # three images with context; a rank without any image
        "lcl-5-2": ("lcl", ([more[0], more[1], more[3]], [more[5], more[7]])),
        "lcl-0-0": ("lcl", (pairs(1), pairs(1, start=1))),  # leading images only
    }
    ragged |= {f"{name}-6-3": (name, (more[:3], more[4:8])) for name in ("beit3", "emu", "flamingo")}
    of_pairs = {f"{name}-3-2": (name, (some[:3], some[3:])) for name in ("clip", "coca", "blip2", "supervised")}
    assert {name for name, _ in of_pairs.values()} <= set(available())
    return ragged | of_pairs


def step(name: str, docs: list[Doc]) -> dict[str, dict[str, torch.Tensor] | torch.Tensor]:
    objective = build(name, **OPTIONS.get(name, {}))
    batch = batch_for(objective, docs)
    losses = objective(batch)
    loss = total(losses)
    found = {"loss": loss.detach(), "gradients": gradients(objective, loss), "means": means(losses)}
    if name == "blip2":
        visual = objective.connector(objective.encode(batch.images))
        drawn = objective.negatives(batch, visual.pooled, objective.context(batch))
        found["drawn"] = torch.stack([drawn.image, drawn.text], dim=1)
        local = build(name, negatives="local").negatives(batch, visual.pooled, objective.context(batch))
        found["drawn from its own"] = torch.stack([local.image, local.text], dim=1)
    return found


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    results = {}
    for case, (name, held) in cases().items():
        found = step(name, held[rank])
        for x in (found["loss"], *found["gradients"].values()):  # data parallelism: the mean over ranks
            dist.all_reduce(x)
            x /= 2
        results[case] = found
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    folder = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        # Forked, not spawned: importing torch again in two children costs more than everything else here.
        mp.start_processes(worker, (str(folder),), nprocs=2, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("case", cases())
def test_inv_lcl_8_and_inv_d_1_two_ragged_ranks_equal_one(ranks: list[dict], case: str) -> None:
    name, (first, second) = cases()[case]
    expected = step(name, [*first, *second])
    assert expected["loss"] > 0
    for found in ranks:
        torch.testing.assert_close(found[case]["loss"], expected["loss"], atol=1e-5, rtol=0)
        for parameter, grad in found[case]["gradients"].items():
            torch.testing.assert_close(grad, expected["gradients"][parameter], atol=1e-5, rtol=1e-4, msg=parameter)
        for term, mean in found[case]["means"].items():
            torch.testing.assert_close(mean, expected["means"][term], atol=1e-5, rtol=0)


def test_inv_b2_4_draws_do_not_depend_on_the_number_of_ranks(ranks: list[dict]) -> None:
    name, (first, second) = cases()["blip2-3-2"]
    together = torch.cat([found["blip2-3-2"]["drawn"] for found in ranks])
    assert torch.equal(together, step(name, [*first, *second])["drawn"])
    # The case is worth something only where a pair drew a negative of the other rank.
    assert (together[:3] >= 3).any() or (together[3:] < 3).any()


def test_local_negatives_are_pairs_of_the_own_rank(ranks: list[dict]) -> None:
    first, second = (found["blip2-3-2"]["drawn from its own"] for found in ranks)
    assert (first < 3).all() and (second >= 3).all()
