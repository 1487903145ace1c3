"""Image captioning: an MLP turns frozen patch tokens into a prefix of a language model; BLEU-4 and CIDEr.

Source: LCL paper 4.1, A.2 and Table 8. Our choice where they are silent: the sequence is BOS, image embeddings,
caption, EOS; the loss is on caption and EOS; the prompt is empty in training and test. The language model is the
`TextModel`, equal for all rows of a table; MLP and language model both train.

Shape letters: b images, p patches, v vision width, d language width, s tokens of a caption row.
"""

import copy
import logging
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from backbones import masks
from backbones.build import init_stream
from backbones.lm import LanguageModel
from backbones.special import Special
from data.batch import Rows, TokenType
from objectives.functional import TEXT_TARGETS, Losses, token_nll
from transfer.base import (
    SCORING,
    Evaluation,
    FeatureBatch,
    TrainingSet,
    TransferConfig,
    TransferHead,
    TransferTask,
    VisionTuning,
)
from transfer.decode import Decoding, generate
from transfer.features import FeatureSplit
from transfer.metrics.captions import clean, score
from transfer.metrics.java import JavaError
from transfer.metrics.shuffled import another
from transfer.registry import register
from transfer.stream import captions_of

logger = logging.getLogger(__name__)


class CaptionHead(TransferHead):
    """MLP (Linear, GELU, Linear: `mlp2x_gelu` in LLaVA) and a copy of the language model."""

    def __init__(self, width: int, language: LanguageModel, language_pretrained: bool, special: Special) -> None:
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(width, language.width), nn.GELU(), nn.Linear(language.width, language.width)
        )
        self.language = copy.deepcopy(language)  # the caller's model starts every head, of every row
        self.special = special
        self._pretrained = (self.language,) if language_pretrained else ()

    def pretrained(self) -> tuple[nn.Module, ...]:
        """The language model, where it came with weights."""
        return self._pretrained

    def prefix(self, patches: Float[Tensor, "b p v"]) -> Float[Tensor, "b q d"]:
        """Embeddings of BOS and the image: q = 1 + p."""
        bos = torch.full((len(patches), 1), self.special.bos, device=patches.device)
        image = self.projector(patches)
        return torch.cat([self.language.embed(bos).to(image.dtype), image], dim=1)

    def forward(self, batch: FeatureBatch) -> Losses:
        """Next-token loss over caption and EOS."""
        prefix = self.prefix(batch.select("patch"))
        rows = self._rows(batch, prefix.shape[1] - 1)
        x = torch.cat([prefix, self.language.embed(batch.ids[:, 1:]).to(prefix.dtype)], dim=1)
        hidden = self.language(x, masks.causal(rows.attn_mask), rows.position_ids)
        loss = token_nll(hidden, rows, self.language.logits, TEXT_TARGETS)
        return Losses({"generate": loss.term()}, {"generate": 1.0}, {"text_nll": loss.text_nll()})

    def _rows(self, batch: FeatureBatch, slots: int) -> Rows:
        """BOS, image slots, caption, EOS, padding: what stands at each position of the sequence."""
        ids, mask = batch.ids[:, 1:], batch.mask[:, 1:]
        b, device = len(ids), ids.device

        def column(value: int, width: int) -> Int[Tensor, "b w"]:
            return torch.full((b, width), value, device=device)

        last = mask.sum(dim=1, keepdim=True) - 1
        caption = torch.full_like(ids, TokenType.TEXT).masked_fill(~mask, TokenType.PAD)
        caption = caption.scatter(1, last, int(TokenType.EOS))
        types = torch.cat([column(TokenType.BOS, 1), column(TokenType.IMG, slots), caption], dim=1)
        valid = types != TokenType.PAD
        return Rows(
            input_ids=torch.cat([column(self.special.bos, 1), column(self.special.img, slots), ids], dim=1),
            attn_mask=valid,
            token_type=types,
            position_ids=torch.arange(types.shape[1], device=device).expand(b, -1),
            doc_id=torch.where(valid, 0, -1),
            img_row=torch.arange(b, device=device),
            img_boi=torch.zeros(b, dtype=torch.int64, device=device),
            img_has_ctx=torch.zeros(b, dtype=torch.bool, device=device),
        )


