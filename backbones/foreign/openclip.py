"""Vision towers of mlfoundations/open_clip: any architecture with its own ViT, or with one of timm's inside.

Shape letters: m images, s image side, t tokens, d width.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
from huggingface_hub import try_to_load_from_cache
from jaxtyping import Float
from open_clip.model import _build_vision_tower
from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from backbones.foreign.source import CLIP_MEAN, CLIP_STD, Foreign, Preprocess, interpolation_of, resize_of
from backbones.foreign.timm_models import TimmTower
from backbones.foreign.weights import below, fill, read_weights
from backbones.tower import Tower, check_side

_OTHER_PARTS = (
    "text.", "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "logit_scale",
    "logit_bias", "text_decoder.", "attn_mask",
)  # fmt: skip
_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


class OpenClipTower(Tower):
    """open_clip's VisionTransformer. The class token comes first; the projection to the shared space is left out."""

    def __init__(self, visual: VisionTransformer) -> None:
        """Raises ValueError for CoCa's pooling, after which there are no patch tokens."""
        super().__init__()
        if getattr(visual, "attn_pool", None) is not None:
            raise ValueError("this open_clip model pools its tokens by attention before its final norm; none are left")
        visual.proj = None
        self.visual = visual
        self.width = visual.class_embedding.shape[0]
        self.image_size = visual.image_size[0]
        self.num_prefix_tokens = 1
        self.num_patches = visual.grid_size[0] * visual.grid_size[1]

    def tokens(self, images: Float[Tensor, "m 3 s s"]) -> Float[Tensor, "m t d"]:
        """Class and patch tokens after `ln_post`."""
        check_side(self, images)
        visual: Any = self.visual
        found: Tensor = visual.ln_post(visual.transformer(visual._embeds(images)))
        return found

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The residual blocks."""
        return list(self.visual.get_submodule("transformer.resblocks").children())

    @property
    def last(self) -> Sequence[nn.Module]:
        """`ln_post`."""
        return [self.visual.get_submodule("ln_post")]

    def branches(self, block: nn.Module) -> Sequence[nn.Module]:
        """The places of layer scale, behind attention and MLP."""
        return [block.get_submodule("ls_1"), block.get_submodule("ls_2")]


def load(name: str, weights: Path | None) -> Foreign:
    """ARCHITECTURE with weights of a file, or ARCHITECTURE/TAG with weights that were downloaded before."""
    architecture, _, tag = name.partition("/")
    about = _about(architecture, tag) if tag else _agreed(architecture)
    quick = bool(about.get("quick_gelu", False)) and not architecture.endswith("-quickgelu")
    tower = rebuild({"architecture": architecture, "quick_gelu": quick})
    found = read_weights(weights if weights is not None else _cached(architecture, tag, about))
    held = below(found, "visual.", _OTHER_PARTS)
    prefix = "trunk." if isinstance(tower, TimmTower) else ""
    held = {key.removeprefix(prefix): value for key, value in held.items() if not key.startswith("head.")}
    held.pop("proj", None)
    inner = tower.model if isinstance(tower, TimmTower) else tower.get_submodule("visual")
    fill(inner, held, f"open_clip:{architecture}")
    preprocess = Preprocess(
        size=tower.image_size,
        mean=tuple(about.get("mean", CLIP_MEAN)),
        std=tuple(about.get("std", CLIP_STD)),
        interpolation=interpolation_of(about.get("interpolation", "bicubic"), f"open_clip:{name}"),
        resize=resize_of(about.get("resize_mode", "shortest"), f"open_clip:{name}"),
    )
    return Foreign(tower, preprocess, {"architecture": architecture, "quick_gelu": quick})


def rebuild(architecture: Mapping[str, Any]) -> Tower:
    """The tower with random weights. Raises ValueError for an architecture open_clip does not have."""
    name = architecture["architecture"]
    if name not in open_clip.list_models():
        raise ValueError(
            f"open_clip has no architecture {name!r}; python -c 'import open_clip; open_clip.list_models()'"
        )
    config = open_clip.get_model_config(name)
    # The vision tower alone: making the whole model would look up text models on the network.
    quick = architecture["quick_gelu"] or config.get("quick_gelu", False)
    visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], quick)
    if isinstance(visual, TimmModel):
        return TimmTower(visual.trunk, f"open_clip:{name}")
    if not isinstance(visual, VisionTransformer):
        raise ValueError(f"open_clip:{name} sees with a {type(visual).__name__}, which has no tokens; choose a ViT")
    return OpenClipTower(visual)


def _about(architecture: str, tag: str) -> dict[str, Any]:
    about = get_pretrained_cfg(architecture, tag)
    if not about:
        known = ", ".join(list_pretrained_tags_by_model(architecture)) or "none"
        raise ValueError(f"open_clip:{architecture} has no weights {tag!r}; there are {known}")
    return dict(about)


def _agreed(architecture: str) -> dict[str, Any]:
    """What all published weights of an architecture say of their images and activation; nothing where they differ.

    A user's own weights say nothing, and those of a SigLIP were trained on other images than CLIP's.
    """
    tags = [get_pretrained_cfg(architecture, tag) for tag in list_pretrained_tags_by_model(architecture)]
    said: dict[str, Any] = {}
    for names in (("mean", "std", "interpolation", "resize_mode"), ("quick_gelu",)):
        wanted = [{name: about[name] for name in names if name in about} for about in tags]
        if wanted and all(each == wanted[0] for each in wanted):
            said |= wanted[0]
    return said


def _cached(architecture: str, tag: str, about: Mapping[str, Any]) -> Path:
    repository = str(about.get("hf_hub", "")).rstrip("/")
    for name in _FILES if repository else ():
        found = try_to_load_from_cache(repository, name)
        if isinstance(found, str):
            return Path(found)
    where = f"open_clip.create_model({architecture!r}, pretrained={tag!r})" if tag else "--weights FILE"
    raise ValueError(
        f"the weights of open_clip:{architecture}{'/' + tag if tag else ''} are not on this machine, and nothing is "
        f"downloaded inside a run; fetch them once with {where}, or give --weights FILE"
    )
