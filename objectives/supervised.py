"""Supervised control: a linear classifier on mean-pooled patch tokens, trained with labels. Not a row of the paper.

    L = 1/n sum_i CE( W mean_p H_ip + b, label_i )

The upper control of the embedded scale: it says what the encoder could learn from these images in this budget, as the
random encoder says what it knows before any training. Images without a label (-1) carry no loss.

Reads: pairs, no layout (text is not used).  LM passes: 0.

Shape letters: m images, p patches, v vision width, c classes.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn import functional as F

from backbones.lm import LanguageModel
from backbones.precision import at_least_fp32
from backbones.special import Special
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout
from objectives.base import Objective
from objectives.functional import Losses, Term
from objectives.registry import register


@register("supervised")
class Supervised(Objective):
    """Classification of every labelled image."""

    reads = "pairs"
    layouts: ClassVar[tuple[Layout, ...]] = ()
    needs_labels = True
    lm_passes = 0

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """How many classes the corpus labels."""

        classes: int = 1000  # ImageNet-1k

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.classes < 2:
                raise ValueError(f"a classifier needs at least 2 classes, got classes={self.classes}")

    config: Config

    def __init__(self, config: Config, vision: VisionEncoder, language: LanguageModel, special: Special) -> None:
        super().__init__(config, vision, language, special)
        self.classifier = nn.Linear(vision.width, config.classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, batch: Batch) -> Losses:
        """The term `classify`. Raises ValueError where a label is not one of the classes."""
        largest = int(batch.labels.max()) if len(batch.labels) else -1
        if largest >= self.config.classes:
            raise ValueError(
                f"the corpus labels class {largest}, but the classifier has classes={self.config.classes}; "
                "set the objective's classes to the corpus's"
            )
        patches = self.encode(batch.images)
        features = patches.mean(dim=1)
        labelled = batch.labels >= 0
        labels = batch.labels[labelled]
        with torch.autocast(features.device.type, enabled=False):
            logits = self.classifier(at_least_fp32(features[labelled]))
            loss = F.cross_entropy(logits, labels, reduction="none")
        term = Term(loss.sum(), torch.tensor(float(len(labels)), device=loss.device))
        watch = self.diagnose(patches)
        if len(labels):
            watch["train_acc"] = (logits.argmax(dim=1) == labels).float().mean()
        return Losses({"classify": term}, {"classify": 1.0}, watch)
