"""Attention masks as booleans: [b, i, j] is True where position i of a row may attend position j.

Padding neither attends nor is attended. Kinds compose: BEiT-3's block mask is `within(bidirectional(valid), modality)`,
no attention across packed documents is `within(causal(valid), doc_id)`.

Shape letters: b rows, t tokens.
"""

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def bidirectional(valid: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t t"]:
    """Every token attends every token of its row."""
    return valid[:, :, None] & valid[:, None, :]


def causal(valid: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t t"]:
    """Every token attends itself and what stands before it."""
    t = valid.shape[1]
    return bidirectional(valid) & torch.ones(t, t, dtype=torch.bool, device=valid.device).tril()


def within(allowed: Bool[Tensor, "b t t"], group: Int[Tensor, "b t"]) -> Bool[Tensor, "b t t"]:
    """The same mask, cut between positions of different groups (documents of a packed row, modalities)."""
    return allowed & (group[:, :, None] == group[:, None, :])
