"""CLIP and SigLIP vision towers in the layout of huggingface/transformers, from a local folder or the local cache.

Shape letters: m images, s image side, t tokens, d width.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from transformers import AutoConfig, CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel
from transformers.utils import cached_file

from backbones.foreign.source import Foreign, Interpolation, Preprocess, Resize
from backbones.tower import Tower, check_side

_KINDS: Mapping[str, tuple[type, type]] = {
    "clip_vision_model": (CLIPVisionConfig, CLIPVisionModel),
    "siglip_vision_model": (SiglipVisionConfig, SiglipVisionModel),
}
# What the tower is built from: a config.json also holds paths and versions, which name nothing.
_BUILT_FROM = (
    *("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_channels"),
    *("image_size", "patch_size", "hidden_act", "layer_norm_eps", "attention_dropout"),
)
_TEXT = ("text_model.", "text_projection.", "visual_projection.", "logit_scale", "logit_bias")
_SIGLIP_MEAN = (0.5, 0.5, 0.5)
# Pillow's numbers, as preprocessor_config.json holds them.
_RESAMPLE: Mapping[int, Interpolation] = {2: "bilinear", 3: "bicubic"}


class HuggingFaceTower(Tower):
    """CLIPVisionModel or SiglipVisionModel. CLIP's class token comes first, SigLIP has none."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        config: Any = model.config
        self.width, self.image_size = config.hidden_size, config.image_size
        self.num_prefix_tokens = 1 if isinstance(config, CLIPVisionConfig) else 0
        self.num_patches = (config.image_size // config.patch_size) ** 2

    def tokens(self, images: Float[Tensor, "m 3 s s"]) -> Float[Tensor, "m t d"]:
        """All tokens after `post_layernorm`, which transformers applies to CLIP's class token alone."""
        check_side(self, images)
        model: Any = self.model
        found: Tensor = model(pixel_values=images).last_hidden_state
        return model.post_layernorm(found) if self.num_prefix_tokens else found

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The encoder layers."""
        return list(self.model.get_submodule("encoder.layers").children())

    @property
    def last(self) -> Sequence[nn.Module]:
        """`post_layernorm`."""
        return [self.model.get_submodule("post_layernorm")]

    def branches(self, block: nn.Module) -> Sequence[nn.Module]:
        """Attention and MLP themselves."""
        return [block.get_submodule("self_attn"), block.get_submodule("mlp")]


def load(name: str, weights: Path | None) -> Foreign:
    """The vision tower in a folder (weights, or the name) or of a cached hub name.

    Raises ValueError where there are no files, the model is of another kind, keys are missing or unexpected, or its
    images were prepared as ours cannot be.
    """
    if weights is not None and name:
        raise ValueError(f"hf:{name} and --weights {weights} name two models; leave one out (hf: --weights FOLDER)")
    where = str(weights) if weights is not None else name
    try:
        config = AutoConfig.from_pretrained(where, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no model at {where!r}; give the folder that holds its config.json and weights, or fetch it into the "
            "Hugging Face cache first (runs never download)"
        ) from error
    vision = getattr(config, "vision_config", config)
    if vision.model_type not in _KINDS:
        raise ValueError(f"{where!r} is a {config.model_type}; vision towers of {' and '.join(_KINDS)} are read")
    _, kind = _KINDS[vision.model_type]
    model, info = kind.from_pretrained(  # type: ignore[attr-defined]
        where, config=vision, local_files_only=True, output_loading_info=True
    )
    unexpected = [key for key in info["unexpected_keys"] if not key.startswith(_TEXT)]
    if info["missing_keys"] or unexpected or info["mismatched_keys"]:
        raise ValueError(
            f"the weights at {where!r} are not those of their config.json: missing {sorted(info['missing_keys'])[:4]}, "
            f"unexpected {sorted(unexpected)[:4]}, of another shape {list(info['mismatched_keys'])[:4]}"
        )
    tower = _tower(model)
    return Foreign(tower, _preprocess(where, vision), {"config": {name: getattr(vision, name) for name in _BUILT_FROM}})


def rebuild(architecture: Mapping[str, Any]) -> HuggingFaceTower:
    """The tower with random weights."""
    config = dict(architecture["config"])
    kind, model = _KINDS[config.pop("model_type")]
    return _tower(model(kind(**config)))


def _tower(model: Any) -> HuggingFaceTower:
    model.head = None  # SigLIP's pooling: no token depends on it
    if hasattr(model.config, "vision_use_head"):
        model.config.vision_use_head = False
        model.use_head = False
    return HuggingFaceTower(model)


def _preprocess(where: str, vision: Any) -> Preprocess:
    """What the files of the model say, else what its kind was trained with.

    Raises ValueError for a preparation that ours is not.
    """
    path = cached_file(
        where, "preprocessor_config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False
    )
    said = json.loads(Path(path).read_text()) if path is not None else {}
    default = Preprocess(size=vision.image_size)
    siglip = vision.model_type.startswith("siglip")
    resample = said.get("resample", 3)
    if resample not in _RESAMPLE or not said.get("do_normalize", True) or not said.get("do_rescale", True):
        raise ValueError(
            f"{path} asks for resample {resample}, do_normalize {said.get('do_normalize', True)} and do_rescale "
            f"{said.get('do_rescale', True)}; images are read with resample {' or '.join(map(str, _RESAMPLE))}, "
            "rescaled and normalised here, so its scores would be another model's"
        )
    return Preprocess(
        size=vision.image_size,
        mean=tuple(said.get("image_mean", _SIGLIP_MEAN if siglip else default.mean)),
        std=tuple(said.get("image_std", _SIGLIP_MEAN if siglip else default.std)),
        interpolation=_RESAMPLE[resample],
        resize=_resize(said, "squash" if siglip else "shortest"),
    )


def _resize(said: Mapping[str, Any], default: Resize) -> Resize:
    """A size of two sides without a crop presses pictures into it; older configurations name one side."""
    if "size" not in said:
        return default
    both = isinstance(said["size"], Mapping) and {"height", "width"} <= said["size"].keys()
    return "squash" if both and not said.get("do_center_crop", False) else "shortest"
