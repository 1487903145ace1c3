"""Hard negatives: draws from a softmax over candidates that no batch order and no number of ranks can change.

BLIP-2 and ALBEF draw with the process's own generator, so the draw depends on rank and on history. Here the noise of a
pair of documents is a hash of their two seeds (our choice: equal draws on any number of ranks).

Shape letters: r rows of this rank, n candidates of all ranks.
"""

import math

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def draw(logits: Float[Tensor, "r n"], allowed: Bool[Tensor, "r n"], noise: Float[Tensor, "r n"]) -> Int[Tensor, " r"]:
    """One index a row from softmax(logits) over the allowed, by the Gumbel-max trick; meaningless where none is.

    It works on logits, so weights that would all underflow to zero are no special case.
    """
    return (logits + noise).masked_fill(~allowed, -math.inf).argmax(dim=1)


def pair_noise(left: Int[Tensor, " r"], right: Int[Tensor, " n"], stream: int) -> Float[Tensor, "r n"]:
    """Standard Gumbel noise that depends on the two documents' seeds and the stream only.

    Neither the order of a batch nor the number of ranks changes what is drawn.
    """
    bits = _mix(_mix(left + stream)[:, None] ^ right[None, :])
    uniform = (_shift_right(bits, 11).double() + 0.5) * 2.0**-53
    return -torch.log(-torch.log(uniform))


def _mix(x: Int[Tensor, "*s"]) -> Int[Tensor, "*s"]:
    # splitmix64's finaliser (Steele, Lea and Flood 2014) in int64, whose products wrap around as unsigned ones do.
    x = x + _signed(0x9E3779B97F4A7C15)
    x = (x ^ _shift_right(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shift_right(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shift_right(x, 31)


def _signed(constant: int) -> int:
    return constant - (1 << 64) if constant >> 63 else constant


def _shift_right(x: Tensor, bits: int) -> Tensor:
    return (x >> bits) & ((1 << (64 - bits)) - 1)
