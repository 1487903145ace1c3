"""Charts as geometry: where lines, bands, points and ticks lie in a picture of WIDTH x HEIGHT; a template draws it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 14, 44  # margins, for labels
TICKS = 5

Axis = Literal["linear", "log"]


@dataclass(frozen=True)
class Series:
    """One line of a chart: x, mean, and the smallest and largest of its seeds."""

    label: str
    points: tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class Drawn:
    """A line as SVG has it."""

    label: str
    number: int  # which of the page's colours and dashes
    line: str  # path data
    band: str
    dots: tuple[tuple[float, float, str], ...]  # place and what it stands for


@dataclass(frozen=True)
class Chart:
    """A chart with its title and axes."""

    title: str
    x_label: str
    y_label: str
    lines: tuple[Drawn, ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]


def draw(title: str, x_label: str, y_label: str, series: Sequence[Series], x_axis: Axis = "linear") -> Chart | None:
    """The chart of these series; None where they hold no point that can be drawn.

    A series without a point has no line, and the others keep their colours.
    """
    usable = [(n, s, [p for p in s.points if x_axis == "linear" or p[0] > 0]) for n, s in enumerate(series)]
    points = [point for _, _, some in usable for point in some]
    if not points:
        return None
    xs = [_scaled(x, x_axis) for x, *_ in points]
    across = _padded(min(xs), max(xs), LEFT, WIDTH - RIGHT)
    up = _padded(min(p[2] for p in points), max(p[3] for p in points), HEIGHT - BOTTOM, TOP)
    lines = []
    for number, each, some in usable:
        if not some:
            continue
        places = [(across.at(_scaled(x, x_axis)), up.at(mean), up.at(low), up.at(high)) for x, mean, low, high in some]
        band = [(x, high) for x, _, _, high in places] + [(x, low) for x, _, low, _ in reversed(places)]
        dots = tuple(
            (x, y, f"{each.label}: {_said(point[1])} at {_said(point[0])}")
            for (x, y, _, _), point in zip(places, some, strict=True)
        )
        lines.append(Drawn(each.label, number, _path([(x, y) for x, y, _, _ in places]), _path(band), dots))
    x_ticks = tuple((across.at(_scaled(tick, x_axis)), _said(tick)) for tick in _ticks(across, x_axis))
    y_ticks = tuple((up.at(tick), _said(tick)) for tick in _ticks(up, "linear"))
    return Chart(title, x_label, y_label, tuple(lines), x_ticks, y_ticks)


@dataclass(frozen=True)
class _Range:
    """Values from low to high, drawn from `first` to `last`."""

    low: float
    high: float
    first: float
    last: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.first + share * (self.last - self.first), 1)


def _padded(low: float, high: float, first: float, last: float) -> _Range:
    """Room on both sides, so that no point lies on an edge."""
    room = 0.04 * (high - low)
    return _Range(low - room, high + room, first, last)


def _said(value: float) -> str:
    """Three digits; thousands written out, millions and more by their power of ten."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def _scaled(x: float, axis: Axis) -> float:
    return math.log10(x) if axis == "log" else x


def _ticks(over: _Range, axis: Axis) -> list[float]:
    if axis == "log":
        wanted = [m * 10.0**e for e in range(math.floor(over.low), math.ceil(over.high) + 1) for m in (1, 2, 5)]
        found = [tick for tick in wanted if over.low - 1e-9 <= math.log10(tick) <= over.high + 1e-9]
        return found or [10**over.low]
    if over.high <= over.low:
        return [over.low]
    rough = (over.high - over.low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
    first = math.ceil(over.low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(over.high / step + 1e-9) + 1)]


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
