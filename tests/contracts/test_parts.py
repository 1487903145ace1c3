"""What every registered objective owes a batch in parts: the losses and gradients of the batch as a whole.

A new file in objectives/ is picked up by itself; one whose features meet outside `info_nce` is refused.
"""

import pytest
import torch
from helpers import batch_for
from rank_parts import in_parts, share_in_parts
from rank_shards import share_sharded
from rank_steps import held, objective, step, wide
from ranks import Ranks
from torch import Tensor, nn

from objectives import parts
from objectives.functional import Losses, Term, info_nce
from objectives.gather import gather_rows
from objectives.registry import available

CLOSE = {"atol": 1e-10, "rtol": 1e-10}


@pytest.mark.parametrize("name", available())
def test_parts_of_any_size_give_the_losses_and_gradients_of_the_batch(name: str) -> None:
    of = objective(name, torch.float64)
    batch = wide(batch_for(of, held(name)), torch.float64)
    expected = step(of, batch)
    for documents in (1, 3):
        torch.testing.assert_close(in_parts(of, batch, documents), expected, **CLOSE)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blip2", "lcl"])
def test_ranks_with_other_numbers_of_parts_do_as_well(ranks: Ranks, name: str) -> None:
    of = objective(name, torch.float64)
    expected = step(of, wide(batch_for(of, held(name)), torch.float64))
    for found in ranks(share_in_parts, 3, name, 2):  # of eight documents, the first rank has one part of two
        torch.testing.assert_close(found, expected, **CLOSE)


@pytest.mark.slow
def test_ranks_of_sharded_weights_make_as_many_parts_of_unequal_shares(ranks: Ranks) -> None:
    """Of eight documents ranks hold 3, 0 and 5: by twos they would make 2, 1 and 3 parts."""
    of = objective("lcl", torch.float64)
    expected = step(of, wide(batch_for(of, held("lcl")), torch.float64))
    for answer in ranks(share_sharded, 3, ["lcl"], 2):
        for found in answer["lcl"].values():
            torch.testing.assert_close(found, expected, **CLOSE)


class Drawing(nn.Module):
    """Contrasts features behind dropout, and gathers between its draws."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.drawn = nn.Parameter(torch.eye(4)), list[Tensor]()

    def forward(self, x: Tensor) -> Losses:
        kept = torch.rand(x.shape)
        gather_rows(x)
        self.drawn.append(torch.stack([kept, torch.rand(x.shape)]))
        term, watch = info_nce((x * kept) @ self.weight, x, torch.tensor(5.0))
        return Losses({"contrast": term}, {"contrast": 1.0}, watch)


def test_both_passes_draw_alike_and_parts_do_not() -> None:
    of, given = Drawing(), torch.randn(3, 2, 4)
    parts.backward(3, lambda part: of(given[part]))
    first, second = of.drawn[:3], of.drawn[3:]
    torch.testing.assert_close(first, second, atol=0, rtol=0)
    assert len({float(each.sum()) for each in first}) == 3


def test_features_that_meet_elsewhere_are_refused() -> None:
    weight = torch.ones(4, requires_grad=True)

    def forward(part: int) -> Losses:
        rows, _ = gather_rows(torch.ones(2, 4) * weight)
        return Losses({"sum": Term(rows.sum(), torch.tensor(1.0))}, {"sum": 1.0}, {})

    with pytest.raises(ValueError, match="gathered with gradients outside `info_nce`.*leave out pretrain.micro_batch"):
        parts.backward(2, forward)
