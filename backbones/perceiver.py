"""Flamingo's two modules: the Perceiver resampler and the gated cross-attention block.

Alayrac et al. 2022, section 2.2, Figures 4 and 5; sizes as in mlfoundations/open_flamingo `src/helpers.py` (6 layers,
64 latents, 8 heads of 64, feed-forward 4x, no biases). No time embeddings: every image is one frame.

Shape letters: m images, b rows, t tokens, p patches, l latents, k keys, v vision width, d language width.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from backbones.attention import Attention

HEAD_WIDTH = 64


class FeedForward(nn.Sequential):
    """LayerNorm, linear to 4 times the width, GELU, linear back; no biases in the linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )


class ResamplerLayer(nn.Module):
    """Latents attend to the patches and to themselves, then a feed-forward; both residual."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_patches, self.norm_latents = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, width, heads, HEAD_WIDTH, bias=False)
        self.feed_forward = FeedForward(width)

    def forward(self, latents: Float[Tensor, "m l v"], patches: Float[Tensor, "m p v"]) -> Float[Tensor, "m l v"]:
        """The latents after this layer."""
        queries = self.norm_latents(latents)
        context = torch.cat([self.norm_patches(patches), queries], dim=1)
        latents = latents + self.attention(queries, context)
        return latents + self.feed_forward(latents)


class PerceiverResampler(nn.Module):
    """A fixed number of learned latents that summarise the patches of an image."""

    def __init__(self, width: int, latents: int, depth: int, heads: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.layers = nn.ModuleList(ResamplerLayer(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, patches: Float[Tensor, "m p v"]) -> Float[Tensor, "m l v"]:
        """Latents of each image, after a final LayerNorm."""
        latents = self.latents.expand(len(patches), -1, -1)
        for layer in self.layers:
            latents = layer(latents, patches)
        return self.norm(latents)


class GatedCrossAttention(nn.Module):
    """y + tanh(g1) XAttn(LN(y), latents), then y + tanh(g2) FF(y); gates start at 0: at first it does nothing."""

    def __init__(self, width: int, context_width: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, context_width, heads, HEAD_WIDTH, bias=False)
        self.feed_forward = FeedForward(width)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.feed_forward_gate = nn.Parameter(torch.zeros(1))

    def forward(
        self, y: Float[Tensor, "b t d"], context: Float[Tensor, "b k v"], allowed: Bool[Tensor, "b t k"]
    ) -> Float[Tensor, "b t d"]:
        """States that enter the language model's layer. A position that may attend nothing gets no cross-attention."""
        y = y + self.attention_gate.tanh() * self.attention(self.norm(y), context, allowed)
        return y + self.feed_forward_gate.tanh() * self.feed_forward(y)