@register("caption")
class Caption(TransferTask):
    """BLEU-4 and CIDEr of generated captions against all references of a split."""

    protocol = 2
    metrics = ("b4", "cider")
    reads_text = True
    generates = True
    in_full = {"pictures": "augmented"}

    @dataclass(frozen=True, kw_only=True)
    class Config(TransferConfig):
        """Table 8: 20k steps of 512 (one pass over 10.24M), all parts at 1e-4; and how captions are generated."""

        epochs: float | None = 1.0
        batch: int = 512
        lr: float = 1e-4
        lr_pretrained: float = 1e-4
        warmup: float = 0.05
        grad_clip: float | None = 1.0
        decoding: Decoding = field(default_factory=Decoding, metadata=SCORING)
        # Scored together: decides memory, not results, so a run's name leaves it out (results/canonical.py:split).
        images_at_once: int = field(default=256, metadata={"hashed": False} | SCORING)
        vision: VisionTuning = VisionTuning(lr=1e-4, drop_path=0.2)  # A.2, which does not say in which setting

    config: Config

    def head(self, train: TrainingSet, seed: int) -> CaptionHead:
        """MLP from the seed, language model a copy of the TextModel's."""
        text = self.text
        with init_stream(seed, "transfer", "caption", "init"):
            return CaptionHead(train.width, text.language, text.pretrained, text.tokenizer.special)

    def evaluate(self, head: nn.Module, test: FeatureSplit) -> Evaluation:
        """BLEU-4 and CIDEr x100; per image its prediction, CIDEr x100 and the counts from which BLEU is recomputed.

        Beside them, where there are two images, the same of the shuffled-image baseline (transfer/metrics/shuffled.py).
        Where Java fails both metrics are unavailable with the reason, and the predictions are still there.
        """
        if not isinstance(head, CaptionHead):
            raise TypeError(f"caption evaluates a CaptionHead, got {type(head).__name__}")
        references = dict(zip(test.split.item_ids, captions_of(test.split), strict=True))
        predictions = dict(zip(test.split.item_ids, self.predict(head, test), strict=True))
        said = list(predictions.values())
        extras = {
            "n_images": float(len(said)),
            "n_captions": float(sum(len(texts) for texts in references.values())),
            "empty": float(sum(not text for text in said)),
            "different": float(len(set(said))),  # 1: the head says the same about every image
            "mean_words": sum(len(text.split()) for text in said) / len(said),
            **{f"decode_{name}": float(value) for name, value in asdict(self.config.decoding).items()},
        }
        base: dict[str, dict[str, Any]] = {
            item: {"item_id": item, "group_id": item, "prediction": text} for item, text in predictions.items()
        }
        others = [{item: predictions[of] for item, of in another(test.split.item_ids).items()}] if len(said) > 1 else []
        try:
            scores, *shuffled = score(references, predictions, *others)
        except JavaError as error:
            logger.warning("captions of %s are not scored: %s", test.split.name, error)
            return Evaluation({}, list(base.values()), extras, dict.fromkeys(self.metrics, str(error)))
        for item, record in base.items():
            counts = scores.bleu_of[item]
            record |= {"cider": 100 * scores.cider_of[item], **{f"bleu_{k}": v for k, v in asdict(counts).items()}}
        for found in shuffled:
            extras |= {"shuffled_b4": 100 * found.bleu[3], "shuffled_cider": 100 * found.cider}
            for item, record in base.items():
                record["shuffled_cider"] = 100 * found.cider_of[item]
        extras |= {f"b{n}": 100 * value for n, value in enumerate(scores.bleu[:3], start=1)}
        return Evaluation({"b4": 100 * scores.bleu[3], "cider": 100 * scores.cider}, list(base.values()), extras)

    @torch.no_grad()
    def predict(self, head: CaptionHead, test: FeatureSplit) -> list[str]:
        """A cleaned caption of every image, in the order of the split."""
        tokenizer = self.text.tokenizer
        special = tokenizer.special
        never = {special.pad, special.bos, special.boi, special.eoi, special.img, special.mask}
        device = next(head.parameters()).device
        training = head.training
        head.eval()
        result: list[str] = []
        for _, tokens in test.chunks(self.config.images_at_once):
            prefix = head.prefix(tokens[:, test.features.patches].to(device))
            generated = generate(head.language, prefix, special.eos, never, self.config.decoding)
            result += [clean(tokenizer.decode(ids)) for ids in generated]
        head.train(training)
        return result
