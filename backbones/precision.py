"""The width in which losses, similarities and softmaxes are computed, whatever the layers around them run in."""

import torch
from torch import Tensor


def at_least_fp32(x: Tensor) -> Tensor:
    """`x` in fp32; float64 stays float64, in which tests tell rounding from a mistake."""
    return x if x.dtype == torch.float64 else x.float()
