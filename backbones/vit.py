"""The vision encoder f: images to patch tokens; a timm VisionTransformer, class token attended but not returned.

Source: LCL paper A.1 and OpenGVLab/LCL (class token computed, then dropped); rwightman's timm for the modules.

Shape letters: m images, s image side, p patches, d width.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from timm.layers import LayerNorm, build_sincos2d_pos_embed, trunc_normal_
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from backbones.sizes import VisionSize
from backbones.tower import Tower, check_side

Edit = Callable[[Tensor], Tensor]


class VisionEncoder(Tower):
    """ViT without a pooling head. Initialised from torch's global generator: `build_vision` gives it its own stream."""

    def __init__(self, size: VisionSize) -> None:
        super().__init__()
        self.size = size
        self.width, self.depth, self.num_patches = size.width, size.depth, size.num_patches
        self.image_size = size.image_size
        self.vit = VisionTransformer(
            img_size=size.image_size,
            patch_size=size.patch_size,
            embed_dim=size.width,
            depth=size.depth,
            num_heads=size.heads,
            init_values=size.layer_scale,
            drop_path_rate=size.drop_path,
            num_classes=0,
            pre_norm=size.pre_norm,
            norm_layer=partial(LayerNorm, eps=size.norm_eps),
        )
        self.num_prefix_tokens: int = self.vit.num_prefix_tokens
        self._initialise(size)

    def tokens(self, images: Float[Tensor, "m 3 s s"], edit: Edit | None = None) -> Float[Tensor, "m prefix_and_p d"]:
        """Prefix (class) and patch tokens after the final norm.

        edit: applied to the patch embeddings [m, p, d] before the position embedding is added (masking of patches).
        Raises ValueError where the images' side is not the encoder's.
        """
        check_side(self, images)
        self._choose_attention(images.device)
        x = self.vit.patch_embed(images)
        if edit is not None:
            x = edit(x)
        x = torch.cat([self.vit.cls_token.expand(len(x), -1, -1), x], dim=1) + self.vit.pos_embed
        return self.vit.norm(self.vit.blocks(self.vit.norm_pre(x)))  # norm_pre is nothing where the size has none

    def forward(self, images: Float[Tensor, "m 3 s s"], edit: Edit | None = None) -> Float[Tensor, "m p d"]:
        """Patch tokens H, after the final norm. `edit` as in `tokens`."""
        return self.tokens(images, edit)[:, self.num_prefix_tokens :]

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks."""
        return list(self.vit.blocks)

    @property
    def last(self) -> Sequence[nn.Module]:
        """The final norm."""
        return [self.vit.norm]

    def branches(self, block: nn.Module) -> Sequence[nn.Module]:
        """timm's places for drop-path, behind attention and MLP. A size with `drop_path` fills them itself."""
        return [block.get_submodule("drop_path1"), block.get_submodule("drop_path2")]

    def _choose_attention(self, device: torch.device) -> None:
        # Fused attention is for accelerators: on CPU, in bf16, forward and backward take ten times as long.
        for block in self.vit.blocks:
            block.attn.fused_attn = device.type != "cpu"

    @torch.no_grad()
    def _initialise(self, size: VisionSize) -> None:
        if size.sincos_positions is not None:
            side = size.image_size // size.patch_size
            self.vit.pos_embed.zero_()  # the class token's position stays at zero
            positions = build_sincos2d_pos_embed([side, side], dim=size.width)
            self.vit.pos_embed[0, self.num_prefix_tokens :] = size.sincos_positions * positions
        for block in self.vit.blocks:
            linears = (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2)
            if size.linear_std is not None:
                for linear in linears:
                    trunc_normal_(linear.weight, std=size.linear_std)
            block.attn.proj.weight.mul_(size.residual_scale)
            block.mlp.fc2.weight.mul_(size.residual_scale)
