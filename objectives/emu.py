"""Emu (Sun et al. 2023): predict the next element, a word or a visual embedding.  Gen. + Reg. in Table 1.

    L = L_txt + L_reg
    L_txt = 1/n_tok sum over {TEXT, EOS} of CE
    L_reg = 1/(M K d) sum over images m and slots k of || R(state before e_mk) - stop_gradient(e_mk) ||^2

e_mk: the k-th of K embeddings that a causal former makes of image m, as they enter the language model. baaivision/Emu
builds these targets (detached inputs, one step ahead) but computes no regression loss, so its form is the paper's. The
encoder defines its own targets here, and constant embeddings are a global minimum of L_reg: that is the phenomenon
under study, not something to repair.

Reads: documents, INTERLEAVED with K slots.  LM passes: 1.

Shape letters: m images, b rows, t tokens, k slots of an image, n regressed elements, d width.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from backbones.causal_former import CausalFormer
from backbones.lm import LanguageModel
from backbones.masks import causal
from backbones.special import Special
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout, Rows, TokenType
from objectives.base import Objective
from objectives.functional import TEXT_TARGETS, Losses, Term, regression_loss, token_nll
from objectives.registry import register

Reduction = Literal["mean", "sum"]
Regressed = Literal["slots", "slots_and_eoi"]
TargetGradient = Literal["stopped", "flows"]


@register("emu")
class Emu(Objective):
    """Next-token prediction on text and next-embedding regression on images."""

    reads = "documents"
    layouts: ClassVar[tuple[Layout, ...]] = (Layout.INTERLEAVED,)
    lm_passes = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """Sizes of the causal former and form of the regression."""

        queries: int = 32  # K: visual embeddings of an image, and image slots of its span
        depth: int = 12
        width: int = 768
        heads: int = 12
        ffn: int = 3072
        regression_weight: float = 1.0
        reduction: Reduction = "mean"  # over the d values of an embedding
        regressed: Regressed = "slots"  # Emu1 also pairs the last slot with <EoI>'s embedding
        target_gradient: TargetGradient = "stopped"  # flows: the regression also moves what it is to predict

        def __post_init__(self) -> None:
            super().__post_init__()
            self.at_least(1, "queries", "depth", "width", "heads", "ffn")
            self.at_least(0, "regression_weight")
            if self.width % self.heads:
                raise ValueError(f"heads must divide width, got heads {self.heads} and width {self.width}")

    config: Config

    @classmethod
    def slots(cls, config: Config, patches: int) -> int:  # type: ignore[override]  # its own options, as in __init__
        """K, whatever the number of patches."""
        return config.queries

    def __init__(self, config: Config, vision: VisionEncoder, language: LanguageModel, special: Special) -> None:
        super().__init__(config, vision, language, special)
        self.causal_former = CausalFormer(
            vision.width, language.width, config.queries, config.depth, config.width, config.heads, config.ffn
        )
        self.regression_head = nn.Linear(language.width, language.width, bias=False)

    @property
    def blocks(self) -> list[nn.Module]:
        """With those of the causal former."""
        return [*super().blocks, *self.causal_former.layers]

    def forward(self, batch: Batch) -> Losses:
        """Generation and regression losses; watch: text_nll, variance of the embeddings, collapse of the encoder.

        embedding_variance is what predicting the mean embedding would cost: the regression learns something where its
        loss is well below it, and nothing is left to learn where it is 0.
        """
        rows = batch[Layout.INTERLEAVED]
        patches = self.encode(batch.images)
        embeddings = self.causal_former(patches)
        inputs = self.embed(rows, embeddings)
        hidden = self.language(inputs, causal(rows.attn_mask), rows.position_ids)
        text = token_nll(hidden, rows, self.language.logits, TEXT_TARGETS)
        terms = {"generate": text.term(), "regress": self.regress(hidden, inputs, rows)}
        weights = {"generate": 1.0, "regress": self.config.regression_weight}
        watch = {"text_nll": text.text_nll(), **self.diagnose(patches, rows, embeddings)}
        if len(embeddings):
            values = embeddings.detach().float().flatten(0, 1)
            watch["embedding_variance"] = values.var(dim=0, correction=0).mean()
        return Losses(terms=terms, weights=weights, watch=watch)

    def regress(self, hidden: Float[Tensor, "b t d"], inputs: Float[Tensor, "b t d"], rows: Rows) -> Term:
        """The state before each regressed element predicts what was put there; by default no gradient reaches that."""
        elements = self.elements(rows)
        before = elements.roll(-1, dims=1)  # no row begins with an image slot: nothing wraps around
        wanted = inputs[elements].detach() if self.config.target_gradient == "stopped" else inputs[elements]
        term = regression_loss(self.regression_head(hidden[before]), wanted)
        return Term(term.sum * hidden.shape[-1], term.count) if self.config.reduction == "sum" else term

    def elements(self, rows: Rows) -> Bool[Tensor, "b t"]:
        """Positions whose input embedding is a regression target."""
        slots = rows.token_type == int(TokenType.IMG)
        if self.config.regressed == "slots":
            return slots
        return slots | (rows.token_type == int(TokenType.EOI))
