"""A figure as an SVG file of its own, to stand in a document: title, legend, panels two beside one another.

Nothing measures text here, as no font is known: letters are taken to be as wide as they are at most.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from results.html.charts import HEIGHT, WIDTH, Drawn
from results.html.figures import Figure
from results.html.templates import template

COLUMNS = 2
GAP = 24  # between panels, and around the whole
LINE = 26  # of text
LETTER = 9.5  # width of a letter at the size of the legend, at most
KEY = 56  # a legend's stroke with the room around it
TITLE = 30  # height of a panel's title


T = TypeVar("T")


@dataclass(frozen=True)
class Placed(Generic[T]):
    """Something with the place of its upper left corner."""

    x: float
    y: float
    item: T


def svg(figure: Figure) -> str:
    """The file's text. Colours follow the reader's light or dark mode."""
    width = COLUMNS * WIDTH + (COLUMNS + 1) * GAP
    about = textwrap.wrap(figure.about, int((width - 2 * GAP) / LETTER))
    keys = _keys(figure.legend, GAP + LINE * (2 + len(about)), width)
    top = keys[-1].y + LINE
    panels = [
        Placed(GAP + n % COLUMNS * (WIDTH + GAP), top + n // COLUMNS * (TITLE + HEIGHT + GAP), panel)
        for n, panel in enumerate(figure.panels)
    ]
    return template("figure.svg").render(
        title=figure.title,
        about=[Placed(GAP, GAP + LINE * (n + 2), line) for n, line in enumerate(about)],
        keys=keys,
        panels=panels,
        gap=GAP,
        line=LINE,
        title_height=TITLE,
        total_width=width,
        total_height=panels[-1].y + TITLE + HEIGHT + GAP,
    )


def _keys(lines: Sequence[Drawn], top: float, width: float) -> list[Placed[Drawn]]:
    """The legend, as many to a line as there is room for."""
    found = []
    x, y = float(GAP), top + LINE
    for line in lines:
        wide = KEY + LETTER * len(line.label)
        if x > GAP and x + wide > width - GAP:
            x, y = float(GAP), y + LINE
        found.append(Placed(x, y, line))
        x += wide
    return found
