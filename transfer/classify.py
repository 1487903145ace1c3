"""Image classification: attention probe, LayerNorm, linear layer on frozen features; accuracy@1.

Source: LCL paper 4.1, A.2 and Table 8. Loss: cross-entropy without label smoothing, as in CAE.

A probe without normalisation cannot read near-constant features, so "at chance" may be a matter of scale: with
`standardised`, a second probe learns beside the first on features standardised per token position and channel by the
training set's mean and standard deviation. The two share no parameter, and without gradient clipping the sum of their
losses trains each as if alone.

Shape letters: b images, t tokens, d width, c classes.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.build import init_stream
from data.batch import Split
from objectives.functional import Losses, Term
from transfer.base import (
    AUGMENTED,
    Evaluation,
    FeatureBatch,
    TrainingSet,
    TransferConfig,
    TransferHead,
    TransferTask,
    VisionTuning,
)
from transfer.features import FeatureSplit, Tokens
from transfer.pooling import AttentionPool
from transfer.registry import register

ProbeName = Literal["acc1", "acc1_standardised"]

# Added to standard deviations: what varies by less than this is rounding, not information.
_SMALLEST_STD = 1e-5


class Probe(nn.Module):
    """Attention pool, LayerNorm, linear classifier. 3 137 512 parameters at width 768 and 1000 classes."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.pool = AttentionPool(width)
        self.norm = nn.LayerNorm(width)
        self.classifier = nn.Linear(width, classes)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b c"]:
        """Logits, fp32."""
        pooled = self.pool(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            return self.classifier(self.norm(pooled))


class Standardise(nn.Module):
    """(x - mean) / std per token position and channel. Constants, not parameters."""

    mean: Tensor
    std: Tensor

    def __init__(self, train: FeatureSplit, which: Tokens) -> None:
        """Statistics of a split's features, accumulated in fp64."""
        super().__init__()
        count, total, square = 0, torch.zeros(1), torch.zeros(1)
        # Deviations from one item: no cancellation where features are nearly constant.
        reference = train.gather(np.zeros(1, dtype=np.int64)).double()
        for _, tokens in train.chunks():
            deviation = tokens.double() - reference
            count, total = count + len(tokens), total + deviation.sum(dim=0)
            square = square + deviation.square().sum(dim=0)
        mean = total / count
        variance = (square / count - mean.square()).clamp(min=0)
        keep = slice(None) if which == "all" else train.features.patches
        self.register_buffer("mean", (reference[0] + mean).float()[keep])
        self.register_buffer("std", variance.sqrt().float()[keep] + _SMALLEST_STD)

    def forward(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """Standardised tokens."""
        return (tokens - self.mean) / self.std


class ClassifyHead(TransferHead):
    """The probe and, if configured, its twin on standardised features."""

    def __init__(self, probes: dict[str, nn.Module], which: Tokens, label_smoothing: float) -> None:
        """probes: metric name -> module from tokens to logits."""
        super().__init__()
        self.probes = nn.ModuleDict(probes)
        self.which, self.label_smoothing = which, label_smoothing

    def logits(self, tokens: Float[Tensor, "b t d"]) -> dict[str, Float[Tensor, "b c"]]:
        """Logits by metric name."""
        return {name: probe(tokens) for name, probe in self.probes.items()}

    def forward(self, batch: FeatureBatch) -> Losses:
        """Cross-entropy of every probe, each with weight 1. Raises ValueError for images without a label."""
        if len(batch.labels) and int(batch.labels.min()) < 0:
            raise ValueError("a training image has no label; classification needs a split with labels")
        terms, watch = {}, {}
        for name, logits in self.logits(batch.select(self.which)).items():
            nll = F.cross_entropy(logits.float(), batch.labels, reduction="none", label_smoothing=self.label_smoothing)
            terms[name] = Term(nll.sum(), torch.tensor(float(len(nll)), device=nll.device))
            watch[f"{name}_train"] = (logits.argmax(dim=1) == batch.labels).float().mean().detach()
        return Losses(terms, dict.fromkeys(terms, 1.0), watch)


@register("classify")
class Classify(TransferTask):
    """Attention probe; accuracy@1 = share of images whose largest logit is their label."""

    protocol = 2
    metrics = get_args(ProbeName)
    reads_text = False
    in_full = {"pictures": "augmented", "label_smoothing": 0.1}

    @dataclass(frozen=True, kw_only=True)
    class Config(TransferConfig):
        """Table 8: 90 epochs of 8192 at 1e-4, 1500 of 14k steps warm-up; which tokens are read by which probes."""

        epochs: float | None = 90.0
        batch: int = 8192
        lr: float = 1e-4
        lr_pretrained: float = 1e-4
        warmup: float = 1500 / 14_130
        probe_tokens: Tokens = "all"  # as CAE (class token too); "patch" once beside the default: our choice
        probes: tuple[ProbeName, ...] = ("acc1", "acc1_standardised")
        label_smoothing: float = 0.0  # as CAE's probe; full: as MAE
        crop: tuple[float, float] = field(default=(0.08, 1.0), metadata=AUGMENTED)
        flip: float = field(default=0.5, metadata=AUGMENTED)
        # One column of Table 8 cannot hold both settings. Full follows "the fine-tune setting in [43]", which builds on
        # MAE: its decay over layers, weight decay and drop-path, at Table 8's rate.
        vision: VisionTuning = VisionTuning(lr=1e-4, layer_decay=0.75, weight_decay=0.05, drop_path=0.2)

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 <= self.label_smoothing < 1:
                raise ValueError(f"label_smoothing is a share in [0, 1), got {self.label_smoothing}")
            if "acc1" not in self.probes or not set(self.probes) <= set(get_args(ProbeName)):
                raise ValueError(f"probes are {get_args(ProbeName)}, acc1 always among them; got {self.probes}")

    config: Config

    def head(self, train: TrainingSet, seed: int) -> ClassifyHead:
        """Probes for the classes of the training split; on standardised features where there are any in a cache.

        Raises ValueError where the split has no labels.
        """
        classes, which = _classes(train.split), self.config.probe_tokens
        probes: dict[str, nn.Module] = {}
        for name in self.config.probes:
            with init_stream(seed, "transfer", "classify", "init"):  # equal initial weights for both probes
                probe = Probe(train.width, classes)
            if name == "acc1":
                probes[name] = probe
            elif isinstance(train, FeatureSplit):
                probes[name] = nn.Sequential(Standardise(train, which), probe)
        return ClassifyHead(probes, which, self.config.label_smoothing)

    @torch.no_grad()
    def evaluate(self, head: nn.Module, test: FeatureSplit) -> Evaluation:
        """Accuracies in %, and per image 100 for a hit and 0 for a miss."""
        if not isinstance(head, ClassifyHead):
            raise TypeError(f"classify evaluates a ClassifyHead, got {type(head).__name__}")
        classes = _classes(test.split)
        labels = torch.tensor(test.split.labels)
        device = next(head.parameters()).device
        keep = slice(None) if head.which == "all" else test.features.patches
        hits: dict[str, list[Tensor]] = {name: [] for name in head.probes}
        training = head.training
        head.eval()
        for index, tokens in test.chunks():
            for name, logits in head.logits(tokens[:, keep].to(device)).items():
                if not logits.isfinite().all():
                    raise ValueError(f"{test.split.name!r}: {name} gives logits that are not finite")
                hits[name].append(logits.argmax(dim=1).cpu() == labels[index])
        head.train(training)
        scores = {name: 100 * torch.cat(parts).double() for name, parts in hits.items()}
        items = [
            {"item_id": item, "group_id": item, **{name: float(score[i]) for name, score in scores.items()}}
            for i, item in enumerate(test.split.item_ids)
        ]
        why = "not in the configuration" if self.config.pictures == "cached" else "read from cached features only"
        missing = {name: f"this probe is {why}" for name in self.metrics if name not in scores}
        return Evaluation(
            metrics={name: float(score.mean()) for name, score in scores.items()},
            items=items,
            extras={"n_images": float(len(test)), **{f"chance_{name}": 100 / classes for name in scores}},
            unavailable=missing,
        )


def _classes(split: Split) -> int:
    if split.labels is None or len(split.labels) != len(split):
        raise ValueError(f"split {split.name!r} of {len(split)} images has no label for each; classification needs it")
    if min(split.labels) < 0:
        raise ValueError(f"split {split.name!r} has an image without label (negative class)")
    return len(split.classes) if split.classes is not None else max(split.labels) + 1
