"""The two stages of multimodal dialogue: LCL paper Table 8, where it is silent LLaVA-1.5."""

from dataclasses import dataclass

from data.dialogue.template import Template
from transfer.base import TransferConfig, VisionTuning

PICTURES = "pictures"  # folder of a benchmark's pictures, beside its files


@dataclass(frozen=True, kw_only=True)
class Stage(TransferConfig):
    """One pass over the conversations; an epoch's last batches are kept."""

    template: Template
    longest: int = 2048  # tokens of a conversation, a picture's included
    answer_tokens: int = 128  # of an answer to a benchmark, its end included
    grad_clip: float | None = 1.0


ALIGN = Stage(template="plain", epochs=1.0, batch=512, lr=1e-3, lr_pretrained=1e-3, warmup=30 / 1091)  # the MLP alone
TUNE = Stage(
    template="vicuna_v1",
    epochs=1.0,
    batch=128,
    lr=2e-5,
    lr_pretrained=2e-5,
    warmup=156 / 5198,
    vision=VisionTuning(lr=2e-5),  # the paper states no rate of the encoder: that of everything else
)
