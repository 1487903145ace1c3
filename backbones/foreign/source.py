"""An encoder by the name of where it comes from: `open_clip:ViT-B-32`, `timm:vit_base_patch16_224`, `hf:DIR`, `lcl:`.

A loaded encoder says what is needed to build it again (`architecture`, JSON values), so that its weights can be kept
apart from the user's file.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args

from backbones.tower import Tower

Library = Literal["open_clip", "timm", "hf", "lcl"]
Interpolation = Literal["bicubic", "bilinear"]
Resize = Literal["shortest", "squash"]
_MODULES: Mapping[Library, str] = {
    "open_clip": "backbones.foreign.openclip",
    "timm": "backbones.foreign.timm_models",
    "hf": "backbones.foreign.huggingface",
    "lcl": "backbones.foreign.lcl",
}
# CLIP's, which open_clip takes where a checkpoint says nothing.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What the encoder's images must look like: side in pixels, normalisation, how a picture becomes a square."""

    size: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: Interpolation = "bicubic"
    resize: Resize = "shortest"  # squash: SigLIP and others were trained on pictures pressed into a square


@dataclass(frozen=True)
class Foreign:
    """An encoder with its weights, its pre-processing, and what builds it again without weights."""

    tower: Tower
    preprocess: Preprocess
    architecture: Mapping[str, Any]


def load(source: str, weights: Path | None) -> Foreign:
    """The encoder of that name with weights from a file or folder, in evaluation mode on CPU in fp32.

    weights: may be None where the name says which cached weights are meant (an open_clip tag, a cached hub name).
    Nothing is downloaded. Raises ValueError for unknown names, missing weights, and keys that do not fit.
    """
    library, name = parse(source)
    found: Foreign = _module(library).load(name, weights)
    return Foreign(found.tower.float().eval(), found.preprocess, found.architecture)


def rebuild(source: str, architecture: Mapping[str, Any]) -> Tower:
    """The encoder again, with random weights."""
    library, _ = parse(source)
    tower: Tower = _module(library).rebuild(architecture)
    return tower.float().eval()


def parse(source: str) -> tuple[Library, str]:
    """Library and name. Raises ValueError saying what can be written."""
    prefix, colon, name = source.partition(":")
    if not colon or prefix not in get_args(Library):
        raise ValueError(
            f"encoder {source!r} names no source; write one of open_clip:ARCHITECTURE[/TAG], timm:NAME, hf:FOLDER, "
            "lcl:FILE, or the folder of a pre-training run"
        )
    return prefix, name  # type: ignore[return-value]  # one of Library


def interpolation_of(name: str, source: str) -> Interpolation:
    """One of the two there are. Raises ValueError for another."""
    if name not in get_args(Interpolation):
        raise ValueError(
            f"{source}: images are resized by {name!r}; this suite has {', '.join(get_args(Interpolation))}"
        )
    return name  # type: ignore[return-value]  # one of Interpolation


def resize_of(name: str, source: str) -> Resize:
    """One of the two there are. Raises ValueError for another."""
    if name not in get_args(Resize):
        raise ValueError(
            f"{source}: pictures are made square by {name!r}; this suite has {', '.join(get_args(Resize))}"
        )
    return name  # type: ignore[return-value]  # one of Resize


def _module(library: Library) -> ModuleType:
    return importlib.import_module(_MODULES[library])
