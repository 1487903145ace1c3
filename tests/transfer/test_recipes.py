"""Recipes that would train backwards, or divide by nothing, are refused by the name of their field."""

from dataclasses import replace

import pytest

from transfer.classify import Classify
from transfer.dialogue.recipe import STAGES


@pytest.mark.parametrize("recipe", [Classify.Config(), STAGES["align"], STAGES["tune"]])
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("lr", -1.0, "lr must be positive, got -1.0"),
        ("lr", 0.0, "lr must be positive, got 0.0"),
        ("eps", 0.0, "eps must be positive, got 0.0"),
        ("grad_clip", -1.0, "grad_clip must be positive, got -1.0"),
        ("weight_decay", -1e-4, "weight_decay must not be negative, got -0.0001"),
        ("betas", (0.9, 1.5), r"betas are two numbers in \[0, 1\), got 0.9 and 1.5"),
        ("betas", (-0.1, 0.9), r"betas are two numbers in \[0, 1\), got -0.1 and 0.9"),
    ],
)
def test_what_no_optimiser_can_use_is_refused(recipe, field, value, said):
    with pytest.raises(ValueError, match=said):
        replace(recipe, **{field: value})
    replace(recipe, grad_clip=None, weight_decay=0.0, betas=(0.0, 0.999))


def test_a_pretrained_part_may_be_left_as_it_is_and_not_be_untrained():
    assert Classify.Config(lr_pretrained=0.0).lr_pretrained == 0
    with pytest.raises(ValueError, match="lr_pretrained must be positive, or 0 to train nothing of it, got -0.1"):
        Classify.Config(lr_pretrained=-0.1)
