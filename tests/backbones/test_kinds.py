"""What decays and what is a matrix, also of models that are built otherwise than ours."""

import open_clip
import timm
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from backbones.kinds import matrices, weights


def names(module: nn.Module, ids: set[int]) -> set[str]:
    return {name for name, parameter in module.named_parameters() if id(parameter) in ids}


def test_every_matrix_of_open_clips_attention_decays() -> None:
    tower = open_clip.create_model("ViT-S-32", pretrained=None).visual
    found = names(tower, weights(tower))
    block = {f"transformer.resblocks.0.{name}" for name in (
        "attn.in_proj_weight", "attn.out_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight",
    )}  # fmt: skip
    assert {name for name in found if name.startswith("transformer.resblocks.0.")} == block
    assert {name for name in found if "resblocks" not in name} == {"conv1.weight"}
    assert names(tower, matrices(tower)) == found - {"conv1.weight"}


def test_the_linear_maps_of_gpt2_are_matrices_and_its_tied_head_is_an_embedding() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=1, n_head=2))
    maps = {f"transformer.h.0.{name}.weight" for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")}
    assert names(model, matrices(model)) == maps
    assert names(model, weights(model)) == maps | {"transformer.wte.weight", "transformer.wpe.weight"}


def test_of_a_vit_of_timm_norms_biases_tokens_and_positions_do_not_decay() -> None:
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    linear = {f"{name}.weight" for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    assert names(model, matrices(model)) == linear
    assert names(model, weights(model)) == linear | {"patch_embed.proj.weight"}
