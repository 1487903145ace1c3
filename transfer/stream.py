"""Batches of a transfer task: a pure function of (seed, epoch, step), hence resumable from any step.

Our choice: one transfer seed gives every encoder the same data order, so that differences are the encoders'; one
training caption per image and epoch. An epoch is ceil(n / batch) steps; its last batch is kept. What grows with the
training set is done once an epoch, never for a batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from data.batch import Split
from data.seeds import generator
from transfer.base import FeatureBatch, TextModel, Tokenizer, TransferConfig
from transfer.features import FeatureSplit

MAX_TEXT = 64  # tokens of a caption with BOS and EOS (our choice: the paper gives none)
ENCODED = 2**18  # captions whose ids are kept: all of a small set, a hundred MB of a large one


B = TypeVar("B")


class Stream(ABC, Generic[B]):
    """Training batches of a task. `batches(start)` from any step gives what an uninterrupted run would have seen."""

    def __init__(self, split: Split, config: TransferConfig, seed: int, text: TextModel | None) -> None:
        """text: encode a caption for every image; raises ValueError where the split has none."""
        self.split, self.config, self.seed = split, config, seed
        self.steps = config.steps_over(len(split))
        self._captions = captions_of(split) if text is not None else None
        self._encode = lru_cache(ENCODED)(partial(encode_caption, text.tokenizer)) if text is not None else None
        self._pad = text.tokenizer.special.pad if text is not None else 0
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))
        self._draws: tuple[int, np.ndarray] = (-1, np.empty(0))

    @property
    def images(self) -> int:
        """Training images of the whole run, each as often as it is shown; the last batch of an epoch may be short."""
        per_epoch = -(-len(self.split) // self.config.batch)
        epochs, more = divmod(self.steps, per_epoch)
        return epochs * len(self.split) + min(more * self.config.batch, len(self.split))

    def batch(self, step: int) -> B:
        """The batch of that step. Raises IndexError outside [0, steps)."""
        return self._batch(*self._drawn(step))

    def state(self) -> None:
        """What `batches` needs to go on besides the step: nothing."""

    def batches(self, start_step: int = 0) -> Iterator[B]:
        """Batches from a step to the end of the run."""
        for step in range(start_step, self.steps):
            yield self.batch(step)

    def _drawn(self, step: int) -> tuple[int, np.ndarray]:
        """The epoch of a step, and the places of its items in the split."""
        if not 0 <= step < self.steps:
            raise IndexError(f"step {step} is outside this run of {self.steps} steps")
        size = self.config.batch
        epoch, place = divmod(step, -(-len(self.split) // size))
        return epoch, self._epoch(epoch)[place * size : (place + 1) * size]

    @abstractmethod
    def _batch(self, epoch: int, index: np.ndarray) -> B:
        """The items at those places of the split, in that epoch."""

    def _learned(self, epoch: int, index: np.ndarray) -> FeatureBatch:
        """What is learned from those images, still without their tokens."""
        labels = self.split.labels
        ids, mask = self._text(epoch, index)
        return FeatureBatch(
            tokens=torch.zeros(len(index), 0, 1),
            patches=slice(0, 0),
            labels=torch.tensor([labels[i] if labels is not None else -1 for i in index]),
            ids=ids,
            mask=mask,
            index=torch.from_numpy(index),
        )

    def _epoch(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = epoch, generator(self.seed, "transfer", "order", epoch).permutation(len(self.split))
        return self._order[1]

    def _text(self, epoch: int, index: np.ndarray) -> tuple[Int[Tensor, "b s"], Bool[Tensor, "b s"]]:
        if self._captions is None or self._encode is None:
            return torch.zeros(len(index), 0, dtype=torch.int64), torch.zeros(len(index), 0, dtype=torch.bool)
        # One draw for every image of the split, so that an image's caption does not depend on its batch.
        if self._draws[0] != epoch:
            self._draws = epoch, generator(self.seed, "transfer", "caption", epoch).random(len(self.split))
        options = [(self._captions[i], self._draws[1][i]) for i in index]
        return pad([self._encode(captions[int(draw * len(captions))]) for captions, draw in options], self._pad)


class FeatureStream(Stream[FeatureBatch]):
    """Batches of cached features."""

    def __init__(self, data: FeatureSplit, config: TransferConfig, seed: int, text: TextModel | None = None) -> None:
        super().__init__(data.split, config, seed, text)
        self.data = data

    def _batch(self, epoch: int, index: np.ndarray) -> FeatureBatch:
        learned = self._learned(epoch, index)
        return replace(learned, tokens=self.data.gather(index), patches=self.data.features.patches)


def encode_captions(split: Split, tokenizer: Tokenizer) -> list[list[list[int]]]:
    """Ids of every caption of every image. Raises ValueError where the split or one of its images has none."""
    return [[encode_caption(tokenizer, text) for text in texts] for texts in captions_of(split)]


def encode_caption(tokenizer: Tokenizer, text: str) -> list[int]:
    """BOS, caption, EOS: at most MAX_TEXT ids; EOS is kept where the text is cut."""
    special = tokenizer.special
    return [special.bos, *tokenizer.encode(text)[: MAX_TEXT - 2], special.eos]


def captions_of(split: Split) -> tuple[tuple[str, ...], ...]:
    """All captions of every image.

    Raises ValueError where the split or one of its images has none, TypeError where an image's captions are one string.
    """
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
