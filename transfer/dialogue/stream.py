"""Batches of conversations with their pictures: a function of (seed, epoch, step), hence resumable from any step.

Pictures are not augmented. As in LLaVA, stage 1 cuts them after the shorter side and stage 2 pads them to a square with
the encoder's mean colour; a conversation of text alone comes with a dummy picture that no token reads.

Shape letters: b conversations, s image side.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from data.dialogue.example import Example
from data.dialogue.order import batches
from transfer.dialogue.head import TalkBatch
from transfer.dialogue.recipe import Stage
from transfer.encoder import Transform
from transfer.pictures import HELD_BYTES, PictureBatch
from transfer.stream import pad


@dataclass(frozen=True)
class Pictures:
    """Pictures as an encoder reads them; those for which there is room are decoded once."""

    load: Callable[[str], Image.Image]  # by name, RGB
    transform: Transform
    pads: bool  # to a square, before they are resized
    _held: dict[str, UInt8[np.ndarray, "s s 3"]] = field(default_factory=dict)

    def read(self, names: Sequence[str | None], workers: int) -> Float[Tensor, "b 3 s s"]:
        """Pictures by name; black for none. workers: threads that decode."""
        with ThreadPoolExecutor(workers) as pool:
            crops = list(pool.map(self._crop, names))
        return self.transform.normalise(torch.from_numpy(np.stack(crops)))

    def _crop(self, name: str | None) -> UInt8[np.ndarray, "s s 3"]:
        if name is None:
            return self.transform.eval(Image.new("RGB", (1, 1)))
        held = self._held.get(name)
        if held is None:
            image = self.load(name)
            held = self.transform.eval(squared(image, self.transform.mean) if self.pads else image)
            if (len(self._held) + 1) * held.nbytes < HELD_BYTES:
                self._held[name] = held
        return held


def squared(image: Image.Image, colour: tuple[float, float, float]) -> Image.Image:
    """The picture in the middle of a square of its longer side, the rest in that colour (shares of full brightness)."""
    if image.width == image.height:
        return image
    side = max(image.size)
    square = Image.new("RGB", (side, side), (int(255 * colour[0]), int(255 * colour[1]), int(255 * colour[2])))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def rows(examples: Sequence[Example], fill: int) -> TalkBatch:
    """Conversations as rows, right-padded, still without their pictures. fill: the id of padding."""
    ids, mask = pad([list(example.ids) for example in examples], fill)
    kinds, _ = pad([[int(kind) for kind in example.kinds] for example in examples], 0)
    learned, _ = pad([[int(each) for each in example.learned] for example in examples], 0)
    return TalkBatch(
        tokens=torch.zeros(len(examples), 0, 1),
        patches=slice(0, 0),
        labels=torch.full((len(examples),), -1),
        ids=ids,
        mask=mask,
        index=torch.arange(len(examples)),
        kinds=kinds,
        learned=learned.bool(),
    )


class TalkStream:
    """Training batches of a stage, with pictures where there is an encoder to read them."""

    def __init__(
        self,
        examples: Sequence[Example],
        names: Sequence[str | None],
        stage: Stage,
        *,
        seed: int,
        fill: int,
        pictures: Pictures | None,
        workers: int,
    ) -> None:
        """names: the picture of each conversation, None for text alone. fill: the id of padding."""
        self._examples, self._names, self._stage, self._seed = examples, names, stage, seed
        self._fill, self._pictures, self._workers = fill, pictures, workers
        self._order: tuple[int, list[list[int]]] = (-1, [])
        self._per_epoch = len(self._epoch(0))
        self.steps = max(1, round(stage.epochs * self._per_epoch))

    @property
    def images(self) -> int:
        """Pictures that the whole run shows, each as often as it comes."""
        if self._pictures is None:
            return 0
        return sum(self._names[at] is not None for step in range(self.steps) for at in self._places(step))

    def state(self) -> None:
        """What `batches` needs to go on besides the step: nothing."""

    def batches(self, start: int = 0) -> Iterator[TalkBatch | PictureBatch]:
        """Batches from a step to the end of the run."""
        for step in range(start, self.steps):
            yield self._batch(self._places(step))

    def _places(self, step: int) -> list[int]:
        epoch, place = divmod(step, self._per_epoch)
        return self._epoch(epoch)[place]

    def _epoch(self, epoch: int) -> list[list[int]]:
        if self._order[0] != epoch:
            lengths, shown = [len(each) for each in self._examples], [name is not None for name in self._names]
            self._order = epoch, batches(lengths, shown, self._stage.batch, self._seed, epoch)
        return self._order[1]

    def _batch(self, places: Sequence[int]) -> TalkBatch | PictureBatch:
        talk = rows([self._examples[place] for place in places], self._fill)
        if self._pictures is None:
            return talk
        return PictureBatch(self._pictures.read([self._names[place] for place in places], self._workers), talk)
