"""Encoder: a vision encoder, the image transform that belongs to it, and the digest of its weights.

Our choice: tokens are those after the final norm, and the pre-processing comes with the checkpoint.
"""

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from backbones.tower import Tower


@runtime_checkable
class Transform(Protocol):
    """data/images.py's ImageTransform: a crop, random or not, then normalisation."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Of the encoder's normalisation, as a share of full brightness."""
        ...

    def with_scale(self, scale: tuple[float, float]) -> "Transform":
        """The same, its random crops keeping such shares of the area."""
        ...

    def train(self, image: Image.Image, rng: np.random.Generator) -> np.ndarray:
        """A random crop of an RGB image: uint8 [s, s, 3]."""
        ...

    def eval(self, image: Image.Image) -> np.ndarray:
        """The crop of an RGB image: uint8 [s, s, 3]."""
        ...

    def normalise(self, images: Tensor) -> Tensor:
        """The encoder's input: uint8 [m, s, s, 3] to fp32 [m, 3, s, s]."""
        ...

    def digest(self) -> str:
        """Equal for equal transforms."""
        ...


@dataclass(frozen=True)
class Encoder:
    """A vision encoder from anywhere. `module.tokens(images)` gives prefix and patch tokens."""

    module: Tower
    transform: Transform

    @property
    def digest(self) -> str:
        """SHA-256 of the weights, computed now: it changes when they do."""
        return fingerprint(self.module)

    @property
    def patches(self) -> slice:
        """The patch tokens among the output tokens."""
        return slice(self.module.num_prefix_tokens, self.module.num_prefix_tokens + self.module.num_patches)


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over name, dtype, shape and bytes of everything in the state dict (buffers included)."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
