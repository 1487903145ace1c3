"""Pictures of the embedded corpus: one bold glyph in a colour on a background, and nuisances a tiny ViT must ignore.

The difficulty (an encoder trained with labels above 85 %, an untrained one below 50 % on glyph identity) was fixed with
those two encoders only, before any objective was compared.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

GLYPHS = tuple("ABCEFGHJKLMNPQRSTUVWXYZ2")
COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.12, 0.12),
    "green": (0.10, 0.62, 0.18),
    "blue": (0.12, 0.25, 0.85),
    "yellow": (0.93, 0.85, 0.12),
    "purple": (0.55, 0.15, 0.65),
    "cyan": (0.15, 0.78, 0.82),
    "white": (0.95, 0.95, 0.95),
    "black": (0.06, 0.06, 0.06),
}
_MASK_SIDE = 64  # glyphs are rasterised once at this size and warped from there
_CHUNK = 256  # rendering in large chunks was measured several times slower than in chunks of 256


@dataclass(frozen=True, kw_only=True)
class Style:
    """How pictures are drawn; ranges are half-widths around the neutral value unless named otherwise."""

    name: str
    fonts: tuple[str, ...]
    size: int = 32  # side in pixels
    rotation: float = 12.0  # degrees
    scale: tuple[float, float] = (0.76, 0.98)  # of the canvas
    aspect: float = 0.10
    shift: float = 0.06  # of the half-width
    colour_jitter: float = 0.08
    gradient: float = 0.12
    texture: float = 0.09  # s.d. of a 6x6 field, bilinearly enlarged
    rectangles: int = 3
    gain: tuple[float, float] = (0.80, 1.15)
    noise: float = 0.05
    stripes: float = 0.0  # amplitude of background stripes (second style only)


PLAIN = Style(name="plain", fonts=("DejaVuSans-Bold", "DejaVuSerif-Bold", "DejaVuSansMono-Bold"))
STRIPED = Style(name="striped", fonts=("DejaVuSans-BoldOblique",), stripes=0.16, rotation=16.0, gradient=0.20)


@dataclass(frozen=True)
class Scene:
    """What one picture shows: indices into GLYPHS and the COLOURS, foreground and background."""

    glyph: int
    foreground: int
    background: int


@cache
def _masks(fonts: tuple[str, ...]) -> torch.Tensor:
    """Coverage masks [font, glyph, 64, 64] in 0..1, every glyph cropped to its box and stretched to the square."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    masks = np.zeros((len(fonts), len(GLYPHS), _MASK_SIDE, _MASK_SIDE), np.float32)
    for i, name in enumerate(fonts):
        font = ImageFont.truetype(str(folder / f"{name}.ttf"), 96)
        for j, glyph in enumerate(GLYPHS):
            canvas = Image.new("L", (192, 192), 0)
            ImageDraw.Draw(canvas).text((40, 30), glyph, fill=255, font=font)
            box = canvas.getbbox()
            cropped = canvas.crop(box).resize((_MASK_SIDE, _MASK_SIDE), Image.Resampling.BICUBIC)
            masks[i, j] = np.asarray(cropped, np.float32) / 255
    return torch.from_numpy(masks)


def render(scenes: list[Scene], style: Style, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures of the scenes, uint8 [n, size, size, 3]; everything a scene does not fix comes from `rng`."""
    chunks = [_render(scenes[i : i + _CHUNK], style, rng) for i in range(0, len(scenes), _CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros((0, style.size, style.size, 3), np.uint8)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))


def _coverage(scenes: list[Scene], style: Style, rng: np.random.Generator) -> torch.Tensor:
    """Warped glyph masks [n, 1, s, s]: rotation, scale, aspect and shift of each picture."""
    n, s = len(scenes), style.size
    fonts = torch.from_numpy(rng.integers(len(style.fonts), size=n))
    masks = _masks(style.fonts)[fonts, torch.tensor([scene.glyph for scene in scenes])]
    angle = _uniform(rng, -style.rotation, style.rotation, n) * (np.pi / 180)
    scale = _uniform(rng, *style.scale, n)
    aspect = 1 + _uniform(rng, -style.aspect, style.aspect, n)
    shift = _uniform(rng, -style.shift, style.shift, n, 2)
    cos, sin = torch.cos(angle), torch.sin(angle)
    width, height = scale * aspect, scale / aspect
    theta = torch.stack(
        (
            torch.stack((cos / width, sin / width, shift[:, 0]), 1),
            torch.stack((-sin / height, cos / height, shift[:, 1]), 1),
        ),
        1,
    )
    grid = F.affine_grid(theta, [n, 1, s, s], align_corners=False)
    return F.grid_sample(masks[:, None], grid, align_corners=False)


def _gradient(rng: np.random.Generator, n: int, s: int, strength: float) -> torch.Tensor:
    """A linear ramp of random direction, [n, 1, s, s]."""
    line = torch.linspace(-1, 1, s)
    slope = _uniform(rng, -strength, strength, n, 2)
    return (slope[:, :1, None] * line[None, :, None] + slope[:, 1:, None] * line[None, None, :])[:, None]


def _render(scenes: list[Scene], style: Style, rng: np.random.Generator) -> NDArray[np.uint8]:
    n, s = len(scenes), style.size
    palette = torch.tensor(list(COLOURS.values()))
    cover = _coverage(scenes, style, rng)

    def paint(colours: list[int]) -> torch.Tensor:
        flat = palette[colours] + _uniform(rng, -style.colour_jitter, style.colour_jitter, n, 3)
        return flat[:, :, None, None] + _gradient(rng, n, s, style.gradient)

    background = paint([scene.background for scene in scenes])
    coarse = torch.from_numpy(rng.normal(0, style.texture, (n, 3, 6, 6)).astype(np.float32))
    background = background + F.interpolate(coarse, size=(s, s), mode="bilinear", align_corners=False)
    if style.stripes:
        phase, angle = _uniform(rng, 0, 2 * np.pi, n, 1, 1), _uniform(rng, 0, np.pi, n, 1, 1)
        line = torch.linspace(-1, 1, s)
        wave = torch.sin(12 * (torch.cos(angle) * line[None, :, None] + torch.sin(angle) * line[None, None, :]) + phase)
        background = background + style.stripes * wave[:, None]
    picture = background * (1 - cover) + paint([scene.foreground for scene in scenes]) * cover

    rows = torch.arange(s)[None]
    for _ in range(style.rectangles):
        corner = torch.from_numpy(rng.integers(0, s - 2, (n, 2)))
        side = torch.from_numpy(rng.integers(2, 6, (n, 2)))
        inside_y = (rows >= corner[:, :1]) & (rows < corner[:, :1] + side[:, :1])
        inside_x = (rows >= corner[:, 1:]) & (rows < corner[:, 1:] + side[:, 1:])
        inside = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
        picture = torch.where(inside, _uniform(rng, 0, 1, n, 3)[:, :, None, None], picture)

    picture = picture * _uniform(rng, *style.gain, n, 1, 1, 1)
    picture = picture + torch.from_numpy(rng.normal(0, style.noise, tuple(picture.shape)).astype(np.float32))
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
