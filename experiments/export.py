"""`python -m experiments.export runs/pretrain-lcl-... lcl.safetensors`: an encoder of ours, for timm in one line.

`--to open_clip` writes a folder for open_clip: the encoder, and the smallest text tower it can be built with, all zero.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from open_clip.model import CLIP
from safetensors.torch import load_file
from torch import Tensor

from backbones.foreign.names import to_open_clip
from backbones.foreign.source import Preprocess
from backbones.foreign.weights import fill
from backbones.sizes import Size, VisionSize
from experiments.command.exits import EXIT_DONE, ended
from experiments.configuration.overrides import ConfigError
from experiments.configuration.typed import from_plain
from experiments.planning.specs import PretrainSpec, load_spec
from experiments.running.world import ENCODER_FILE, save_tensors

Library = Literal["timm", "open_clip"]
TIMM_BASE = "vit_base_patch16_224"  # whose class timm builds; every size is given beside it
OPEN_CLIP_FILES = ("open_clip_config.json", "open_clip_model.safetensors")
# open_clip builds no model without a text tower. One of zeros cannot be taken for a trained one.
_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}


@dataclass(frozen=True)
class Trained:
    """An encoder of ours, as its run left it."""

    size: VisionSize
    weights: Mapping[str, Tensor]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    made = argparse.ArgumentParser(prog="python -m experiments.export", description=__doc__)
    made.add_argument("run", type=Path, metavar="RUN", help="folder of a pre-training run")
    made.add_argument("out", type=Path, metavar="OUT", help="written: a .safetensors for timm, a folder for open_clip")
    made.add_argument("--to", default="timm", choices=get_args(Library), help="default: %(default)s")
    options = made.parse_args(arguments)
    return ended(partial(export, options), {"OUT": options.out})


def export(options: argparse.Namespace) -> int:
    """Write the encoder, print how it is loaded."""
    encoder = _trained(options.run)
    options.out.absolute().parent.mkdir(parents=True, exist_ok=True)
    print(_WRITERS[options.to](encoder, options.out))
    return EXIT_DONE


def for_timm(encoder: Trained, file: Path) -> str:
    """Write the weights under timm's names; the line of Python that loads them.

    Raises ConfigError (a ValueError) for another suffix than .safetensors, or norms that timm would not build.
    """
    if file.suffix != ".safetensors":
        raise ConfigError(f"{file}: name a .safetensors; timm tells the format by the name")
    size = encoder.size
    if size.norm_eps != VisionSize.norm_eps:
        raise ConfigError(
            f"timm's norms have an eps of {VisionSize.norm_eps}, this encoder's {size.norm_eps}; use --to open_clip"
        )
    given = {
        "img_size": size.image_size,
        "patch_size": size.patch_size,
        "embed_dim": size.width,
        "depth": size.depth,
        "num_heads": size.heads,
        "init_values": size.layer_scale,
        "pre_norm": size.pre_norm,
        "num_classes": 0,
    }
    save_tensors(file, {key.removeprefix("vit."): value for key, value in encoder.weights.items()})
    said = ", ".join(f"{key}={value!r}" for key, value in given.items())
    return f"timm.create_model({TIMM_BASE!r}, {said}, checkpoint_path={str(file)!r})"


def for_open_clip(encoder: Trained, folder: Path) -> str:
    """Write a folder that open_clip opens by itself; the line of Python that does.

    `encode_image` gives the mean of the patch tokens: no objective here trains the class token's output. Raises
    ConfigError (a ValueError) where there is something of that name already.
    """
    if folder.exists():
        raise ConfigError(f"{folder} is there already; name a folder that is not")
    size = encoder.size
    vision = {
        "image_size": size.image_size,
        "patch_size": size.patch_size,
        "width": size.width,
        "layers": size.depth,
        "head_width": size.width // size.heads,
        "ls_init_value": size.layer_scale,
        "no_ln_pre": not size.pre_norm,
        "norm_kwargs": {"eps": size.norm_eps},
        "pool_type": "avg",
    }
    looks = Preprocess(size=size.image_size)
    config: dict[str, Any] = {
        "model_cfg": {"embed_dim": size.width, "vision_cfg": vision, "text_cfg": _TEXT},
        "preprocess_cfg": {"mean": looks.mean, "std": looks.std, "interpolation": looks.interpolation},
    }
    model = CLIP(**config["model_cfg"])
    fill(model.visual, to_open_clip(encoder.weights) | {"proj": torch.eye(size.width)}, "open_clip's")
    held = {
        key: value.contiguous() if key.startswith("visual.") else torch.zeros_like(value)
        for key, value in model.state_dict().items()
    }
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=f".{folder.name}.") as made:
        written = Path(made) / folder.name
        written.mkdir()
        (written / OPEN_CLIP_FILES[0]).write_text(json.dumps(config, indent=1) + "\n")
        save_tensors(written / OPEN_CLIP_FILES[1], held)
        shutil.move(written, folder)
    return f"open_clip.create_model({f'local-dir:{folder}'!r})"


_WRITERS: Mapping[Library, Callable[[Trained, Path], str]] = {"timm": for_timm, "open_clip": for_open_clip}


def _trained(run: Path) -> Trained:
    """Raises ConfigError (a ValueError) for a folder that is no finished pre-training."""
    if not (run / ENCODER_FILE).exists():
        raise ConfigError(f"{run} holds no {ENCODER_FILE}; give the folder of a finished pre-training run")
    spec = load_spec(run)
    if not isinstance(spec, PretrainSpec):
        raise ConfigError(f"{run} is a {spec.kind.value} run; only encoders that were trained here are exported")
    size: Size = from_plain(Size, spec.model, "model")
    return Trained(size.vision, load_file(run / ENCODER_FILE))


if __name__ == "__main__":
    sys.exit(main())
