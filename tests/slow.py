"""The language model once more, written out: what tests compare with shares no code with what they check.

One row at a time, masks as a function of two positions, attention head by head, from the weights alone.

Shape letters: t tokens of a row, k keys, d width, c width of the context.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from backbones.attention import Attention
from backbones.lm import LanguageModel

Sees = Callable[[int, int], bool]  # may position i attend position j
Before = Callable[[int, Tensor], Tensor]  # (index of the layer, states) -> what enters the layer


def slow_norm(norm: nn.LayerNorm, x: Tensor) -> Tensor:
    """LayerNorm over the last axis."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() * norm.weight + norm.bias


def slow_heads(query: Tensor, key: Tensor, value: Tensor, heads: int, sees: Sees) -> Tensor:
    """[t, d], [k, d], [k, d] -> [t, d]: softmax over what a position may see, zero where that is nothing."""
    e = query.shape[-1] // heads
    parts = []
    for h in range(heads):
        q, k, v = (x[:, h * e : (h + 1) * e] for x in (query, key, value))
        rows = []
        for i in range(len(q)):
            seen = [j for j in range(len(k)) if sees(i, j)]
            share = torch.softmax(q[i] @ k[seen].T / math.sqrt(e), dim=0) if seen else q.new_zeros(0)
            rows.append(share @ v[seen])
        parts.append(torch.stack(rows))
    return torch.cat(parts, dim=-1)


def slow_language(
    language: LanguageModel, x: Tensor, positions: Sequence[int], sees: Sees, before: Before | None = None
) -> Tensor:
    """States [t, d] of one row of embeddings [t, d], after the final norm. OPT: pre-norm, ReLU, positions from 2 on."""
    decoder = language.decoder
    x = x + decoder.embed_positions.weight[[position + 2 for position in positions]]
    for i, layer in enumerate(decoder.layers):
        x = x if before is None else before(i, x)
        attention, y = layer.self_attn, slow_norm(layer.self_attn_layer_norm, x)
        read = slow_heads(attention.q_proj(y), attention.k_proj(y), attention.v_proj(y), language.size.heads, sees)
        x = x + attention.out_proj(read)
        x = x + layer.fc2(layer.fc1(slow_norm(layer.final_layer_norm, x)).clamp(min=0))
    return slow_norm(decoder.final_layer_norm, x)


def slow_attention(attention: Attention, x: Tensor, context: Tensor, sees: Sees) -> Tensor:
    """[t, d] reads [k, c], from the weights of a multi-head attention whose keys come before its values."""
    inner = attention.to_query.out_features
    key, value = attention.to_key_value(context).split([inner, inner], dim=-1)
    return attention.to_output(slow_heads(attention.to_query(x), key, value, attention.heads, sees))


def causally(i: int, j: int) -> bool:
    """Itself and what is before."""
    return j <= i
