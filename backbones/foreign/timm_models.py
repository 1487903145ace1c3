"""Vision transformers of rwightman's timm by name, with weights from a local file.

Shape letters: m images, s image side, t tokens, d width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
from jaxtyping import Float
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from backbones.foreign.source import Foreign, Preprocess, interpolation_of
from backbones.foreign.weights import fill, read_weights
from backbones.tower import Tower, check_side

# timm's configurations do not say how these were trained; open_clip's of the same weights do.
_SQUASHED = "_siglip_"
_CLASSIFIER = ("head.", "head_dist.")


class TimmTower(Tower):
    """What timm calls `forward_features`: tokens after the model's norm, where it has one before pooling."""

    def __init__(self, model: nn.Module, source: str) -> None:
        """Raises ValueError for a model that is no transformer with blocks, a square input and prefix tokens."""
        super().__init__()
        needed = ("blocks", "num_prefix_tokens", "patch_embed", "num_features")
        lacking = [name for name in needed if not hasattr(model, name)]
        if lacking:
            raise ValueError(f"{source} is no vision transformer: it has no {', '.join(lacking)}; choose a ViT")
        self.model = model
        of: Any = model
        self.width = of.num_features
        side, other = of.patch_embed.img_size
        if side != other:
            raise ValueError(f"{source} reads {side}x{other} images; this suite gives square ones")
        self.image_size = side
        self.num_prefix_tokens = of.num_prefix_tokens
        self.num_patches = of.patch_embed.num_patches

    def tokens(self, images: Float[Tensor, "m 3 s s"]) -> Float[Tensor, "m t d"]:
        """Prefix and patch tokens, as `forward_features` gives them."""
        check_side(self, images)
        model: Any = self.model
        found: Tensor = model.forward_features(images)
        return found

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The transformer blocks."""
        return list(self.model.get_submodule("blocks").children())

    @property
    def last(self) -> Sequence[nn.Module]:
        """The norm after the blocks."""
        return [self.model.get_submodule("norm")]

    def branches(self, block: nn.Module) -> Sequence[nn.Module]:
        """timm's places for drop-path. Raises ValueError for a block that has none."""
        names = [name for name in ("drop_path1", "drop_path2") if hasattr(block, name)]
        if not names:
            raise ValueError(f"a {type(block).__name__} of timm has no place for drop-path; set vision.drop_path=0")
        return [block.get_submodule(name) for name in names]


def load(name: str, weights: Path | None) -> Foreign:
    """timm's model of that name with weights of a file; its classifier is left out."""
    if weights is None:
        raise ValueError(f"timm:{name} needs --weights FILE: nothing is downloaded inside a run")
    tower = rebuild({"name": name})
    held = {key: value for key, value in read_weights(weights).items() if not key.startswith(_CLASSIFIER)}
    fill(tower.model, held, f"timm:{name}")
    about = resolve_model_data_config(tower.model)
    preprocess = Preprocess(
        size=tower.image_size,
        mean=tuple(about["mean"]),
        std=tuple(about["std"]),
        interpolation=interpolation_of(about["interpolation"], f"timm:{name}"),
        resize="squash" if about["crop_mode"] == "squash" or _SQUASHED in name else "shortest",
    )
    return Foreign(tower, preprocess, {"name": name})


def rebuild(architecture: Mapping[str, Any]) -> TimmTower:
    """The model with random weights. Raises ValueError for a name timm does not have."""
    name = architecture["name"]
    if not timm.is_model(name.partition(".")[0]):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5]) or "see timm.list_models()"
        raise ValueError(f"timm has no model {name!r}; {near}")
    return TimmTower(timm.create_model(name, pretrained=False, num_classes=0), f"timm:{name}")
