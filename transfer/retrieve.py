"""Image-text retrieval: attention pool and linear layer on frozen features, against a causal text encoder.

Source: LCL paper 4.1, A.2 ("the feature of the final token", "an additional linear layer") and Table 8. The
pre-training text encoder is not used (A.2): which language model reads the captions is the `TextModel`, equal for all
rows of a table. Loss: symmetric contrast over the batch (Eq. 6), learned temperature.

Shape letters: b images of the batch, t tokens, d width, s tokens of a caption, e width of the language model.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from backbones import masks
from backbones.build import init_stream
from backbones.heads import Temperature
from backbones.lm import LanguageModel
from objectives.functional import Losses, info_nce
from transfer.base import (
    Evaluation,
    FeatureBatch,
    TrainingSet,
    TransferConfig,
    TransferHead,
    TransferTask,
    VisionTuning,
)
from transfer.features import FeatureSplit, Tokens
from transfer.metrics.retrieval import chance, recall_at_k
from transfer.pooling import AttentionPool
from transfer.registry import register
from transfer.stream import encode_captions, pad

CUTOFFS = (1, 5, 10)
CAPTIONS_AT_ONCE = 256


class RetrieveHead(TransferHead):
    """Both towers on top of the encoder's features. Embeddings are not normalised; scores are cosines."""

    def __init__(self, width: int, language: LanguageModel, language_pretrained: bool, which: Tokens) -> None:
        super().__init__()
        self.pool = AttentionPool(width)
        self.proj = nn.Linear(width, language.width)
        self.temperature = Temperature()
        self.language = copy.deepcopy(language)  # the caller's model starts every head, of every row
        self.which = which
        self._pretrained = (self.language,) if language_pretrained else ()

    def pretrained(self) -> tuple[nn.Module, ...]:
        """The text encoder, where it came with weights."""
        return self._pretrained

    def after_step(self) -> None:
        """Keep the temperature in its range."""
        self.temperature.clamp_()

    def embed_images(self, tokens: Float[Tensor, "b t d"]) -> Float[Tensor, "b e"]:
        """Image embeddings, fp32."""
        pooled = self.pool(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            return self.proj(pooled)

    def embed_texts(self, ids: Int[Tensor, "b s"], mask: Bool[Tensor, "b s"]) -> Float[Tensor, "b e"]:
        """The language model's state at each row's last real token (EOS), whatever padding follows."""
        positions = torch.arange(ids.shape[1], device=ids.device).expand_as(ids)
        states = self.language(self.language.embed(ids), masks.causal(mask), positions)
        return states[torch.arange(len(ids), device=ids.device), mask.sum(dim=1) - 1].float()

    def forward(self, batch: FeatureBatch) -> Losses:
        """The contrast of each image with the captions of the batch."""
        images = self.embed_images(batch.select(self.which))
        texts = self.embed_texts(batch.ids, batch.mask)
        term, watch = info_nce(images, texts, self.temperature.scale())
        return Losses({"contrast": term}, {"contrast": 1.0}, watch)


@register("retrieve")
class Retrieve(TransferTask):
    """TR@K (image to text) and IR@K (text to image) over all images and all captions of a test split."""

    protocol = 2
    metrics = tuple(f"{direction}{k}" for direction in ("tr", "ir") for k in CUTOFFS)
    reads_text = True
    in_full = {"pictures": "augmented"}

    @dataclass(frozen=True, kw_only=True)
    class Config(TransferConfig):
        """Table 8: 5k steps of 16k pairs (5.6 passes over 14.7M), new parts at 1e-3; which tokens the pool reads."""

        epochs: float | None = 5000 / 898
        batch: int = 16_384
        lr: float = 1e-3
        lr_pretrained: float = 1e-5
        warmup: float = 0.1
        probe_tokens: Tokens = "all"
        vision: VisionTuning = VisionTuning(lr=1e-5)  # "parameters with initialization"

    config: Config

    def head(self, train: TrainingSet, seed: int) -> RetrieveHead:
        """Pool and linear layer from the seed, text encoder a copy of the TextModel's."""
        with init_stream(seed, "transfer", "retrieve", "init"):
            return RetrieveHead(train.width, self.text.language, self.text.pretrained, self.config.probe_tokens)

    @torch.no_grad()
    def evaluate(self, head: nn.Module, test: FeatureSplit) -> Evaluation:
        """Recalls in % with expected credit over ties; one item per image query and one per caption query."""
        if not isinstance(head, RetrieveHead):
            raise TypeError(f"retrieve evaluates a RetrieveHead, got {type(head).__name__}")
        captions = encode_captions(test.split, self.text.tokenizer)
        owner = torch.tensor([i for i, rows in enumerate(captions) for _ in rows])
        training = head.training
        head.eval()
        images = torch.cat(list(_image_embeddings(head, test)))
        texts = torch.cat(list(_text_embeddings(head, captions, self.text.tokenizer.special.pad)))
        head.train(training)
        every = torch.arange(len(test))
        hits = {
            "tr": 100 * recall_at_k(images, texts, every, owner, CUTOFFS),
            "ir": 100 * recall_at_k(texts, images, owner, every, CUTOFFS),
        }
        columns = {f"{way}{k}": score[:, j] for way, score in hits.items() for j, k in enumerate(CUTOFFS)}
        scale = float(head.temperature.scale())
        extras = {"n_images": float(len(test)), "n_captions": float(len(owner)), "scale": scale}
        for k in CUTOFFS:
            extras[f"chance_tr{k}"] = 100 * sum(chance(len(rows), len(owner), k) for rows in captions) / len(test)
            extras[f"chance_ir{k}"] = 100 * chance(1, len(test), k)
        return Evaluation(
            metrics={name: float(score.mean()) for name, score in columns.items()},
            items=list(_items(test.split.item_ids, owner, columns)),
            extras=extras,
        )


def _image_embeddings(head: RetrieveHead, test: FeatureSplit) -> Iterator[Tensor]:
    device = next(head.parameters()).device
    keep = slice(None) if head.which == "all" else test.features.patches
    for _, tokens in test.chunks():
        yield head.embed_images(tokens[:, keep].to(device)).cpu()


def _text_embeddings(head: RetrieveHead, captions: list[list[list[int]]], fill: int) -> Iterator[Tensor]:
    device = next(head.parameters()).device
    flat = [row for rows in captions for row in rows]
    for start in range(0, len(flat), CAPTIONS_AT_ONCE):
        ids, mask = pad(flat[start : start + CAPTIONS_AT_ONCE], fill)
        yield head.embed_texts(ids.to(device), mask.to(device)).cpu()


def _items(ids: tuple[str, ...], owner: Tensor, columns: dict[str, Tensor]) -> Iterator[dict[str, str | float]]:
    """Image queries, then caption queries; the cluster of a query is its image."""
    for i, item in enumerate(ids):
        scores = {f"tr{k}": float(columns[f"tr{k}"][i]) for k in CUTOFFS}
        yield {"item_id": f"{item}/image", "group_id": item, **scores}
    for j, image in enumerate(owner.tolist()):
        scores = {f"ir{k}": float(columns[f"ir{k}"][j]) for k in CUTOFFS}
        yield {"item_id": f"{ids[image]}/text/{j}", "group_id": ids[image], **scores}
