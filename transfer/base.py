"""TransferTask: a head that learns on an encoder's features, and how its predictions are scored.

Source: LCL paper 4.1 and A.2 (which parts train), Table 8 (optimisation).
A head reads tokens and does not know where they come from: from features of unaugmented pictures that were computed
once (`pictures="cached"`, transfer/features.py), or from an encoder that runs on augmented ones at every step
(`"augmented"`, transfer/pictures.py). freeze.py decides what trains.

Shape letters: b images of the batch, t tokens of an image, d width, s tokens of a caption.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from backbones.lm import Decoder
from backbones.special import Special
from data.batch import Split
from objectives.functional import Losses
from transfer.features import FeatureSplit, Tokens
from transfer.samples import Sample


@runtime_checkable
class Tokenizer(Protocol):
    """What tasks need of a tokenizer: text to ordinary ids and back."""

    @property
    def special(self) -> Special:
        """The special ids."""
        ...

    def encode(self, text: str) -> list[int]:
        """Ordinary ids, without BOS or EOS."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ones are left out."""
        ...


@dataclass(frozen=True)
class TextModel:
    """The language side of a task, equal for every row of a table. Heads train a copy; this one never changes."""

    tokenizer: Tokenizer
    language: Decoder
    pretrained: bool  # its parameters are initialised, hence take `lr_pretrained` (Table 8: 1e-5 in retrieval)


@dataclass(frozen=True)
class FeatureBatch:
    """Features of a few images and what a head learns from them."""

    tokens: Float[Tensor, "b t d"]  # all output tokens of the encoder, class token first
    patches: slice  # the patch tokens among them
    labels: Int[Tensor, " b"]  # -1 where the split has none
    ids: Int[Tensor, "b s"]  # BOS, one caption of the image, EOS, right-padded; s = 0 for tasks without text
    mask: Bool[Tensor, "b s"]  # True where `ids` is not padding
    index: Int[Tensor, " b"]  # place of each image in its split

    def to(self, device: str) -> "FeatureBatch":
        """The same batch on another device."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "patches"}
        return replace(self, **moved)

    def select(self, which: Tokens) -> Float[Tensor, "b t d"]:
        """All tokens, or the patch tokens only."""
        return self.tokens if which == "all" else self.tokens[:, self.patches]


@dataclass(frozen=True, kw_only=True)
class VisionTuning:
    """How full transfer trains the encoder. Defaults: as everything else, without decay over its layers."""

    lr: float = 1e-4
    layer_decay: float = 1.0  # factor on the rate from each block to the one below it
    weight_decay: float = 1e-4
    drop_path: float = 0.0  # of the last block; grows linearly from 0

    def __post_init__(self) -> None:
        if not self.lr > 0 or not 0 < self.layer_decay <= 1 or not 0 <= self.drop_path < 1 or self.weight_decay < 0:
            raise ValueError(
                f"lr is positive, layer_decay in (0, 1], drop_path in [0, 1), weight_decay not negative; got {self}"
            )


def check_adam(given: Any) -> None:
    """Raises ValueError for what AdamW cannot work with, or what would turn its steps around. given: a recipe."""
    if given.grad_clip is not None:
        refuse_not_positive("grad_clip", given.grad_clip)
    refuse_not_positive("eps", given.eps)
    if given.weight_decay < 0:
        raise ValueError(f"weight_decay must not be negative, got {given.weight_decay}")
    if not all(0 <= beta < 1 for beta in given.betas):
        raise ValueError(f"betas are two numbers in [0, 1), got {given.betas[0]} and {given.betas[1]}")


def refuse_not_positive(name: str, value: float) -> None:
    """Raises ValueError for 0 and below."""
    if not value > 0:
        raise ValueError(f"{name} must be positive, got {value}")


PictureProtocol = Literal["cached", "augmented"]
# Settings that mean something only beside another; planning refuses them elsewhere.
AUGMENTED = {"only_with": ("pictures", "augmented")}
# Of an option younger than committed tables: written down only where it is used (results/canonical.py:plain).
LATER = {"later": True}
SCORING = {"scoring": True}  # of settings that no training depends on: a head that is there is scored again


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Optimisation of a head: AdamW, betas (0.9, 0.95), cosine to zero after a linear warm-up (Table 8)."""

    epochs: float | None  # passes over the training set; none where `steps` says how long training is
    # Optimiser steps whatever the size of the set, as Table 8 states them.
    steps: int | None = field(default=None, metadata={"instead_of": "epochs"} | LATER)
    batch: int
    lr: float
    lr_pretrained: float  # of parts that come with weights
    warmup: float  # share of the steps
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8  # of AdamW; the paper states none: PyTorch's
    grad_clip: float | None = None  # the paper states none; 1.0 for generation
    pictures: PictureProtocol = "cached"  # of training; test pictures are never augmented
    crop: tuple[float, float] = field(default=(0.9, 1.0), metadata=AUGMENTED)  # share of the area; as in pre-training
    flip: float = field(default=0.0, metadata=AUGMENTED)  # how often a picture is mirrored
    # Magnitude of RandAugment, 0 to 10 (transfer/randaugment.py); 0: none. MAE's fine-tuning has 9.
    rand_augment: float = field(default=0.0, metadata=AUGMENTED | LATER)
    # Share of the training images that is held out and scored in the place of the test sets (transfer/held_out.py).
    held_out: float = field(default=0.0, metadata=LATER)
    vision: VisionTuning = VisionTuning()  # of the encoder under full transfer; not used while it is frozen

    def __post_init__(self) -> None:
        if not 0 < self.crop[0] <= self.crop[1] <= 1 or not 0 <= self.flip <= 1:
            raise ValueError(f"crop is a range of shares and flip a share, got crop={self.crop} and flip={self.flip}")
        if not 0 <= self.held_out < 1:
            raise ValueError(f"held_out is a share of the training images in [0, 1), got {self.held_out}")
        if not 0 <= self.rand_augment <= 10:
            raise ValueError(f"rand_augment is a magnitude from 0 to 10, got {self.rand_augment}")
        for name in ("epochs", "steps", "batch"):
            value = getattr(self, name)
            if value is not None:
                refuse_not_positive(name, value)
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps in [0, 1), got {self.warmup}")
        refuse_not_positive("lr", self.lr)
        if self.lr_pretrained < 0:
            raise ValueError(f"lr_pretrained must be positive, or 0 to train nothing of it, got {self.lr_pretrained}")
        check_adam(self)

    def steps_over(self, images: int) -> int:
        """Steps of a run over that many training images; an epoch is ceil(images / batch), its last batch is kept.

        Raises ValueError where `epochs` and `steps` are both given, or neither.
        """
        if self.steps is not None and self.epochs is None:
            return self.steps
        if self.epochs is not None and self.steps is None:
            return max(1, round(self.epochs * math.ceil(images / self.batch)))
        raise ValueError(f"one of epochs and steps says how long training is, got {self.epochs} and {self.steps}")

    def warmup_steps(self, images: int) -> int:
        """Steps of the linear warm-up."""
        return round(self.warmup * self.steps_over(images))


