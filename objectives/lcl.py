"""LCL (the paper's own, 3.2-3.3): contrast of each image with its preceding context, and generation of the text.

    L = lambda L_con + L_gen
    L_con = contrast of v_i with t_i over images that have context                       (Eq. 6, half sum: see info_nce)
    L_gen = -1/n_tok sum over k in T of ln p(x_k | x_<k)                                 (Eq. 7)

v_i: the connector's pooled vector of image i; t_i: the language model's state at its `<BoI>`, which sees everything
before the image and not the image. T: TEXT, EOS, and `<BoI>` where the image has context (OpenGVLab/LCL predicts it;
at the start of a document it would be a coin flip). lambda = 0.1 (paper 4.1, Table 6b); Table 6a switches a term off by
its weight.

Reads: documents as INTERLEAVED; pairs in random order (LAION-Random, implied by the corpus).  LM passes: 1.

Shape letters: m images, b rows, t tokens, p patches, d language width.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from backbones.heads import Connector, ContextReadout, Temperature
from backbones.lm import LanguageModel
from backbones.masks import causal
from backbones.special import Special
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout, Rows, TokenType
from objectives.base import Objective
from objectives.diagnostics import same_document_share
from objectives.functional import TEXT_TARGETS, Losses, info_nce, token_nll
from objectives.registry import register

RowLayout = Literal["interleaved", "random_order", "text_first", "image_first"]
SkipRule = Literal["content", "index0", "never"]
Head = Literal["tied", "own"]
GenOnBoi = Literal["with_context", "always", "never"]


@register("lcl")
class LCL(Objective):
    """An image is predictable from what stands before it, and helps to predict what follows."""

    reads = "documents"
    layouts: ClassVar[tuple[Layout, ...]] = (Layout.INTERLEAVED,)
    lm_passes = 1
    on_pairs: ClassVar[Mapping[str, Any]] = {"layout": "random_order"}  # LAION-Random (paper 4.1)

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """Weights of the terms (LCL paper 4.1, Table 6), and our choice of the readings the paper leaves open."""

        contrast_weight: float = 0.1  # lambda; Table 6b sweeps it. Eq. 6 without the half sum is twice this
        generate_weight: float = 1.0
        layout: RowLayout = "interleaved"
        skip_rule: SkipRule = "content"  # which leading images L_con leaves out
        gen_on_boi: GenOnBoi = "with_context"  # when `<BoI>` is a generation target
        mask_same_document: bool = False  # images of one document are no negatives of each other
        head: Head = "tied"  # own: a LayerNorm and weights of its own over the language model's states, as released

        def __post_init__(self) -> None:
            super().__post_init__()
            self.some_weight()

    config: Config

    @classmethod
    def layouts_for(cls, config: Config) -> tuple[Layout, ...]:  # type: ignore[override]  # its own options
        """The one layout of these options."""
        return (Layout(config.layout),)

    def __init__(self, config: Config, vision: VisionEncoder, language: LanguageModel, special: Special) -> None:
        super().__init__(config, vision, language, special)
        self.connector = Connector(vision.width, language.width)
        self.readout = ContextReadout(language.width)
        self.temperature = Temperature()
        self.own_head = None if config.head == "tied" else own_head(language)

    def forward(self, batch: Batch) -> Losses:
        """The terms `contrast` and `generate`."""
        rows = batch[Layout(self.config.layout)]
        patches = self.encode(batch.images)
        visual = self.connector(patches)
        hidden = self.language(self.embed(rows, visual.tokens), causal(rows.attn_mask), rows.position_ids)
        context = self.readout(self.at_boi(hidden, rows))
        chosen = self.contrasted(rows)
        document = batch.image_document(rows)[chosen]
        groups = document if self.config.mask_same_document else None
        contrast, watch = info_nce(visual.pooled[chosen], context[chosen], self.temperature.scale(), groups)
        head = self.language.logits if self.own_head is None else self.own_head
        generate = token_nll(hidden, rows, head, TEXT_TARGETS | {TokenType.BOI}, self.generated(rows))
        watch |= {"text_nll": generate.text_nll()} | self.diagnose(patches, rows, visual.tokens)
        if len(chosen):
            watch["skipped_images"] = 1 - chosen.float().mean()
        if len(document) > 1:
            watch["same_document"] = same_document_share(document)
        return Losses(
            {"contrast": contrast, "generate": generate.term()},
            {"contrast": self.config.contrast_weight, "generate": self.config.generate_weight},
            watch,
        )

    def contrasted(self, rows: Rows) -> Bool[Tensor, " m"]:
        """Images that enter L_con. Without context the state at `<BoI>` is one constant: it would name no image."""
        match self.config.skip_rule:
            case "content":
                return rows.img_has_ctx
            case "index0":  # the released code's test; it fires where a window of OBELICS begins with an image
                return rows.img_boi > 0
            case "never":
                return torch.ones_like(rows.img_has_ctx)

    def generated(self, rows: Rows) -> Bool[Tensor, "b t"]:
        """False on each `<BoI>` that is not a generation target, True elsewhere."""
        match self.config.gen_on_boi:
            case "with_context":
                predicted = rows.img_has_ctx
            case "always":
                predicted = torch.ones_like(rows.img_has_ctx)
            case "never":
                predicted = torch.zeros_like(rows.img_has_ctx)
        mask = torch.ones_like(rows.attn_mask)
        mask[rows.img_row, rows.img_boi] = predicted
        return mask

    def after_step(self) -> None:
        """Keep the logit scale in [1, 100]."""
        self.temperature.clamp_()


def own_head(language: LanguageModel) -> nn.Sequential:
    """LayerNorm and linear layer to the vocabulary, no bias (OpenGVLab/LCL `lcl_model.py`); weights start as OPT's."""
    linear = nn.Linear(language.width, language.vocab_size, bias=False)
    nn.init.normal_(linear.weight, std=language.size.init_std)
    return nn.Sequential(nn.LayerNorm(language.width), linear)
