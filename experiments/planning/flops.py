"""What a training step costs in closed form: floating-point operations, multiply-add counted as 2, without torch.

Full attention is counted even where it is causal, and padding like text, because both are computed. A step costs three
times its forward pass; what has no gradient (codes of patches, the draw of negatives, the pixels below the patch
embedding) is counted once or twice. A run counts its own first steps (experiments/running/cost.py); this says the same
beforehand, and a test holds the two together for every objective here.

An objective added later has no formula until somebody writes one: `step_flops` then says None, and plans say so.

Letters: k queries, d width of the language model, v of the encoder; s sizes, w work.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Work:
    """One batch in numbers."""

    images: int
    rows: Mapping[str, tuple[int, int]]  # by layout: rows, and tokens of each with its padding
    predicted: int  # tokens that the language model's head is asked for
    contrasted: int = 0  # images with a context
    hidden_patches: int = 0  # predicted by masked modelling
    images_of_a_row: int = 1  # the most in any row


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """The backbones of a run."""

    vision: Mapping[str, Any]  # fields of VisionSize
    language: Mapping[str, Any]  # fields of LanguageSize
    vocabulary: int

    @property
    def patches(self) -> int:
        """Patch tokens of an image."""
        return int(self.vision["image_size"] // self.vision["patch_size"]) ** 2

    @property
    def width(self) -> int:
        """Of the language model."""
        return int(self.language["width"])

    @property
    def vision_width(self) -> int:
        """Of the encoder."""
        return int(self.vision["width"])


def body(rows: int, tokens: int, width: int, depth: int, ffn: int) -> int:
    """Forward pass of a transformer: projections and feed-forward of all tokens, scores and sums of all pairs."""
    return depth * rows * (tokens * (8 * width**2 + 4 * width * ffn) + 4 * tokens**2 * width)


def linear(items: int, inputs: int, outputs: int) -> int:
    """Forward pass of a linear layer."""
    return 2 * items * inputs * outputs


def step_flops(name: str, config: Mapping[str, Any], sizes: Sizes, work: Work) -> int | None:
    """Forward and backward of one step of an objective; None where it has no formula here."""
    found = _OBJECTIVES.get(name)
    return None if found is None else _vision(sizes, work) + found(config, sizes, work)


def _vision(s: Sizes, w: Work) -> int:
    v = s.vision_width
    embedding = linear(w.images * s.patches, 3 * int(s.vision["patch_size"]) ** 2, v)
    return 3 * body(w.images, s.patches + 1, v, int(s.vision["depth"]), 4 * v) + 2 * embedding


def _language(s: Sizes, rows: int, tokens: int) -> int:
    return 3 * body(rows, tokens, s.width, int(s.language["depth"]), int(s.language["ffn"]))


def _head(s: Sizes, w: Work) -> int:
    return 3 * linear(w.predicted, s.width, s.vocabulary)


def _tokens(s: Sizes, w: Work) -> int:
    """Patches to tokens of the language model."""
    return 3 * w.images * s.patches * 2 * (s.vision_width * s.width + s.width**2)


def _pool(s: Sizes, w: Work) -> int:
    """Keys, scores and weighted values of the attention pool, and its output projection."""
    return 3 * w.images * (s.patches * (2 * s.vision_width * s.width + 4 * s.width) + 2 * s.width**2)


def _contrast(s: Sizes, w: Work) -> int:
    """Context readout, and the similarities of all pairs in both directions."""
    return 3 * (linear(w.images, s.width, s.width) + 2 * linear(w.contrasted, s.width, w.contrasted))


def _clip(_: Mapping[str, Any], s: Sizes, w: Work) -> int:
    # The tokens' output projection runs in the connector too, without a gradient: nobody reads them.
    unread = 2 * w.images * s.patches * 2 * s.width**2
    return _tokens(s, w) - unread + _pool(s, w) + _language(s, *w.rows["text_only"]) + _contrast(s, w)


def _coca(_: Mapping[str, Any], s: Sizes, w: Work) -> int:
    passes = _language(s, *w.rows["text_only"]) + _language(s, *w.rows["image_first"])
    return _tokens(s, w) + _pool(s, w) + passes + _contrast(s, w) + _head(s, w)


def _blip2(config: Mapping[str, Any], s: Sizes, w: Work) -> int:
    rows, tokens = w.rows["image_first"]
    drawn = 2 * linear(w.contrasted, s.width, w.contrasted)
    return _coca(config, s, w) + _language(s, 3 * rows, tokens) + drawn


def _lcl(config: Mapping[str, Any], s: Sizes, w: Work) -> int:
    rows = w.rows[config["layout"]]
    return _tokens(s, w) + _pool(s, w) + _language(s, *rows) + _contrast(s, w) + _head(s, w)


def _beit3(config: Mapping[str, Any], s: Sizes, w: Work) -> int:
    pixels, patches = 3 * int(s.vision["patch_size"]) ** 2, w.images * s.patches
    coded = config["target"] != "pixel"
    outputs = config["codes"] if coded else pixels
    codes = linear(patches, pixels, config["code_width"]) + linear(patches, config["code_width"], config["codes"])
    prediction = 3 * linear(w.hidden_patches, s.width, outputs)
    return _tokens(s, w) + _language(s, *w.rows["interleaved"]) + _head(s, w) + prediction + (codes if coded else 0)


def _flamingo(config: Mapping[str, Any], s: Sizes, w: Work) -> int:
    v, d, inner, latents = s.vision_width, s.width, 64 * config["heads"], config["latents"]
    keys = s.patches + latents
    reading = latents * 4 * v * inner + keys * 4 * v * inner + 4 * latents * keys * inner + latents * 16 * v**2
    rows, tokens = w.rows["media_token"]
    context = w.images_of_a_row * latents
    crossing = tokens * (4 * d * inner + 16 * d**2) + context * 4 * v * inner + 4 * tokens * context * inner
    added = w.images * config["resampler_depth"] * reading + int(s.language["depth"]) * rows * crossing
    return 3 * added + _language(s, rows, tokens) + _head(s, w)


def _emu(config: Mapping[str, Any], s: Sizes, w: Work) -> int:
    k, width, v = config["queries"], config["width"], s.vision_width
    own = k * 8 * width**2 + 4 * k**2 * width
    across = k * 4 * width**2 + s.patches * 4 * v * width + 4 * k * s.patches * width
    layer = own + across + k * 4 * width * config["ffn"]
    former = w.images * (config["depth"] * layer + 2 * k * width * s.width)
    regressed = linear(w.images * k, s.width, s.width)
    return 3 * (former + regressed) + _language(s, *w.rows["interleaved"]) + _head(s, w)


def _supervised(config: Mapping[str, Any], s: Sizes, w: Work) -> int:
    return 3 * linear(w.images, s.vision_width, config["classes"])


_OBJECTIVES: Mapping[str, Callable[[Mapping[str, Any], Sizes, Work], int]] = {
    "clip": _clip,
    "coca": _coca,
    "blip2": _blip2,
    "lcl": _lcl,
    "beit3": _beit3,
    "flamingo": _flamingo,
    "emu": _emu,
    "supervised": _supervised,
}
