"""The shuffled-image baseline of captioning: what a head says about another image, scored as if it were this one's.

A score says nothing of an encoder where captions are so alike that any of them fits any image. Blind
(results/schema.py:Mode) is a head that never got an image: what the captions themselves give away. Shuffled is the head
that is scored: how much of its score belongs to the image it looked at. Generation sees one image at a time, so what a
head says of another image's features is what it said of that image: the baseline is a second scoring of the same
captions, costs no second decoding, needs no training and no run of its own, and changes no name and no metric.

Our choice: one cycle over the test images, drawn by their number alone, so that all rows of a table are shuffled alike.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from data.seeds import generator


def another(images: Sequence[str]) -> Mapping[str, str]:
    """Every image to another one of the split, each taken once. Raises ValueError where there is no other."""
    if len(images) < 2:
        raise ValueError(f"{len(images)} images cannot be shuffled")
    order = generator("shuffled images", len(images)).permutation(len(images))
    return {images[here]: images[there] for here, there in zip(order, np.roll(order, 1), strict=True)}
