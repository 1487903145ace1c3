"""Perceiver resampler, gated cross-attention, and the attention they share with the causal former."""

import pytest
import torch
from torch.nn import functional as F

from backbones.attention import Attention, attend, attention_weights
from backbones.causal_former import CausalFormer
from backbones.perceiver import GatedCrossAttention, PerceiverResampler


def test_attention_written_out_is_the_fused_one() -> None:
    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    allowed = torch.rand(2, 5, 7) < 0.5
    allowed[..., 0] = True
    torch.testing.assert_close(attend(q, k, v), F.scaled_dot_product_attention(q, k, v))
    masked = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed[:, None])
    torch.testing.assert_close(attend(q, k, v, allowed), masked)


def test_attention_to_nothing_is_zero_with_zero_gradient() -> None:
    q = torch.randn(1, 2, 3, 4, requires_grad=True)
    k = v = torch.randn(1, 2, 5, 4)
    allowed = torch.ones(1, 3, 5, dtype=torch.bool)
    allowed[0, 1] = False
    out = attend(q, k, v, allowed)
    assert (out[:, :, 1] == 0).all()
    out.sum().backward()
    assert torch.isfinite(q.grad).all()
    assert (q.grad[:, :, 1] == 0).all()
    assert (attention_weights(q, k, allowed).sum(-1)[:, :, [0, 2]] - 1).abs().max() < 1e-6


def test_attention_without_any_key_is_zero() -> None:
    layer = Attention(8, 8, heads=2, head_width=4, bias=False)
    out = layer(torch.randn(2, 3, 8), torch.randn(2, 0, 8), torch.zeros(2, 3, 0, dtype=torch.bool))
    assert (out == 0).all()


def test_resampler_gives_a_fixed_number_of_latents() -> None:
    resampler = PerceiverResampler(32, latents=5, depth=2, heads=2)
    assert resampler(torch.randn(3, 7, 32)).shape == (3, 5, 32)
    assert resampler(torch.randn(0, 7, 32)).shape == (0, 5, 32)


def test_resampler_reads_every_patch_in_no_order() -> None:
    resampler = PerceiverResampler(32, latents=5, depth=2, heads=2)
    patches = torch.randn(1, 7, 32)
    base = resampler(patches)
    torch.testing.assert_close(resampler(patches.flip(1)), base)
    for p in range(7):
        changed = patches.clone()
        changed[:, p] += torch.randn(32)
        assert (resampler(changed) - base).abs().amax(-1).min() > 1e-6


def test_resampler_images_do_not_mix() -> None:
    resampler = PerceiverResampler(32, latents=5, depth=2, heads=2)
    patches = torch.randn(3, 7, 32)
    torch.testing.assert_close(resampler(patches)[1:2], resampler(patches[1:2]))


def test_gated_block_starts_as_nothing() -> None:
    block = GatedCrossAttention(32, 16, heads=2)
    y, context = torch.randn(2, 4, 32), torch.randn(2, 6, 16)
    allowed = torch.ones(2, 4, 6, dtype=torch.bool)
    assert torch.equal(block(y, context, allowed), y)
    torch.nn.init.constant_(block.attention_gate, 0.1)
    assert not torch.equal(block(y, context, allowed), y)


def test_gated_block_is_its_equation() -> None:
    block = GatedCrossAttention(32, 16, heads=2)
    torch.nn.init.constant_(block.attention_gate, 0.3)
    torch.nn.init.constant_(block.feed_forward_gate, -0.7)
    y, context = torch.randn(2, 4, 32), torch.randn(2, 6, 16)
    allowed = torch.rand(2, 4, 6) < 0.5
    mid = y + torch.tanh(torch.tensor(0.3)) * block.attention(block.norm(y), context, allowed)
    by_hand = mid + torch.tanh(torch.tensor(-0.7)) * block.feed_forward(mid)
    torch.testing.assert_close(block(y, context, allowed), by_hand)


def test_paper_sizes_add_the_parameters_the_specification_counts() -> None:
    def count(module: torch.nn.Module) -> float:
        return sum(parameter.numel() for parameter in module.parameters()) / 1e6

    with torch.device("meta"):
        assert count(PerceiverResampler(768, latents=64, depth=6, heads=8)) == pytest.approx(38, abs=0.5)
        assert 12 * count(GatedCrossAttention(768, 768, heads=8)) == pytest.approx(75, abs=1)
        assert count(CausalFormer(768, 768, 32, depth=12, width=768, heads=12, ffn=3072)) == pytest.approx(113, abs=1)


def test_causal_former_refuses_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match="width 32.*3 heads"):
        CausalFormer(16, 16, queries=4, depth=1, width=32, heads=3, ffn=64)
