"""TransferTask: a head that learns on an encoder's features, and how its predictions are scored.

Source: LCL paper 4.1 and A.2 (which parts train), Table 8 (optimisation).
The encoder runs once (transfer/features.py); heads train on the cached features, so every task here is labelled
`frozen-cached` and its training pictures are not augmented. A task that trains the encoder as well would give the same
three methods and read pictures instead of features: freeze.py decides what trains, nothing else depends on it.

Shape letters: b images of the batch, t tokens of an image, d width, s tokens of a caption.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from backbones.lm import LanguageModel
from backbones.special import Special
from objectives.functional import Losses
from transfer.features import FeatureSplit, Tokens


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
    language: LanguageModel
    pretrained: bool  # its parameters are initialised, hence take `lr_pretrained` (Table 8: 1e-5 in retrieval)


@dataclass(frozen=True)
class FeatureBatch:
    """Cached features of a few images and what a head learns from them."""

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
class TransferConfig:
    """Optimisation of a head: AdamW, betas (0.9, 0.95), cosine to zero after a linear warm-up (Table 8)."""

    epochs: float
    batch: int
    lr: float
    lr_pretrained: float  # of parts that come with weights
    warmup: float  # share of the steps
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8  # of AdamW; the paper states none: PyTorch's
    grad_clip: float | None = None  # the paper states none; 1.0 for generation

    def __post_init__(self) -> None:
        if self.batch < 1 or not self.epochs > 0:
            raise ValueError(f"epochs and batch must be positive, got epochs={self.epochs} and batch={self.batch}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps in [0, 1), got {self.warmup}")

    def steps(self, images: int) -> int:
        """Steps of a run over that many training images; an epoch is ceil(images / batch), its last batch is kept."""
        return max(1, round(self.epochs * math.ceil(images / self.batch)))

    def warmup_steps(self, images: int) -> int:
        """Steps of the linear warm-up."""
        return round(self.warmup * self.steps(images))


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


class TransferTask(ABC):
    """One column group of a table. Built as `Task(config)` or, where `reads_text`, `Task(config, text)`."""

    name: ClassVar[str]  # set by `register`: the file's name
    protocol: ClassVar[int]  # bump when equal predictions would be scored, or heads trained, differently
    metrics: ClassVar[tuple[str, ...]]  # the paper's CSV columns without the data set: coco_tr1 -> tr1
    reads_text: ClassVar[bool]
    generates: ClassVar[bool] = False  # whether scoring writes text, token by token
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
    def head(self, train: FeatureSplit, seed: int) -> TransferHead:
        """A fresh head for features like these, on CPU in fp32; a pure function of (config, shapes, seed).

        `train` gives shapes, classes and, where a head normalises its input, statistics of the training features.
        """

    @abstractmethod
    def evaluate(self, head: nn.Module, test: FeatureSplit) -> Evaluation:
        """Scores on a test split. Raises ValueError where the split lacks what the task reads (labels, captions)."""
