"""Multi-head attention of one sequence to another: Perceiver resampler, gated cross-attention, causal former.

Vaswani et al. 2017. Written out on CPU, where the fused bf16 kernel takes ten times as long; fused on accelerators.
Both give exactly zero where a position may attend nothing.

Shape letters: b rows, h heads, q queries, k keys, e width of a head, d width of the queries, c width of the context.
"""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.precision import at_least_fp32


class Attention(nn.Module):
    """Attention of one sequence to another, projections with or without biases, PyTorch's default initialisation."""

    def __init__(self, width: int, context_width: int, heads: int, head_width: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        inner = heads * head_width
        self.to_query = nn.Linear(width, inner, bias=bias)
        self.to_key_value = nn.Linear(context_width, 2 * inner, bias=bias)
        self.to_output = nn.Linear(inner, width, bias=bias)

    def forward(
        self,
        x: Float[Tensor, "b q d"],
        context: Float[Tensor, "b k c"],
        allowed: Bool[Tensor, "#b q k"] | None = None,
    ) -> Float[Tensor, "b q d"]:
        """What each position of x reads from the context. allowed: [b, i, j] True where i may attend j; None: all."""
        key, value = self.to_key_value(context).chunk(2, dim=-1)
        query, key, value = self._split(self.to_query(x)), self._split(key), self._split(value)
        return self.to_output(attend(query, key, value, allowed).transpose(1, 2).flatten(2))

    def _split(self, x: Float[Tensor, "b q inner"]) -> Float[Tensor, "b h q e"]:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def attention_weights(
    query: Float[Tensor, "b h q e"], key: Float[Tensor, "b h k e"], allowed: Bool[Tensor, "#b q k"] | None = None
) -> Float[Tensor, "b h q k"]:
    """Softmax in fp32 over the allowed keys; all zero where there are none."""
    scores = at_least_fp32(query @ key.transpose(-1, -2)) / math.sqrt(query.shape[-1])
    if allowed is None:
        return scores.softmax(dim=-1)
    # The least finite number, not -inf: a row of -inf is NaN after softmax, in the backward pass as well.
    scores = scores.masked_fill(~allowed[:, None], torch.finfo(scores.dtype).min)
    return scores.softmax(dim=-1) * allowed.any(-1)[:, None, :, None]


def attend(
    query: Float[Tensor, "b h q e"],
    key: Float[Tensor, "b h k e"],
    value: Float[Tensor, "b h k e"],
    allowed: Bool[Tensor, "#b q k"] | None = None,
) -> Float[Tensor, "b h q e"]:
    """Weighted values; zero where a position may attend nothing."""
    if query.device.type == "cpu":
        return attention_weights(query, key, allowed).to(value.dtype) @ value
    if allowed is None:
        return F.scaled_dot_product_attention(query, key, value)
    # The fused kernel may give NaN for a row without keys: let such a row read everything, then drop what it read.
    reads = allowed.any(-1, keepdim=True)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=(allowed | ~reads)[:, None]) * reads[:, None]
