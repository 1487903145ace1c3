"""The counts of a survey as one picture: bars for what became of documents, histograms of what is used."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from data.audit.survey import Survey
from data.document import Cause

WIDTH, ROW, LEFT, MARGIN = 900, 20, 230, 16
HISTOGRAM = 130  # pixels of height
BINS = 40
INK, PALE, GOOD, WARN = "#222222", "#dddddd", "#3b7dd8", "#d8743b"


def draw(found: Survey, title: str) -> Image.Image:
    """The picture of a survey, RGB."""
    bars = [("used", found.used, GOOD), ("not chosen", found.causes[Cause.NOT_CHOSEN.value], PALE)]
    bars += [(name, count, WARN) for name, count in found.causes.most_common() if name != Cause.NOT_CHOSEN.value]
    panels = [("images of a document", found.images), ("text tokens of a document", found.tokens)]
    if found.windows is None:
        panels.append(("tokens of a row", found.rows))
    else:
        panels += [("images of a window", found.windows.images), ("tokens of a window", found.windows.tokens)]
    height = 3 * MARGIN + ROW * (len(bars) + 2) + len(panels) * (HISTOGRAM + 3 * ROW)
    picture = Image.new("RGB", (WIDTH, height), "white")
    pen = ImageDraw.Draw(picture)
    pen.fontmode = "L"
    font = ImageFont.load_default(13)
    pen.text((MARGIN, MARGIN), title, INK, ImageFont.load_default(15))
    top = MARGIN + 2 * ROW
    longest = max((count for _, count, _ in bars), default=1) or 1
    for name, count, colour in bars:
        pen.text((MARGIN, top), f"{name}  {count:,}", INK, font)
        pen.rectangle((LEFT, top + 3, LEFT + (WIDTH - LEFT - MARGIN) * count / longest, top + ROW - 5), colour)
        top += ROW
    for name, values in panels:
        top += ROW
        _histogram(pen, font, top, name, values)
        top += HISTOGRAM + 2 * ROW
    return picture


def _histogram(
    pen: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    top: int,
    name: str,
    values: Sequence[int],
) -> None:
    if not values:
        pen.text((MARGIN, top), f"{name}: none", INK, font)
        return
    low, high = min(values), max(values)
    bins = min(BINS, high - low + 1)
    counts, _ = np.histogram(values, bins, (low - 0.5, high + 0.5))
    pen.text(
        (MARGIN, top), f"{name}: median {np.median(values):g}, mean {np.mean(values):.1f}, {low} to {high}", INK, font
    )
    wide = (WIDTH - 2 * MARGIN) / bins
    base = top + ROW + HISTOGRAM
    for number, count in enumerate(counts):
        left = MARGIN + number * wide
        pen.rectangle((left, base - (HISTOGRAM - ROW) * count / counts.max(), left + max(1.0, wide - 1), base), GOOD)
    pen.line((MARGIN, base, WIDTH - MARGIN, base), INK)
