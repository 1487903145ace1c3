"""Which conversations make a batch: of one modality, in a random order, the longest first within each.

Source: haotian-liu/LLaVA, llava/train/llava_trainer.py (`group_by_modality_length`). A batch of text alone and one with
pictures take different passes, so none holds both; sorted, a batch falls into parts of like length for the ranks or
passes that share it. LLaVA joins the two last, incomplete batches into one; here each stays one of its own, so that an
epoch of 624,610 conversations with and 40,688 without pictures has the 5198 steps of 128 of the paper's Table 8.
"""

from collections.abc import Sequence

import numpy as np

from data.seeds import generator


def batches(lengths: Sequence[int], pictured: Sequence[bool], batch: int, seed: int, epoch: int) -> list[list[int]]:
    """Places of conversations in every batch of an epoch: a function of (lengths, seed, epoch).

    Each conversation is in exactly one. Raises ValueError for a batch size below 1.
    """
    if batch < 1:
        raise ValueError(f"a batch holds at least 1 conversation, got {batch}")
    rng = generator(seed, "dialogue", "order", epoch)
    has = np.asarray(pictured, dtype=bool)
    made: list[list[int]] = []
    for places in (np.flatnonzero(has), np.flatnonzero(~has)):
        shuffled = rng.permutation(places)
        made += [
            sorted(shuffled[at : at + batch].tolist(), key=lambda place: -lengths[place])
            for at in range(0, len(shuffled), batch)
        ]
    return [made[at] for at in rng.permutation(len(made))]
