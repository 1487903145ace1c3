"""The backbones of the released LCL checkpoint are sizes of ours: open_clip's modules with their weights copied over.

OpenGVLab/LCL trains open_clip's ViT (a norm before the blocks) and CLIP's text transformer (GELU, no norm after the
last layer, positions from 0 on). No released weights are read: what an importer needs is that the forwards are equal.
"""

from dataclasses import replace

import torch
from open_clip.transformer import Transformer, VisionTransformer
from torch import nn

from backbones.lm import LanguageModel
from backbones.masks import causal
from backbones.sizes import SIZES, LanguageSize, VisionSize
from backbones.vit import VisionEncoder

VISION = VisionSize(
    name="released", image_size=32, patch_size=8, width=64, depth=2, heads=2, pre_norm=True, norm_eps=1e-5
)
LANGUAGE = LanguageSize(
    name="released", width=64, depth=2, heads=2, ffn=256, positions=40, activation="gelu", final_norm=False
)


def shaken(module: nn.Module) -> nn.Module:
    """No norm is the identity and no bias zero, as after training."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.normal_(parameter, mean=0.3)
    return module.eval()


def vision_weights(theirs: VisionTransformer) -> dict[str, torch.Tensor]:
    found = {
        "vit.cls_token": theirs.class_embedding[None, None],
        "vit.pos_embed": theirs.positional_embedding[None],
        "vit.patch_embed.proj.weight": theirs.conv1.weight,
    }
    for ours, norm in (("norm_pre", theirs.ln_pre), ("norm", theirs.ln_post)):
        found |= {f"vit.{ours}.{name}": value for name, value in norm.state_dict().items()}
    names = {
        "norm1": "ln_1",
        "norm2": "ln_2",
        "attn.proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for i, block in enumerate(theirs.transformer.resblocks):
        held = block.state_dict()
        for ours, name in names.items():
            for kind in ("weight", "bias"):
                found[f"vit.blocks.{i}.{ours}.{kind}"] = held[f"{name}.{kind}"]
        found[f"vit.blocks.{i}.attn.qkv.weight"] = held["attn.in_proj_weight"]
        found[f"vit.blocks.{i}.attn.qkv.bias"] = held["attn.in_proj_bias"]
    return found


def language_weights(theirs: Transformer) -> dict[str, torch.Tensor]:
    found = {}
    names = {
        "self_attn_layer_norm": "ln_1", "final_layer_norm": "ln_2", "self_attn.out_proj": "attn.out_proj",
        "fc1": "mlp.c_fc", "fc2": "mlp.c_proj",
    }  # fmt: skip
    for i, block in enumerate(theirs.resblocks):
        held = block.state_dict()
        for kind in ("weight", "bias"):
            for ours, name in names.items():
                found[f"decoder.layers.{i}.{ours}.{kind}"] = held[f"{name}.{kind}"]
            for part, value in zip("qkv", held[f"attn.in_proj_{kind}"].chunk(3), strict=True):
                found[f"decoder.layers.{i}.self_attn.{part}_proj.{kind}"] = value
    return found


def test_a_vit_with_a_norm_before_its_blocks_computes_what_open_clips_does() -> None:
    theirs = shaken(VisionTransformer(32, 8, 64, 2, 2, 4.0, output_dim=64, output_tokens=True))
    theirs.proj = None
    ours = VisionEncoder(VISION).eval()
    ours.load_state_dict(vision_weights(theirs))  # strict: no bias in the patch embedding, no other parameter
    images = torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images)[1], atol=2e-6, rtol=1e-5)


def test_a_decoder_with_gelu_and_no_final_norm_computes_what_clips_text_transformer_does() -> None:
    theirs = shaken(Transformer(64, 2, 2, 4.0))
    ours = LanguageModel(LANGUAGE, 64).eval()
    missing = ours.load_state_dict(language_weights(theirs), strict=False)
    assert not missing.unexpected_keys
    assert set(missing.missing_keys) == {"decoder.embed_tokens.weight", "decoder.embed_positions.weight"}
    x, positions = torch.randn(2, 7, 64), torch.arange(7).expand(2, 7)
    given = x + ours.decoder.embed_positions.weight[2:9]
    mask = torch.full((7, 7), -torch.inf).triu(1)
    allowed = causal(torch.ones(2, 7, dtype=torch.bool))
    torch.testing.assert_close(ours(x, allowed, positions), theirs(given, attn_mask=mask), atol=2e-6, rtol=1e-5)


def test_each_choice_changes_the_parameters_or_the_forward_as_it_says() -> None:
    tiny = SIZES["tiny"]
    plain, normed = VisionEncoder(tiny.vision), VisionEncoder(replace(tiny.vision, pre_norm=True))
    assert set(normed.state_dict()) - set(plain.state_dict()) == {"vit.norm_pre.weight", "vit.norm_pre.bias"}
    assert set(plain.state_dict()) - set(normed.state_dict()) == {"vit.patch_embed.proj.bias"}
    coarse = VisionEncoder(replace(tiny.vision, norm_eps=0.5))
    coarse.load_state_dict(plain.state_dict())
    images = torch.randn(2, 3, 32, 32)
    assert (coarse(images) - plain(images)).abs().max() > 1e-3
    language, allowed = LanguageModel(tiny.language, 64), causal(torch.ones(1, 5, dtype=torch.bool))
    x, positions = torch.randn(1, 5, 128), torch.arange(5)[None]
    smooth = LanguageModel(replace(tiny.language, activation="gelu"), 64)
    smooth.load_state_dict(language.state_dict())
    assert (smooth(x, allowed, positions) - language(x, allowed, positions)).abs().max() > 1e-3
    bare = LanguageModel(replace(tiny.language, final_norm=False), 64)
    gone = set(language.state_dict()) - set(bare.state_dict())
    assert gone == {"decoder.final_layer_norm.weight", "decoder.final_layer_norm.bias"}
    bare.load_state_dict({name: value for name, value in language.state_dict().items() if name not in gone})
    norm = language.decoder.final_layer_norm
    torch.testing.assert_close(norm(bare(x, allowed, positions)), language(x, allowed, positions))
