"""The vision encoder against timm, the declared sizes, and building by name."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import timm
import torch
from torch import Tensor, nn

from backbones.build import build_language, build_vision, init_stream
from backbones.sizes import SIZES, Size, VisionSize
from backbones.vit import VisionEncoder


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_tokens_equal_timm_bit_for_bit(vision: VisionEncoder) -> None:
    images = torch.randn(3, 3, 32, 32)
    tokens = vision.tokens(images)
    assert torch.equal(tokens, vision.vit.forward_features(images))
    assert tokens.shape == (3, 1 + 16, 128)
    assert torch.equal(vision(images), tokens[:, 1:])


def test_tokens_equal_timm_with_drop_path_and_layer_scale() -> None:
    size = VisionSize(
        name="t", image_size=32, patch_size=16, width=64, depth=3, heads=2, drop_path=0.5, layer_scale=0.1
    )
    encoder = VisionEncoder(size).train()
    images = torch.randn(8, 3, 32, 32)
    torch.manual_seed(3)
    ours = encoder.tokens(images)
    torch.manual_seed(3)
    assert torch.equal(ours, encoder.vit.forward_features(images))
    assert not torch.equal(ours, encoder.eval().tokens(images)), "drop-path must act in training"


def test_class_token_is_attended_but_not_returned(vision: VisionEncoder) -> None:
    images = torch.randn(2, 3, 32, 32)
    before = vision(images)
    with torch.no_grad():
        vision.vit.cls_token.add_(torch.randn(128))
    assert not torch.allclose(before, vision(images))


def test_edit_acts_on_patch_embeddings_before_positions(vision: VisionEncoder) -> None:
    images = torch.randn(2, 3, 32, 32)
    seen: list[Tensor] = []

    def erase(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.zeros_like(x)

    erased = vision(images, erase)
    assert torch.equal(seen[0], vision.vit.patch_embed(images))
    assert torch.equal(erased[0], erased[1]), "nothing of the image may survive"
    assert not torch.allclose(erased[0, 0], erased[0, 1]), "positions are added after the edit"
    assert torch.equal(vision(images, lambda x: x), vision(images))


@pytest.mark.parametrize(
    ("name", "timm_name", "count"),
    [
        # timm's published 85,798,656 and 303,178,752 (num_classes=0) plus two layer scales a block.
        ("base16", "vit_base_patch16_224", 85_798_656 + 12 * 2 * 768),
        ("large14", "vit_large_patch14_224", 303_178_752 + 24 * 2 * 1024),
    ],
)
def test_paper_sizes_are_timm_models(name: str, timm_name: str, count: int) -> None:
    size = SIZES[name].vision
    with torch.device("meta"):
        ours = VisionEncoder(size)
        theirs = timm.create_model(timm_name, num_classes=0, init_values=size.layer_scale, drop_path_rate=0.2)
    assert parameters(ours) == parameters(theirs) == count
    shapes = [{name: p.shape for name, p in vit.named_parameters()} for vit in (ours.vit, theirs)]
    assert shapes[0] == shapes[1]
    assert ours.num_patches == size.num_patches == theirs.patch_embed.num_patches
    drops = [getattr(block.drop_path2, "drop_prob", 0.0) for block in ours.vit.blocks]
    assert drops[0] == 0.0
    assert drops[-1] == pytest.approx(0.2)
    assert drops == pytest.approx([getattr(block.drop_path2, "drop_prob", 0.0) for block in theirs.blocks])


def test_layer_scale_starts_at_the_declared_value() -> None:
    size = VisionSize(name="t", image_size=32, patch_size=16, width=64, depth=2, heads=1, layer_scale=0.1)
    for block in VisionEncoder(size).vit.blocks:
        assert torch.equal(block.ls1.gamma, torch.full((64,), 0.1))
        assert torch.equal(block.ls2.gamma, torch.full((64,), 0.1))


def test_tiny_departs_from_timm_exactly_as_declared(tiny: Size) -> None:
    fields = dict(name="tiny", image_size=32, patch_size=8, width=128, depth=4, heads=2)
    assert tiny.vision.linear_std == pytest.approx(0.02 * (768 / 128) ** 0.5, rel=0.01)  # the gain of width 768
    with init_stream("same"):
        plain = VisionEncoder(VisionSize(**fields)).vit
    with init_stream("same"):
        ours = VisionEncoder(replace(tiny.vision, linear_std=None)).vit
    theirs = plain.state_dict()
    for name, value in ours.state_dict().items():
        if name == "pos_embed":
            assert value[0, 0].abs().max() == 0
            assert value.abs().max() == pytest.approx(0.7, rel=1e-3)
            assert len(torch.unique(value[0], dim=0)) == 17
        elif name.endswith(("attn.proj.weight", "mlp.fc2.weight")):
            assert torch.equal(value, theirs[name] * 0.5), name
        else:
            assert torch.equal(value, theirs[name]), name
    assert ours.pos_embed.requires_grad


def test_linear_std_is_the_std_of_the_blocks() -> None:
    size = VisionSize(name="t", image_size=32, patch_size=8, width=128, depth=1, heads=2, linear_std=0.05)
    block = VisionEncoder(size).vit.blocks[0]
    for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
        assert linear.weight.std().item() == pytest.approx(0.05, rel=0.03)


def test_wrong_image_size_names_both(vision: VisionEncoder) -> None:
    with pytest.raises(ValueError, match=r"32x32.*64, 64"):
        vision(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("field", [{"patch_size": 7}, {"heads": 3}])
def test_impossible_sizes_are_refused(field: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="not a multiple"):
        VisionSize(**{"name": "t", "image_size": 32, "patch_size": 8, "width": 128, "depth": 1, "heads": 2} | field)


def test_attention_is_chosen_by_the_device_of_the_input(vision: VisionEncoder) -> None:
    for block in vision.vit.blocks:
        block.attn.fused_attn = True
    vision(torch.zeros(1, 3, 32, 32))
    assert [block.attn.fused_attn for block in vision.vit.blocks] == [False] * 4


@pytest.mark.parametrize("build", [build_vision, lambda size, seed: build_language(size, 64, seed)])
def test_building_is_a_function_of_the_seed_alone(tiny: Size, build: Callable[[Size, int], nn.Module]) -> None:
    first = build(tiny, 0).state_dict()
    torch.manual_seed(99)
    state = torch.get_rng_state()
    again = build(tiny, 0).state_dict()
    assert torch.equal(state, torch.get_rng_state()), "building must not draw from the global generator"
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    other = build(tiny, 1).state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in first.items())


def test_one_backbone_does_not_move_the_other(tiny: Size) -> None:
    alone = build_vision(tiny, 0).vit.patch_embed.proj.weight
    build_language(tiny, 200, 0)
    assert torch.equal(alone, build_vision(tiny, 0).vit.patch_embed.proj.weight)
