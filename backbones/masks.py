"""Attention masks as booleans: [b, i, j] is True where position i of a row may attend position j.

Padding neither attends nor is attended. Kinds compose: BEiT-3's block mask is `within(bidirectional(valid), modality)`,
no attention across packed documents is `within(causal(valid), doc_id)`.

Shape letters: b rows, t tokens, k tokens to attend (those read before, too).
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Following(NamedTuple):
    """Of tokens that continue rows which were read before."""

    allowed: Bool[Tensor, "b t k"]
    positions: Int[Tensor, "b t"]


def bidirectional(valid: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t t"]:
    """Every token attends every token of its row."""
    return valid[:, :, None] & valid[:, None, :]


def causal(valid: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t t"]:
    """Every token attends itself and what stands before it."""
    t = valid.shape[1]
    return bidirectional(valid) & torch.ones(t, t, dtype=torch.bool, device=valid.device).tril()


def following(b: int, t: int, before: int, device: torch.device) -> Following:
    """Mask and positions of b rows of t tokens after `before` others, unpadded, left to right."""
    positions = torch.arange(before, before + t, device=device)
    allowed = torch.arange(before + t, device=device) <= positions[:, None]
    return Following(allowed.expand(b, -1, -1), positions.expand(b, -1))


def within(allowed: Bool[Tensor, "b t t"], group: Int[Tensor, "b t"]) -> Bool[Tensor, "b t t"]:
    """The same mask, cut between positions of different groups (documents of a packed row, modalities)."""
    return allowed & (group[:, :, None] == group[:, None, :])


def additive(allowed: Bool[Tensor, "b t k"], dtype: torch.dtype) -> Float[Tensor, "b 1 t k"]:
    """What is added to attention's scores: 0 where a position may attend, the least finite number elsewhere.

    Not -inf: a row of -inf is NaN after softmax. In the dtype in which attention runs under autocast, because the least
    float32 would round to -inf in bf16.
    """
    device = allowed.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    bias = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return bias.masked_fill_(~allowed, torch.finfo(dtype).min)[:, None]
