"""A share of a training set that no head trains on and that is scored in the place of the test sets.

Whoever compares settings (a rate, a length, a decoding) does it there: what was selected on a test set is no
measurement on it. Which items are held out depends on the set alone, so all encoders, settings and seeds are compared
on the same.
"""

import hashlib

import numpy as np

from data.batch import Split
from data.seeds import generator


def parts(split: Split, share: float) -> tuple[Split, Split]:
    """What trains and what is held out, each in the order of the split.

    share: of the images, above 0 and below 1. Raises ValueError where one of the two would be empty.
    """
    count = round(share * len(split))
    if not 0 < count < len(split):
        raise ValueError(
            f"held_out={share:g} of the {len(split)} images of {split.name!r} leaves {len(split) - count} to train on "
            f"and {count} to score; choose a share nearer to one half"
        )
    order = generator("transfer", "held out", split.digest).permutation(len(split))
    return _part(split, np.sort(order[count:]), "without the held-out"), _part(
        split, np.sort(order[:count]), "held out"
    )


def _part(split: Split, places: np.ndarray, what: str) -> Split:
    digest = hashlib.sha256(split.digest.encode() + places.astype("<i8").tobytes()).hexdigest()
    return Split(
        name=f"{split.name}, {what}",
        digest=digest,
        item_ids=tuple(split.item_ids[place] for place in places),
        load=lambda index: split.load(int(places[index])),
        labels=None if split.labels is None else tuple(split.labels[place] for place in places),
        classes=split.classes,
        captions=None if split.captions is None else tuple(split.captions[place] for place in places),
        coverage=split.coverage,
    )
