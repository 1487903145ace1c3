"""Pictures of the embedded corpus: a pattern in a colour on a ground of another, and nuisances a tiny ViT must ignore.

Patterns and not outlines, because a tiny vision transformer learns what a patch shows at once and what only a whole
outline shows late. The difficulty (an encoder trained with labels above 90 %, an untrained one below 55 %) was fixed
with those two encoders only, before any objective was compared: docs/tiny.md.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

Kind = Literal["stripes", "checks", "dots", "lattices", "rings", "rays"]
Width = Literal["broad", "fine"]

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
CYCLES: dict[Width, float] = {"broad": 3.0, "fine": 6.0}  # along one side of the picture; rays: twice that many, around
# Degrees from the horizontal, counter-clockwise as seen: how the lines of a pattern run.
LINES = {"level": 0.0, "rising": 45.0, "upright": 90.0, "falling": 135.0}
GRIDS = {"straight": 0.0, "slanted": 45.0}
_DIRECTIONS: dict[Kind, dict[str, float]] = {
    "stripes": LINES, "checks": GRIDS, "dots": GRIDS, "lattices": GRIDS, "rings": {"": 0.0}, "rays": {"": 0.0},
}  # fmt: skip
_KINDS = tuple(_DIRECTIONS)
_CHUNK = 256  # rendering in large chunks was measured several times slower than in chunks of 256


@dataclass(frozen=True)
class Pattern:
    """What a class of the embedded corpus is: a kind, how wide it is, and how it runs (empty for rings and rays)."""

    kind: Kind
    width: Width
    direction: str

    @property
    def name(self) -> str:
        """Its words: "broad rising stripes", "fine rings"."""
        return " ".join(word for word in (self.width, self.direction, self.kind) if word)

    @property
    def degrees(self) -> float:
        """Its direction as an angle."""
        return _DIRECTIONS[self.kind][self.direction]


PATTERNS = tuple(
    Pattern(kind, width, direction)
    for kind, directions in _DIRECTIONS.items()
    for width in CYCLES
    for direction in directions
)


@dataclass(frozen=True, kw_only=True)
class Style:
    """How pictures are drawn; ranges are half-widths around the neutral value unless named otherwise."""

    name: str
    size: int = 32  # side in pixels
    rotation: float = 0.12  # radians
    frequency: float = 0.10  # share of the cycles
    edge: float = 5.0  # steepness of the line between pattern and ground
    wave: float = 0.0  # amplitude of a smooth warp, in half-widths of the picture
    colour_jitter: float = 0.08
    gradient: float = 0.12
    texture: float = 0.06  # s.d. of a 6x6 field, bilinearly enlarged
    rectangles: int = 6
    gain: tuple[float, float] = (0.80, 1.15)
    noise: float = 0.08


PLAIN = Style(name="plain")
WAVY = Style(name="wavy", wave=0.10, edge=12.0, gradient=0.20, rotation=0.16)


@dataclass(frozen=True)
class Scene:
    """What one picture shows: indices into PATTERNS and the COLOURS, foreground and background."""

    pattern: int
    foreground: int
    background: int


def render(scenes: list[Scene], style: Style, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures of the scenes, uint8 [n, size, size, 3]; everything a scene does not fix comes from `rng`."""
    chunks = [_render(scenes[i : i + _CHUNK], style, rng) for i in range(0, len(scenes), _CHUNK)]
    return np.concatenate(chunks) if chunks else np.zeros((0, style.size, style.size, 3), np.uint8)


def _uniform(rng: np.random.Generator, low: float, high: float, *shape: int) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(low, high, shape).astype(np.float32))


def _coverage(scenes: list[Scene], style: Style, rng: np.random.Generator) -> torch.Tensor:
    """How much of each pixel the pattern covers, [n, 1, s, s] in 0..1: smooth thresholds of sine fields."""
    n, s = len(scenes), style.size
    patterns = [PATTERNS[scene.pattern] for scene in scenes]
    line = torch.linspace(-1, 1, s)
    x, y = line[None, None, :].expand(n, s, s), -line[None, :, None].expand(n, s, s)
    bend, slow = _uniform(rng, 0, 2 * math.pi, 2, n, 1, 1), _uniform(rng, 1.5, 3.0, 2, n, 1, 1)
    x, y = x + style.wave * torch.sin(slow[0] * y + bend[0]), y + style.wave * torch.sin(slow[1] * x + bend[1])

    angle = torch.tensor([math.radians(pattern.degrees) for pattern in patterns])
    angle = (angle + _uniform(rng, -style.rotation, style.rotation, n))[:, None, None]
    along, across = x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()
    cycles = torch.tensor([CYCLES[pattern.width] for pattern in patterns])
    cycles = (cycles * (1 + _uniform(rng, -style.frequency, style.frequency, n)))[:, None, None]
    phase = _uniform(rng, 0, 2 * math.pi, 2, n, 1, 1)
    u, v = torch.sin(math.pi * cycles * across + phase[0]), torch.sin(math.pi * cycles * along + phase[1])
    centre = _uniform(rng, -0.3, 0.3, 2, n, 1, 1)
    right, up = x - centre[0], y - centre[1]
    spokes = torch.tensor([2 * CYCLES[pattern.width] for pattern in patterns])[:, None, None]
    # Less than half is always pattern: with equal shares nobody could say which colour lies on which.
    fields = {
        "stripes": u - 0.4,
        "checks": 2 * u * v - 0.4,
        "dots": u + v - 0.7,
        "lattices": 2 * (torch.maximum(u, v) - 0.7),
        "rings": torch.sin(math.pi * cycles * (right.square() + up.square()).sqrt() + phase[0]) - 0.4,
        "rays": torch.sin(spokes * torch.atan2(up, right) + phase[0]) - 0.4,
    }
    kind = torch.tensor([_KINDS.index(pattern.kind) for pattern in patterns])
    field = torch.stack([fields[name] for name in _KINDS])[kind, torch.arange(n)]
    return torch.sigmoid(style.edge * field)[:, None]


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
    picture = background * (1 - cover) + paint([scene.foreground for scene in scenes]) * cover
    coarse = torch.from_numpy(rng.normal(0, style.texture, (n, 3, 6, 6)).astype(np.float32))
    picture = picture + F.interpolate(coarse, size=(s, s), mode="bilinear", align_corners=False)

    rows = torch.arange(s)[None]
    for _ in range(style.rectangles):
        corner = torch.from_numpy(rng.integers(0, s - 3, (n, 2)))
        side = torch.from_numpy(rng.integers(3, 9, (n, 2)))
        inside_y = (rows >= corner[:, :1]) & (rows < corner[:, :1] + side[:, :1])
        inside_x = (rows >= corner[:, 1:]) & (rows < corner[:, 1:] + side[:, 1:])
        inside = (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
        picture = torch.where(inside, _uniform(rng, 0, 1, n, 3)[:, :, None, None], picture)

    picture = picture * _uniform(rng, *style.gain, n, 1, 1, 1)
    picture = picture + torch.from_numpy(rng.normal(0, style.noise, tuple(picture.shape)).astype(np.float32))
    return (picture.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
