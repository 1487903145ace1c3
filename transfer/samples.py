"""A few test images of every test set with what a head said of them, kept to be looked at: they decide nothing.

Which images is a function of their ids alone, so every row and seed of a table shows the same ones.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from data.seeds import stable_seed

SAMPLES = 12  # images of a test set
NEAREST = 3  # captions of an image that a retrieval shows
SIDE = 96  # longest side of a kept picture, pixels
SHARP = 64  # pictures up to this side are kept as PNG: a JPEG of so few pixels is neither smaller nor right


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What was said of one test image."""

    item_id: str
    meant: str  # its first reference
    said: tuple[str, ...]  # the caption written, or the captions nearest to the image, nearest first
    right: tuple[bool, ...]  # of retrieved captions: whether each is the image's; empty for a written one
    score: float | None  # of this image, × 100; None where it could not be computed
    metric: str  # which score: "tr1", "cider"


def sampled(item_ids: Sequence[str]) -> list[int]:
    """Places of the sampled items, in order; all of them where there are no more than SAMPLES."""
    return sorted(sorted(range(len(item_ids)), key=lambda place: stable_seed("sample", item_ids[place]))[:SAMPLES])


def data_uri(image: Image.Image) -> str:
    """A small copy of an RGB picture as a data URI."""
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    kind, options = ("png", {"optimize": True}) if max(small.size) <= SHARP else ("jpeg", {"quality": 80})
    buffer = io.BytesIO()
    small.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
