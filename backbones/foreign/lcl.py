"""The released LCL checkpoint (OpenGVLab/LCL, `.pt`): open_clip's ViT, whose sizes its tensors tell, as our encoder.

Every key belongs to a part: the encoder is read, the text transformer, the connector and the head of the language model
are pre-training's and left out (LCL paper A.2 throws them away as well).
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from backbones.foreign.names import from_open_clip
from backbones.foreign.source import Foreign, Preprocess
from backbones.foreign.weights import below, fill, read_weights
from backbones.sizes import VisionSize
from backbones.vit import VisionEncoder

_OTHER_PARTS = ("text.", "pool_project.", "lm_head.", "logit_scale", "logit_bias")
_HEAD_WIDTH = 64  # channels of an attention head in every ViT of open_clip that does not say otherwise


def load(name: str, weights: Path | None) -> Foreign:
    """The encoder in a released file: `lcl:FILE`, or `lcl:` with --weights FILE."""
    if (weights is None) == (not name):
        both = f"lcl:{name} and --weights {weights} name two files; leave one out"
        raise ValueError("lcl: needs --weights FILE, the released .pt" if weights is None else both)
    held = below(read_weights(weights if weights is not None else Path(name)), "visual.", _OTHER_PARTS)
    size = _size(held)
    tower = rebuild({"size": asdict(size)})
    held.pop("proj", None)  # LCL has no projection
    fill(tower, from_open_clip(held), f"LCL's {size.name}")
    return Foreign(tower, Preprocess(size=size.image_size), {"size": asdict(size)})


def rebuild(architecture: Mapping[str, Any]) -> VisionEncoder:
    """The encoder with random weights."""
    return VisionEncoder(VisionSize(**architecture["size"]))


def _size(held: Mapping[str, Tensor]) -> VisionSize:
    """Sizes from the shapes of tensors. Raises ValueError where those that tell them are not there."""
    needed = ("conv1.weight", "positional_embedding", "class_embedding", "ln_pre.weight")
    if lacking := [key for key in needed if key not in held]:
        raise ValueError(
            f"this is no LCL checkpoint: visual.{lacking[0]} is missing; its ViT has a norm before its blocks"
        )
    width, _, patch, _ = held["conv1.weight"].shape
    side = round((held["positional_embedding"].shape[0] - 1) ** 0.5)
    depth = len({key.split(".")[2] for key in held if key.startswith("transformer.resblocks.")})
    return VisionSize(
        name=f"lcl-{width}-{patch}",
        image_size=side * patch,
        patch_size=patch,
        width=width,
        depth=depth,
        heads=max(1, width // _HEAD_WIDTH),
        pre_norm=True,
        norm_eps=1e-5,
    )
