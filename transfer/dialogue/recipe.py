"""The two stages of multimodal dialogue: LCL paper Table 8, where it is silent LLaVA-1.5."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from transfer.base import VisionTuning, check_adam, refuse_not_positive

PROTOCOL = 2  # bump when equal specs would train other weights or score otherwise
PICTURES = "pictures"  # folder of a benchmark's pictures, beside its files
StageName = Literal["align", "tune"]
Layer = Literal[-2, -1]  # whose patch tokens the MLP reads: the encoder's last block, after the norm, or the one before
Algorithm = Literal["adamw", "muon"]  # of weights of linear layers; everything else trains with AdamW


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What both stages have. Pictures are never augmented; the last batch of an epoch is kept."""

    epochs: float  # passes over the conversations
    batch: int  # conversations a step
    lr: float  # of the MLP
    warmup: float  # share of the steps
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8  # of AdamW; the paper states none: PyTorch's
    grad_clip: float | None = 1.0
    matrices: Algorithm = "adamw"
    longest: int = 2048  # tokens of a conversation, a picture's included
    select_layer: Layer = -1  # LLaVA has -2; equal in both stages, and in every row of a table

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "lr", "longest"):
            refuse_not_positive(name, getattr(self, name))
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of the steps in [0, 1), got {self.warmup}")
        check_adam(self)


@dataclass(frozen=True, kw_only=True)
class Align(Stage):
    """Stage 1: the MLP alone."""

    template: Literal["plain"] = "plain"

    @property
    def lr_pretrained(self) -> float:
        """Nothing that trains comes with weights."""
        return self.lr


@dataclass(frozen=True, kw_only=True)
class Tune(Stage):
    """Stage 2: the language model as well and, under full transfer, the encoder."""

    template: Literal["vicuna_v1", "turns"] = "vicuna_v1"
    lr_pretrained: float  # of the language model
    answer_tokens: int = 128  # of an answer to a benchmark, its end included
    vision: VisionTuning = VisionTuning(lr=2e-5)  # Table 8 states no rate of the encoder: that of everything else

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("lr_pretrained", "answer_tokens"):
            refuse_not_positive(name, getattr(self, name))


STAGES: Mapping[StageName, Align | Tune] = {
    "align": Align(epochs=1.0, batch=512, lr=1e-3, warmup=30 / 1091),
    "tune": Tune(epochs=1.0, batch=128, lr=2e-5, lr_pretrained=2e-5, warmup=156 / 5198),
}
