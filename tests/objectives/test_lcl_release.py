"""Our LCL under the released reading computes what OpenGVLab/LCL computes: features, both losses, every gradient.

The official numbers are in tests/golden/official_lcl.json (official_lcl.py beside it ran the official code).
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lcl_release import FILE, batch, ours, renamed, weights
from torch import Tensor
from torch.nn import functional as F

from backbones.masks import causal
from data.batch import Layout
from objectives.functional import total
from objectives.lcl import LCL

OFFICIAL = json.loads(FILE.read_text())
HELD = weights(OFFICIAL["shapes"])


@pytest.fixture
def lcl(tmp_path: Path) -> LCL:
    return ours(HELD, tmp_path / "lcl.pt")


def test_every_official_parameter_has_a_place_in_ours() -> None:
    mapped = {theirs for theirs, _ in renamed(HELD).values()}
    assert mapped == {name for name in HELD if not name.startswith("visual.")}


@torch.no_grad()
def test_pooled_and_context_features_are_the_official_ones(lcl: LCL) -> None:
    given = batch()
    rows = given[Layout.INTERLEAVED]
    visual = lcl.connector(lcl.encode(given.images))
    hidden = lcl.language(lcl.embed(rows, visual.tokens), causal(rows.attn_mask), rows.position_ids)
    chosen = lcl.contrasted(rows)
    for features, name in ((visual.pooled, "pooled"), (lcl.readout(lcl.at_boi(hidden, rows)), "context")):
        expected = torch.tensor(OFFICIAL[name])
        torch.testing.assert_close(F.normalize(features[chosen], dim=-1), expected, atol=1e-5, rtol=0)


def test_both_losses_are_the_official_ones(lcl: LCL) -> None:
    losses = lcl(batch())
    assert float(losses.terms["contrast"].mean()) == pytest.approx(OFFICIAL["contrast"], abs=1e-5)
    assert float(losses.terms["generate"].mean()) == pytest.approx(OFFICIAL["generate"], abs=1e-5)
    assert int(losses.terms["generate"].count) == OFFICIAL["predicted_tokens"]


def test_every_gradient_is_the_official_one(lcl: LCL) -> None:
    total(lcl(batch())).backward()
    parts: dict[str, list[Tensor]] = {}
    gradients = {name: value.grad for name, value in lcl.named_parameters() if value.grad is not None}
    for name, (theirs, _) in renamed(HELD).items():
        parts.setdefault(theirs, []).append(gradients[name])
    for name, grads in parts.items():
        norm = float(torch.stack([each.norm() for each in grads]).norm())
        assert norm == pytest.approx(OFFICIAL["gradient_norms"][name], rel=1e-3, abs=1e-6), name
    assert float(gradients["vision.vit.patch_embed.proj.weight"].norm()) == pytest.approx(
        OFFICIAL["gradient_norms"]["visual.conv1.weight"], rel=1e-3
    )


@pytest.mark.parametrize(
    "changed", [{"skip_rule": "content"}, {"gen_on_boi": "with_context"}, {"contrast_weight": 0.2}]
)
def test_the_released_reading_is_none_of_the_others(lcl: LCL, changed: dict[str, object]) -> None:
    before = float(total(lcl(batch())).detach())
    lcl.config = replace(lcl.config, **changed)  # type: ignore[arg-type]
    assert abs(float(total(lcl(batch())).detach()) - before) > 1e-3
