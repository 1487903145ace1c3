"""Pictures with four things in them, a corner each, or with one: what is where, which colour and how many are known.

Every corner is that corner of a picture as toyworld draws it, nuisances included (patterns.py): an encoder of the
embedded corpus meets patterns at the size it knows, four at once. One thing alone is such a picture, whole. A thing is
a width and a kind ("fine rings"); its direction stays free. Some things are drawn more often than others, and some
often together, as in photographs: without that the three ways in which POPE chooses what is not there would be one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data.toyworld.patterns import COLOURS, CYCLES, PATTERNS, PLAIN, Scene, render

CORNERS = ("upper left", "upper right", "lower left", "lower right")
_KINDS = tuple(dict.fromkeys(pattern.kind for pattern in PATTERNS))
THINGS = tuple(f"{width} {kind}" for kind in _KINDS for width in CYCLES)
_OF = tuple(
    tuple(i for i, pattern in enumerate(PATTERNS) if f"{pattern.width} {pattern.kind}" == thing) for thing in THINGS
)  # patterns of a thing
_POPULARITY = 1 / np.arange(2, 2 + len(THINGS))  # the first is drawn six times as often as the last
_FAMILIES = 4  # things whose numbers are equal modulo this go together
_TOGETHER = 0.6  # share of the other corners that stay in the family of the first


@dataclass(frozen=True)
class Shown:
    """What a picture shows, corner by corner, or alone; no thing twice, colours as they come, one ground."""

    scenes: tuple[Scene, ...]
    things: tuple[str, ...]

    @property
    def colours(self) -> tuple[str, ...]:
        """The colour of the thing in each corner."""
        return tuple(tuple(COLOURS)[scene.foreground] for scene in self.scenes)


def sample(rng: np.random.Generator, things: int) -> Shown:
    """So many things, and a colour for each that is not the ground's."""
    chosen = [_weighted(rng, range(len(THINGS)))]
    while len(chosen) < things:
        free = [thing for thing in range(len(THINGS)) if thing not in chosen]
        family = [thing for thing in free if thing % _FAMILIES == chosen[0] % _FAMILIES]
        chosen.append(_weighted(rng, family if family and rng.random() < _TOGETHER else free))
    placed = [chosen[place] for place in rng.permutation(len(chosen))]
    ground = int(rng.integers(len(COLOURS)))
    scenes = tuple(
        Scene(
            pattern=int(rng.choice(_OF[thing])),
            foreground=int((ground + 1 + rng.integers(len(COLOURS) - 1)) % len(COLOURS)),
            background=ground,
        )
        for thing in placed
    )
    return Shown(scenes, tuple(THINGS[thing] for thing in placed))


def _weighted(rng: np.random.Generator, things: Sequence[int]) -> int:
    weights = _POPULARITY[list(things)]
    return int(rng.choice(list(things), p=weights / weights.sum()))


def draw(several: Sequence[Shown], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Pictures with as many things each, uint8 [n, size, size, 3]."""
    drawn = render([scene for shown in several for scene in shown.scenes], PLAIN, rng)
    corners = drawn.reshape(len(several), -1, *drawn.shape[1:])
    if corners.shape[1] == 1:
        return corners[:, 0]
    pictures, half = np.empty_like(corners[:, 0]), PLAIN.size // 2
    for place in range(len(CORNERS)):
        rows = slice(place // 2 * half, (place // 2 + 1) * half)
        columns = slice(place % 2 * half, (place % 2 + 1) * half)
        pictures[:, rows, columns] = corners[:, place, rows, columns]
    return pictures
