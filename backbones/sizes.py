"""Named sizes of the two backbones, and nothing else: `tiny` (embedded scale), `base16` and `large14` (the paper's),
`small16` (for one GPU: timm `vit_small_patch16_224` with DeiT's drop-path, and a small OPT from scratch).

Source: LCL paper 4.1 and A.1 (ViT-B/16, ViT-L/14, drop-path 0.2, layer scale, OPT-125M); timm `vit_base_patch16_224`
and `vit_large_patch14_224`; transformers `OPTConfig` defaults. The initial layer scale is BEiT's choice by depth (not
stated in the paper). Everything in which `tiny` departs from timm's own initialisation is a field here, and so is
everything in which the released LCL checkpoint's backbones depart from the paper's (a norm before the blocks, GELU in
the language model, no final norm there).
"""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu", "gelu"]


@dataclass(frozen=True, kw_only=True)
class VisionSize:
    """A timm VisionTransformer. Widths in channels, sides in pixels."""

    name: str
    image_size: int
    patch_size: int
    width: int
    depth: int
    heads: int
    drop_path: float = 0.0  # of the last block; grows linearly from 0
    layer_scale: float | None = None  # initial value; None: no layer scale
    sincos_positions: float | None = None  # learned positions start as sin-cos times this; None: timm's 0.02
    residual_scale: float = 1.0  # factor on each block's two output projections at initialisation
    linear_std: float | None = None  # std of the blocks' weights at initialisation; None: timm's 0.02
    pre_norm: bool = False  # CLIP's ViT: a LayerNorm before the blocks, and no bias in the patch embedding
    norm_eps: float = 1e-6  # of every LayerNorm; open_clip: 1e-5

    def __post_init__(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size {self.image_size} is not a multiple of patch_size {self.patch_size}")
        if self.width % self.heads:
            raise ValueError(f"vision width {self.width} is not a multiple of its {self.heads} heads")

    @property
    def num_patches(self) -> int:
        """Patch tokens of one image."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True, kw_only=True)
class LanguageSize:
    """An OPT-shaped causal decoder (pre-LN, learned positions, tied head, no dropout)."""

    name: str
    width: int
    depth: int
    heads: int
    ffn: int
    positions: int
    vocab_size: int | None = None  # embedding rows; None: whatever the tokenizer needs
    init_std: float = 0.02
    activation: Activation = "relu"  # of the feed-forwards; open_clip's text transformer: gelu
    final_norm: bool = True  # a LayerNorm after the last layer; OpenGVLab/LCL leaves it to what reads the states

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"language width {self.width} is not a multiple of its {self.heads} heads")


@dataclass(frozen=True, kw_only=True)
class Size:
    """A pair of backbones that are trained together."""

    name: str
    vision: VisionSize
    language: LanguageSize


OPT_125M = LanguageSize(name="opt125m", width=768, depth=12, heads=12, ffn=3072, positions=2048, vocab_size=50272)

# 0.02 at width 768 gives a matrix product a gain of 0.55; at width 128 the same gain needs 0.049. Measured: with 0.02
# the contrastive objectives stay on their first plateau twice to five times as long.
_TINY_STD = round(0.02 * (768 / 128) ** 0.5, 3)

SIZES = {
    size.name: size
    for size in (
        Size(
            name="tiny",
            vision=VisionSize(
                name="tiny", image_size=32, patch_size=8, width=128, depth=4, heads=2,
                sincos_positions=0.7, residual_scale=0.5, linear_std=_TINY_STD,
            ),
            language=LanguageSize(
                name="tiny", width=128, depth=3, heads=2, ffn=512, positions=256, init_std=_TINY_STD
            ),
        ),
        Size(
            name="small16",
            vision=VisionSize(
                name="small16", image_size=224, patch_size=16, width=384, depth=12, heads=6,
                drop_path=0.1, layer_scale=0.1,
            ),
            language=LanguageSize(
                name="opt_small", width=512, depth=6, heads=8, ffn=2048, positions=2048, vocab_size=50272
            ),
        ),
        Size(
            name="base16",
            vision=VisionSize(
                name="base16", image_size=224, patch_size=16, width=768, depth=12, heads=12,
                drop_path=0.2, layer_scale=0.1,
            ),
            language=OPT_125M,
        ),
        Size(
            name="large14",
            vision=VisionSize(
                name="large14", image_size=224, patch_size=14, width=1024, depth=24, heads=16,
                drop_path=0.2, layer_scale=1e-5,
            ),
            language=OPT_125M,
        ),
    )
}  # fmt: skip
