"""`python -m experiments.export runs/pretrain-lcl-... lcl.safetensors`: an encoder of ours, for timm in one line."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from backbones.sizes import Size, VisionSize
from experiments.configuration.overrides import ConfigError
from experiments.configuration.typed import from_plain
from experiments.planning.specs import PretrainSpec, load_spec
from experiments.running.world import ENCODER_FILE

BASE = "vit_base_patch16_224"  # whose class timm builds; every size is given beside it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    made = argparse.ArgumentParser(prog="python -m experiments.export", description=__doc__)
    made.add_argument("run", type=Path, metavar="RUN", help="folder of a pre-training run")
    made.add_argument("file", type=Path, metavar="FILE", help="a .safetensors that is written")
    options = made.parse_args(arguments)
    try:
        print(export(options.run, options.file))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def export(run: Path, file: Path) -> str:
    """Write the weights of a run's encoder under timm's names; the line of Python that loads them.

    Raises ValueError for a folder that is no finished pre-training, or another suffix than .safetensors.
    """
    if file.suffix != ".safetensors":
        raise ConfigError(f"{file}: name a .safetensors; timm tells the format by the name")
    if not (run / ENCODER_FILE).exists():
        raise ConfigError(f"{run} holds no {ENCODER_FILE}; give the folder of a finished pre-training run")
    spec = load_spec(run)
    if not isinstance(spec, PretrainSpec):
        raise ConfigError(f"{run} is a {spec.kind.value} run; only encoders that were trained here are exported")
    size: Size = from_plain(Size, spec.model, "model")
    weights = {key.removeprefix("vit."): value for key, value in load_file(run / ENCODER_FILE).items()}
    partial = file.with_name(f".{file.stem}.partial.safetensors")
    save_file(weights, partial)
    partial.replace(file)
    given = ", ".join(f"{key}={value!r}" for key, value in _arguments(size.vision).items())
    return f"timm.create_model({BASE!r}, {given}, checkpoint_path={str(file)!r})"


def _arguments(size: VisionSize) -> Mapping[str, Any]:
    if size.norm_eps != VisionSize.norm_eps:
        raise ConfigError(f"timm's norms have an eps of {VisionSize.norm_eps}, this encoder's {size.norm_eps}")
    return {
        "img_size": size.image_size,
        "patch_size": size.patch_size,
        "embed_dim": size.width,
        "depth": size.depth,
        "num_heads": size.heads,
        "init_values": size.layer_scale,
        "pre_norm": size.pre_norm,
        "num_classes": 0,
    }


if __name__ == "__main__":
    sys.exit(main())
