"""Randomness by name: every random stream is derived from what it is for, never from when it runs."""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stable_seed(*parts: str | int) -> int:
    """A 63-bit integer that depends only on the parts, equal across processes, platforms and Python versions."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(*parts: str | int) -> np.random.Generator:
    """A NumPy generator for the stream of that name."""
    return np.random.default_rng(stable_seed(*parts))


def torch_generator(*parts: str | int) -> "torch.Generator":
    """A CPU torch generator for the stream of that name."""
    import torch  # only here: processes that read documents (data/loading/reader.py) do without

    return torch.Generator().manual_seed(stable_seed(*parts))