class TrainingSet(Protocol):
    """What a head is made for: a `FeatureSplit`, or pictures whose tokens an encoder computes at every step."""

    @property
    def split(self) -> Split:
        """Items, labels and captions."""
        ...

    @property
    def width(self) -> int:
        """Channels of a token."""
        ...


class TransferHead(nn.Module, ABC):
    """What is trained on top of the encoder. `pretrained` lists its parts that come with weights."""

    @abstractmethod
    def forward(self, batch: FeatureBatch) -> Losses:
        """Loss terms of a batch."""

    def pretrained(self) -> tuple[nn.Module, ...]:
        """Sub-modules that train at `lr_pretrained`; everything else trains at `lr`."""
        return ()

    def after_step(self) -> None:
        """Called after every optimiser step; a head with bounded parameters clamps them here."""
        return None


@dataclass(frozen=True)
class Evaluation:
    """Scores of one head on one test split. Metrics are in the paper's unit (x100).

    Every metric a task declares is in `metrics`, or in `unavailable` with the reason (never as 0).
    """

    metrics: Mapping[str, float]
    items: Sequence[Mapping[str, Any]]  # item_id, group_id (the image), per-item scores or sufficient statistics
    extras: Mapping[str, float] = field(default_factory=dict)  # counts, diagnostics, and `chance_<metric>`
    unavailable: Mapping[str, str] = field(default_factory=dict)
    samples: Sequence[Sample] = ()  # of `transfer.samples.sampled` images, from tasks that read text


class TransferTask(ABC):
    """One column group of a table. Built as `Task(config)` or, where `reads_text`, `Task(config, text)`."""

    name: ClassVar[str]  # set by `register`: the file's name
    protocol: ClassVar[int]  # bump when equal predictions would be scored, or heads trained, differently
    metrics: ClassVar[tuple[str, ...]]  # the paper's CSV columns without the data set: coco_tr1 -> tr1
    reads_text: ClassVar[bool]
    generates: ClassVar[bool] = False  # whether scoring writes text, token by token
    in_full: ClassVar[Mapping[str, Any]]  # settings of Config that full transfer has otherwise, by dotted key
    Config: ClassVar[type[TransferConfig]]  # its defaults are the paper's Table 8; a scale changes them in recipe.py

    def __init__(self, config: TransferConfig, text: TextModel | None = None) -> None:
        """Raises ValueError where a task that reads text gets none, or the other way round."""
        if (text is not None) != self.reads_text:
            needs = "needs a TextModel (tokenizer and language model)" if self.reads_text else "reads no text"
            raise ValueError(f"transfer task {self.name!r} {needs}, got text={text!r:.60}")
        self.config = config
        self._text = text

    @property
    def text(self) -> TextModel:
        """The language side."""
        if self._text is None:
            raise ValueError(f"transfer task {self.name!r} reads no text")
        return self._text

    @abstractmethod
    def head(self, train: TrainingSet, seed: int) -> TransferHead:
        """A fresh head for tokens like these, on CPU in fp32; a pure function of (config, shapes, seed).

        `train` gives shapes, classes and, where a head normalises its input, statistics of the training features.
        """

    @abstractmethod
    def evaluate(self, head: nn.Module, test: FeatureSplit) -> Evaluation:
        """Scores on a test split. Raises ValueError where the split lacks what the task reads (labels, captions)."""
