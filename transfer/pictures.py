"""Pictures instead of cached features: an encoder runs on them at every step, trained in full or frozen.

Source: LCL paper 4.1 and A.2 (in full transfer all parameters train). Our choice: a crop depends on seed, epoch and
item alone, so that batches are a function of the step and every encoder sees the same crops.

Shape letters: b images of the batch, s image side.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from data.batch import Split
from data.seeds import generator
from objectives.functional import Losses
from transfer.base import FeatureBatch, TextModel, TransferConfig, TransferHead
from transfer.encoder import Encoder
from transfer.randaugment import rand_augment
from transfer.stream import Stream

HELD_BYTES = 256 * 2**20  # of decoded pictures kept by a process
AHEAD = 2  # steps whose pictures are decoded while one trains
CHECKED = 20  # steps in which every block must have had a gradient

Crop = UInt8[np.ndarray, "s s 3"]


@dataclass(frozen=True)
class PictureSplit:
    """A split and the encoder that reads it; what a head is made for where there are no features."""

    split: Split
    encoder: Encoder
    _held: dict[int, Image.Image] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Channels of a token."""
        return self.encoder.module.width

    def load(self, index: int) -> Image.Image:
        """The picture, from memory where there was room for it."""
        held = self._held.get(index)
        if held is None:
            held = self.split.load(index)
            if len(self._held) * held.width * held.height * 4 < HELD_BYTES:
                self._held[index] = held
        return held


@dataclass(frozen=True)
class PictureBatch:
    """Pictures as the encoder reads them, and what is learned from them."""

    images: Float[Tensor, "b 3 s s"]
    learned: FeatureBatch  # without tokens

    def to(self, device: str) -> "PictureBatch":
        """The same batch on another device."""
        return PictureBatch(self.images.to(device), self.learned.to(device))


class PictureStream(Stream[PictureBatch]):
    """Batches of augmented pictures. Order and captions are those of `FeatureStream`."""

    def __init__(
        self, data: PictureSplit, config: TransferConfig, seed: int, text: TextModel | None = None, workers: int = 1
    ) -> None:
        """workers: threads that decode and crop."""
        super().__init__(data.split, config, seed, text)
        self._data = data
        self._transform = data.encoder.transform.with_scale(config.crop)
        self._workers = workers

    def batches(self, start_step: int = 0) -> Iterator[PictureBatch]:
        """As of any stream. Pictures of the next steps are decoded and cropped while a step trains."""
        pool = ThreadPoolExecutor(self._workers)
        try:
            steps = iter(range(start_step, self.steps))
            begun = deque(self._begin(pool, step) for step in islice(steps, AHEAD))
            while begun:
                epoch, index, crops = begun.popleft()
                ready = [crop.result() for crop in crops]
                begun.extend(self._begin(pool, step) for step in islice(steps, 1))
                yield self._made(epoch, index, ready)
        finally:
            pool.shutdown(cancel_futures=True)

    def _begin(self, pool: ThreadPoolExecutor, step: int) -> tuple[int, np.ndarray, list[Future[Crop]]]:
        epoch, index = self._drawn(step)
        return epoch, index, [pool.submit(self._crop, epoch, int(place)) for place in index]

    def _batch(self, epoch: int, index: np.ndarray) -> PictureBatch:
        return self._made(epoch, index, [self._crop(epoch, int(place)) for place in index])

    def _made(self, epoch: int, index: np.ndarray, crops: Sequence[Crop]) -> PictureBatch:
        images = self._transform.normalise(torch.from_numpy(np.stack(crops)))
        return PictureBatch(images, self._learned(epoch, index))

    def _crop(self, epoch: int, place: int) -> Crop:
        rng = generator(self.seed, "transfer", "crop", epoch, self.split.item_ids[place])
        crop = self._transform.train(self._data.load(place), rng)
        crop = crop[:, ::-1] if rng.random() < self.config.flip else crop
        if not self.config.rand_augment:
            return crop
        image = Image.fromarray(np.ascontiguousarray(crop))
        return np.asarray(rand_augment(image, self.config.rand_augment, self._transform.mean, rng))


class OnPictures(TransferHead, ABC):
    """A head behind the encoder whose tokens it reads."""

    def __init__(self, head: TransferHead, encoder: Encoder) -> None:
        super().__init__()
        self.head = head
        self._patches = encoder.patches

    @abstractmethod
    def tokens(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b t d"]:
        """The encoder's output tokens, fp32."""

    def forward(self, batch: PictureBatch) -> Losses:  # type: ignore[override]  # pictures are what it is for
        """Loss terms of the head on the encoder's tokens."""
        losses: Losses = self.head(replace(batch.learned, tokens=self.tokens(batch.images), patches=self._patches))
        return losses

    def pretrained(self) -> tuple[nn.Module, ...]:
        """The head's parts that come with weights."""
        return self.head.pretrained()

    def after_step(self) -> None:
        """Clamp what the head has bounded."""
        self.head.after_step()


class BehindFrozen(OnPictures):
    """The encoder stays as it is: in evaluation mode, without gradient, and no part of this module's parameters."""

    def __init__(self, head: TransferHead, encoder: Encoder) -> None:
        super().__init__(head, encoder)
        self._frozen = (encoder.module,)  # a tuple hides it from parameters(), train() and checkpoints

    def tokens(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b t d"]:
        """Tokens without gradient."""
        with torch.no_grad():
            return self._frozen[0].tokens(images).float()


class Tuned(OnPictures):
    """The encoder trains with the head."""

    def __init__(self, head: TransferHead, encoder: Encoder) -> None:
        super().__init__(head, encoder)
        self.vision = encoder.module
        self._steps = 0
        self._without = set(range(len(encoder.module.blocks)))

    def tokens(self, images: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b t d"]:
        """Tokens with gradient."""
        return self.vision.tokens(images).float()

    def after_step(self) -> None:
        """Clamp the head's bounded parts. Raises RuntimeError where a block has had no gradient for 20 steps.

        An encoder whose forward pass is cut off somewhere would train in part, or not at all, without a word.
        """
        super().after_step()
        if self._steps < CHECKED:
            self._steps += 1
            self._without -= {number for number in self._without if gradient_norm(self.vision.blocks[number]) > 0}
            if self._steps == CHECKED and self._without:
                raise RuntimeError(
                    f"full transfer: blocks {sorted(self._without)} of {len(self.vision.blocks)} of the encoder had no "
                    f"gradient in {CHECKED} steps; its forward pass is cut off from the loss"
                )


def gradient_norm(module: nn.Module) -> float:
    """Norm of all gradients of a module, 0 where it has none."""
    grads = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(torch.stack([grad.norm() for grad in grads]).norm()) if grads else 0.0
