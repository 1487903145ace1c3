"""Emu's causal former: patches to a short causal sequence of visual embeddings.

Sun et al. 2023, section 2.1; baaivision/Emu `Emu1/models/causal_former.py`: there a T5-base decoder with random weights
(12 layers, width 768, 12 heads, feed-forward 3072), here a plain pre-norm decoder of that shape with LayerNorm. It
needs no position embedding, because each learned token is its own position.

Shape letters: m images, p patches, k queries, v vision width, d width.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from backbones.attention import Attention


class CausalFormerLayer(nn.Module):
    """Causal self-attention among the queries, cross-attention to the patches, feed-forward; pre-norm, residual."""

    def __init__(self, width: int, vision_width: int, heads: int, ffn: int) -> None:
        super().__init__()
        self.norm_self, self.norm_cross = nn.LayerNorm(width), nn.LayerNorm(width)
        self.self_attention = Attention(width, width, heads, width // heads, bias=False)
        self.cross_attention = Attention(width, vision_width, heads, width // heads, bias=False)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, ffn, bias=False), nn.ReLU(), nn.Linear(ffn, width, bias=False)
        )

    def forward(
        self, x: Float[Tensor, "m k d"], patches: Float[Tensor, "m p v"], causal: Bool[Tensor, "1 k k"]
    ) -> Float[Tensor, "m k d"]:
        """Query states after this layer; query i reads queries 0..i and every patch."""
        normed = self.norm_self(x)
        x = x + self.self_attention(normed, normed, causal)
        x = x + self.cross_attention(self.norm_cross(x), patches)
        return x + self.feed_forward(x)


class CausalFormer(nn.Module):
    """K learned tokens that read an image in order, and their projection to the language model."""

    def __init__(
        self, vision_width: int, lm_width: int, queries: int, depth: int, width: int, heads: int, ffn: int
    ) -> None:
        super().__init__()
        self.norm_patches = nn.LayerNorm(vision_width, eps=1e-6)
        self.queries = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.layers = nn.ModuleList(CausalFormerLayer(width, vision_width, heads, ffn) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, lm_width)

    def forward(self, patches: Float[Tensor, "m p v"]) -> Float[Tensor, "m k d"]:
        """Visual embeddings e_1..e_K of each image; e_k depends on the learned tokens 1..k only."""
        patches = self.norm_patches(patches)
        k = len(self.queries)
        causal = torch.ones(1, k, k, dtype=torch.bool, device=patches.device).tril()
        x = self.queries.expand(len(patches), -1, -1)
        for layer in self.layers:
            x = layer(x, patches, causal)
        return self.proj(self.norm(x))
