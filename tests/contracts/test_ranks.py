"""What every registered objective owes data parallelism: any division of a batch over ranks gives the same gradients.

A new file in objectives/ is picked up by itself (INV-D-1).
"""

import functools
from collections.abc import Callable

import pytest
import torch
from helpers import batch_for
from rank_shards import in_bf16, share_sharded
from rank_steps import SHARES, Found, held, objective, share, step, wide
from ranks import Ranks

from objectives.registry import available

NAMES = available()
WITHIN = {torch.float32: 1e-5, torch.float64: 1e-10}  # absolute and relative


@functools.cache
def alone(name: str, dtype: torch.dtype) -> Found:
    """The step of one process that holds all documents."""
    of = objective(name, dtype)
    return step(of, wide(batch_for(of, held(name)), dtype))


@pytest.fixture(scope="module")
def together(ranks: Ranks) -> Callable[[torch.dtype, int], list[dict[str, dict[str, Found]]]]:
    """For a dtype and a number of ranks what each rank found, by objective and division."""
    return functools.cache(lambda dtype, world: ranks(share, world, NAMES, dtype))


@pytest.mark.parametrize("dtype", WITHIN, ids=["float32", "float64"])
@pytest.mark.parametrize("division", SHARES)
@pytest.mark.parametrize("name", NAMES)
def test_inv_d_1_ranks_give_the_losses_and_gradients_of_one_process(
    together: Callable[[torch.dtype, int], list[dict[str, dict[str, Found]]]],
    name: str,
    division: str,
    dtype: torch.dtype,
) -> None:
    expected, close = alone(name, dtype), {"atol": WITHIN[dtype], "rtol": WITHIN[dtype]}
    assert expected["loss"] > 0
    for answer in together(dtype, len(SHARES[division])):
        found = answer[name][division]
        torch.testing.assert_close(found["loss"], expected["loss"], **close)
        torch.testing.assert_close(found["means"], expected["means"], **close)
        assert found["gradients"].keys() == expected["gradients"].keys()
        torch.testing.assert_close(found["gradients"], expected["gradients"], **close)


@pytest.fixture(scope="module")
def sharded(ranks: Ranks) -> list[dict[str, dict[str, Found]]]:
    """What each of two ranks found whose blocks FSDP2 shards."""
    return ranks(share_sharded, 2, NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_ranks_of_sharded_weights_give_them_as_well(sharded: list[dict[str, dict[str, Found]]], name: str) -> None:
    """Also where a rank holds nothing: every rank runs every block, or the others would wait for it."""
    for answer in sharded:
        assert answer[name].keys() == {"5-3", "8-0"}
        for found in answer[name].values():
            torch.testing.assert_close(found, alone(name, torch.float64), atol=1e-10, rtol=1e-10)


@pytest.mark.slow
def test_autocast_keeps_casts_of_sharded_weights_as_of_whole_ones(ranks: Ranks) -> None:
    """BLIP-2 reads thrice: autocast remembers a block's weights in bf16, which are gathered anew for each pass."""
    whole, sharded = ranks(in_bf16, 2, "blip2")[0]
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3
    torch.testing.assert_close(sharded, whole, atol=1e-6, rtol=1e-5)
