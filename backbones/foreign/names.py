"""Parameters of a vision transformer by open_clip's names and by ours (timm's, below `vit.`), both ways.

Source: mlfoundations/open_clip `transformer.py:VisionTransformer`; rwightman's timm `vision_transformer.py`.

Shape letters: t tokens (class token first), d width.
"""

from collections.abc import Mapping

from torch import Tensor

_TOP = {
    "class_embedding": "vit.cls_token",
    "positional_embedding": "vit.pos_embed",
    "conv1.weight": "vit.patch_embed.proj.weight",
    **{f"ln_pre.{kind}": f"vit.norm_pre.{kind}" for kind in ("weight", "bias")},
    **{f"ln_post.{kind}": f"vit.norm.{kind}" for kind in ("weight", "bias")},
}
_IN_A_BLOCK = {
    **{
        f"{theirs}.{kind}": f"{ours}.{kind}"
        for theirs, ours in (
            *(("ln_1", "norm1"), ("ln_2", "norm2"), ("attn.out_proj", "attn.proj")),
            *(("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2")),
        )
        for kind in ("weight", "bias")
    },
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "ls_1.gamma": "ls1.gamma",
    "ls_2.gamma": "ls2.gamma",
}
_THEIR_BLOCKS, _OUR_BLOCKS = "transformer.resblocks.", "vit.blocks."
_LEADING_AXES = {"vit.cls_token": 2, "vit.pos_embed": 1}  # of length one, which ours have


def from_open_clip(held: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By our names; a key nobody knows keeps its name."""
    found = {}
    for key, value in held.items():
        name = _renamed(key, _THEIR_BLOCKS, _OUR_BLOCKS, _TOP, _IN_A_BLOCK)
        found[name] = value[(None,) * _LEADING_AXES.get(name, 0)]
    return found


def to_open_clip(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By open_clip's names. The bias of the patch embedding, which it does not have, goes into the positions [t, d]."""
    top, block = ({ours: theirs for theirs, ours in names.items()} for names in (_TOP, _IN_A_BLOCK))
    bias = weights.get("vit.patch_embed.proj.bias")
    found = {}
    for key, value in weights.items():
        if key != "vit.patch_embed.proj.bias":
            flat = value.flatten(0, _LEADING_AXES.get(key, 0))
            found[_renamed(key, _OUR_BLOCKS, _THEIR_BLOCKS, top, block)] = flat
    if bias is not None:
        positions = found["positional_embedding"].clone()
        positions[1:] += bias
        found["positional_embedding"] = positions
    found["class_embedding"] = found["class_embedding"].flatten()
    return found


def _renamed(key: str, blocks: str, others: str, top: Mapping[str, str], block: Mapping[str, str]) -> str:
    if not key.startswith(blocks):
        return top.get(key, key)
    number, _, rest = key.removeprefix(blocks).partition(".")
    return f"{others}{number}.{block.get(rest, rest)}"
