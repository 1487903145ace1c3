"""Batches of cached features: a pure function of (seed, epoch, step), hence resumable from any step.

Our choice: one transfer seed gives every encoder the same data order, so that differences are the encoders'; one
training caption per image and epoch. An epoch is ceil(n / batch) steps; its last batch is kept.
"""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from data.seeds import generator
from transfer.base import FeatureBatch, TextModel, Tokenizer, TransferConfig
from transfer.features import FeatureSplit

MAX_TEXT = 64  # tokens of a caption with BOS and EOS (our choice: the paper gives none)


class FeatureStream:
    """Training batches of a task. `batches(start)` from any step gives what an uninterrupted run would have seen."""

    def __init__(self, data: FeatureSplit, config: TransferConfig, seed: int, text: TextModel | None = None) -> None:
        """text: encode a caption for every image; raises ValueError where the split has none."""
        self.data, self.config, self.seed = data, config, seed
        self.steps = config.steps(len(data))
        self._captions = encode_captions(data, text.tokenizer) if text is not None else None
        self._pad = text.tokenizer.special.pad if text is not None else 0
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    @property
    def images(self) -> int:
        """Training images of the whole run, each as often as it is shown; the last batch of an epoch may be short."""
        per_epoch = -(-len(self.data) // self.config.batch)
        epochs, more = divmod(self.steps, per_epoch)
        return epochs * len(self.data) + min(more * self.config.batch, len(self.data))

    def batch(self, step: int) -> FeatureBatch:
        """The batch of that step. Raises IndexError outside [0, steps)."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is outside this run of {self.steps} steps")
        size = self.config.batch
        epoch, place = divmod(step, -(-len(self.data) // size))
        index = self._epoch(epoch)[place * size : (place + 1) * size]
        labels = self.data.split.labels
        ids, mask = self._text(epoch, index)
        return FeatureBatch(
            tokens=self.data.gather(index),
            patches=self.data.features.patches,
            labels=torch.tensor([labels[i] if labels is not None else -1 for i in index]),
            ids=ids,
            mask=mask,
            index=torch.from_numpy(index),
        )

    def state(self) -> None:
        """What `batches` needs to go on besides the step: nothing."""

    def batches(self, start_step: int = 0) -> Iterator[FeatureBatch]:
        """Batches from a step to the end of the run."""
        for step in range(start_step, self.steps):
            yield self.batch(step)

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = epoch, generator(self.seed, "transfer", "order", epoch).permutation(len(self.data))
        return self._order[1]

    def _text(self, epoch: int, index: np.ndarray) -> tuple[Int[Tensor, "b s"], Bool[Tensor, "b s"]]:
        if self._captions is None:
            return torch.zeros(len(index), 0, dtype=torch.int64), torch.zeros(len(index), 0, dtype=torch.bool)
        # One draw for every image of the split, so that an image's caption does not depend on its batch.
        draws = generator(self.seed, "transfer", "caption", epoch).random(len(self.data))
        options = [(self._captions[i], draws[i]) for i in index]
        return pad([captions[int(draw * len(captions))] for captions, draw in options], self._pad)


def encode_captions(data: FeatureSplit, tokenizer: Tokenizer) -> list[list[list[int]]]:
    """BOS, caption, EOS of every caption of every image, at most MAX_TEXT ids; EOS is kept where the text is cut.

    Raises ValueError where the split or one of its images has no caption.
    """
    special = tokenizer.special
    return [
        [[special.bos, *tokenizer.encode(text)[: MAX_TEXT - 2], special.eos] for text in texts]
        for texts in captions_of(data)
    ]


def captions_of(data: FeatureSplit) -> tuple[tuple[str, ...], ...]:
    """All captions of every image.

    Raises ValueError where the split or one of its images has none, TypeError where an image's captions are one string.
    """
    split = data.split
    if split.captions is None or len(split.captions) != len(split):
        held = 0 if split.captions is None else len(split.captions)
        raise ValueError(
            f"split {split.name!r} has {len(split)} images and captions of {held}; this task reads captions of each"
        )
    for item, texts in zip(split.item_ids, split.captions, strict=True):
        if isinstance(texts, str):
            raise TypeError(f"split {split.name!r}: captions of {item!r} are one string, {texts!r:.60}; give a tuple")
        if not texts:
            raise ValueError(f"split {split.name!r}: image {item!r} has no caption")
    return split.captions


def pad(rows: list[list[int]], fill: int) -> tuple[Int[Tensor, "b s"], Bool[Tensor, "b s"]]:
    """Right-padded ids and the mask of what is not padding."""
    lengths = torch.tensor([len(row) for row in rows])
    ids = torch.full((len(rows), int(lengths.max())), fill)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    return ids, torch.arange(ids.shape[1]) < lengths[:, None]
