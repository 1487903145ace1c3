"""Heads between the backbones: connector (attention pool and token projection), context readout, temperature.

Source: LCL paper 3.3 ("multi-head attention layer with a learnable query", LayerNorm and a linear layer at `<BoI>`);
OpenGVLab/LCL `attentive.py` for the value and output projections shared by the pool and the tokens;
mlfoundations/open_clip for the temperature.

Shape letters: m images, p patches, v vision width, d language width, n pairs.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.precision import at_least_fp32

HEAD_WIDTH = 64


class Visual(NamedTuple):
    """What the connector makes of an image."""

    tokens: Float[Tensor, "m p d"]  # Z: enters the language model
    pooled: Float[Tensor, "m d"]  # p: enters the contrast, not normalised


class TokenConnector(nn.Module):
    """The value path: patches to tokens of the language model, Z = U W_o with U = LN_v(H) W_v + b_v."""

    def __init__(self, vision_width: int, lm_width: int) -> None:
        super().__init__()
        self.norm_value = nn.LayerNorm(vision_width)
        self.to_value = nn.Linear(vision_width, lm_width)
        self.to_output = nn.Linear(lm_width, lm_width, bias=False)
        nn.init.zeros_(self.to_value.bias)

    def values(self, patches: Float[Tensor, "m p v"]) -> Float[Tensor, "m p d"]:
        """U, before the output projection: what the attention pool averages."""
        return self.to_value(self.norm_value(patches))

    def forward(self, patches: Float[Tensor, "m p v"]) -> Float[Tensor, "m p d"]:
        """Z: enters the language model."""
        return self.to_output(self.values(patches))


class Connector(nn.Module):
    """The value path, and an attention pool with a learned query over the same values and output projection."""

    def __init__(self, vision_width: int, lm_width: int) -> None:
        """Raises ValueError where lm_width is not a multiple of its lm_width / 64 heads."""
        super().__init__()
        self.heads = max(1, lm_width // HEAD_WIDTH)
        if lm_width % self.heads:
            raise ValueError(
                f"language width {lm_width} is not a multiple of the connector's {self.heads} heads; "
                f"choose a width that is a multiple of {HEAD_WIDTH}"
            )
        self.norm_query, self.norm_key = (nn.LayerNorm(vision_width) for _ in range(2))
        self.to_query, self.to_key = (nn.Linear(vision_width, lm_width) for _ in range(2))
        self.to_tokens = TokenConnector(vision_width, lm_width)
        self.query = nn.Parameter(torch.randn(vision_width))
        for linear in (self.to_query, self.to_key):
            nn.init.zeros_(linear.bias)

    def forward(self, patches: Float[Tensor, "m p v"]) -> Visual:
        """Tokens Z = U W_o and pooled p = concat_h(A_h U_h) W_o, with U = LN_v(H) W_v (LCL `attentive.py`)."""
        values, to_output = self.to_tokens.values(patches), self.to_tokens.to_output
        query = self._split(self.to_query(self.norm_query(self.query)))  # [h, e]
        keys = self._split(self.to_key(self.norm_key(patches)))  # [m, p, h, e]
        scores = torch.einsum("he,mphe->mhp", query, keys) / math.sqrt(query.shape[-1])
        attention = at_least_fp32(scores).softmax(dim=-1).to(values.dtype)
        pooled = torch.einsum("mhp,mphe->mhe", attention, self._split(values)).flatten(1)
        return Visual(tokens=to_output(values), pooled=to_output(pooled))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1))


class ContextReadout(nn.Module):
    """LayerNorm and linear layer on the language model's state at `<BoI>`: what an image is contrasted with."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.proj = nn.Linear(width, width, bias=False)
        nn.init.normal_(self.proj.weight, std=width**-0.5)

    def forward(self, states: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        """Context vectors, not normalised."""
        return self.proj(self.norm(states))


class Temperature(nn.Module):
    """Learned logit scale s = exp(a), a in [0, ln 100]; the temperature of the paper is 1 / s."""

    INITIAL, LARGEST = math.log(1 / 0.07), math.log(100)

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(self.INITIAL))

    def scale(self) -> Float[Tensor, ""]:
        """s, in fp32."""
        return at_least_fp32(self.log_scale).exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Keep a in its range; call after every optimiser step."""
        self.log_scale.clamp_(0.0, self.LARGEST)
