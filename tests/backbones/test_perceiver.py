"""Perceiver resampler, gated cross-attention, and the attention they share with the causal former."""

import pytest
import torch
from slow import causally, slow_attention, slow_norm
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


def slow_feed_forward(block: torch.nn.Sequential, x: torch.Tensor) -> torch.Tensor:
    norm, up, _, down = block
    wide = slow_norm(norm, x) @ up.weight.T
    return (wide * (1 + torch.erf(wide / 2**0.5)) / 2) @ down.weight.T


def test_resampler_is_its_equation() -> None:
    resampler = PerceiverResampler(32, latents=5, depth=2, heads=2)
    for norm in [module for module in resampler.modules() if isinstance(module, torch.nn.LayerNorm)]:
        torch.nn.init.normal_(norm.weight)  # as they start, a norm of a norm would be no change
        torch.nn.init.normal_(norm.bias)
    patches = torch.randn(3, 7, 32)
    for image, found in zip(patches, resampler(patches), strict=True):
        x = resampler.latents
        for layer in resampler.layers:
            queries = slow_norm(layer.norm_latents, x)
            keys = torch.cat([slow_norm(layer.norm_patches, image), queries])  # the latents are among them
            x = x + slow_attention(layer.attention, queries, keys, lambda i, j: True)
            x = x + slow_feed_forward(layer.feed_forward, x)
        torch.testing.assert_close(found, slow_norm(resampler.norm, x), atol=1e-5, rtol=1e-5)


def test_causal_former_is_its_equation() -> None:
    former = CausalFormer(16, 24, queries=5, depth=2, width=32, heads=2, ffn=64)
    for norm in [module for module in former.modules() if isinstance(module, torch.nn.LayerNorm)]:
        torch.nn.init.normal_(norm.weight)
        torch.nn.init.normal_(norm.bias)
    patches = torch.randn(3, 7, 16)
    for image, found in zip(patches, former(patches), strict=True):
        x, seen = former.queries, slow_norm(former.norm_patches, image)
        for layer in former.layers:
            own = slow_norm(layer.norm_self, x)
            x = x + slow_attention(layer.self_attention, own, own, causally)
            x = x + slow_attention(layer.cross_attention, slow_norm(layer.norm_cross, x), seen, lambda i, j: True)
            norm, up, _, down = layer.feed_forward
            x = x + (slow_norm(norm, x) @ up.weight.T).clamp(min=0) @ down.weight.T
        expected = slow_norm(former.norm, x) @ former.proj.weight.T + former.proj.bias
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_latents_start_at_unit_scale_and_queries_small() -> None:
    assert PerceiverResampler(128, latents=64, depth=1, heads=1).latents.std().item() == pytest.approx(1, abs=0.05)
    former = CausalFormer(16, 16, queries=64, depth=1, width=128, heads=2, ffn=64)
    assert former.queries.std().item() == pytest.approx(0.02, abs=0.001)


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
    found = block(y, context, allowed)
    for row in range(2):
        read = slow_attention(
            block.attention, slow_norm(block.norm, y[row]), context[row], lambda i, j, row=row: bool(allowed[row, i, j])
        )
        mid = y[row] + torch.tanh(torch.tensor(0.3)) * read
        by_hand = mid + torch.tanh(torch.tensor(-0.7)) * slow_feed_forward(block.feed_forward, mid)
        torch.testing.assert_close(found[row], by_hand, atol=1e-5, rtol=1e-5)


def test_paper_sizes_add_the_parameters_the_specification_counts() -> None:
    def count(module: torch.nn.Module) -> float:
        return sum(parameter.numel() for parameter in module.parameters()) / 1e6

    with torch.device("meta"):
        assert count(PerceiverResampler(768, latents=64, depth=6, heads=8)) == pytest.approx(38, abs=0.5)
        assert 12 * count(GatedCrossAttention(768, 768, heads=8)) == pytest.approx(75, abs=1)
        assert count(CausalFormer(768, 768, 32, depth=12, width=768, heads=12, ffn=3072)) == pytest.approx(113, abs=1)
