"""Attention pooling of an image's tokens by one learned query, as in CAE's attentive probe.

Source: LCL paper A.2 ("attention probe"); CAE `modeling_finetune.py` AttentiveBlock for the parts: MHA(LN_q(q),
LN_k(x), LN_v(x)), heads = d / 64, zero-initialised query, biases on query, value and output but not on key.

Because the query is the same for every image and keys have no bias, scores are LN_k(x) . (W_k^T q_h), and values may be
projected after averaging: b t d h multiplications instead of 2 b t d^2, with equal results (tests/transfer).

Shape letters: b images, t tokens, d width, h heads, e width of a head.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

HEAD_WIDTH = 64


class AttentionPool(nn.Module):
    """[b, t, d] -> [b, d]. Initialised from torch's global generator."""

    def __init__(self, width: int) -> None:
        """Raises ValueError where the width is not a multiple of 64 (below 64: one head)."""
        super().__init__()
        self.heads = max(1, width // HEAD_WIDTH)
        if width % self.heads:
            raise ValueError(f"token width {width} is not a multiple of the head width {HEAD_WIDTH}")
        self.query = nn.Parameter(torch.zeros(1, 1, width))
        self.norm_query, self.norm_key, self.norm_value = (nn.LayerNorm(width, eps=1e-6) for _ in range(3))
        self.to_query, self.to_value = nn.Linear(width, width), nn.Linear(width, width)
        self.to_key = nn.Linear(width, width, bias=False)
        self.to_output = nn.Linear(width, width)
        for linear in (self.to_query, self.to_key, self.to_value, self.to_output):
            nn.init.trunc_normal_(linear.weight, std=0.02)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b d"]:
        """Pooled features, fp32 whatever the autocast."""
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.float()
            query = self.to_query(self.norm_query(self.query)).view(self.heads, -1)  # [h, e]
            asked = torch.einsum("he,hed->hd", query, self._by_head(self.to_key.weight)) / math.sqrt(query.shape[1])
            attention = (self.norm_key(tokens) @ asked.T).softmax(dim=1)  # [b, t, h]
            averaged = attention.transpose(1, 2) @ self.norm_value(tokens)  # [b, h, d]
            values = torch.einsum("bhd,hed->bhe", averaged, self._by_head(self.to_value.weight)).flatten(1)
            return self.to_output(values + self.to_value.bias)  # attention sums to one, so the bias is added once

    def _by_head(self, weight: Float[Tensor, "o d"]) -> Float[Tensor, "h e d"]:
        return weight.view(self.heads, -1, weight.shape[1])
