"""Flamingo (Alayrac et al. 2022): text likelihood given the images that stand before it.  Gen. in Table 1.

    L = -1/n_tok sum over q in {TEXT, EOS} of ln p(w_q | w_<q, x_<=q)                  (Flamingo Eq. 1)
    y = y + tanh(g1) XAttn(LN(y), latents of image tt(q))                              before every layer of the
    y = y + tanh(g2) FF(y)                                                             language model, g = 0 at first

tt(q): the latest image that q's document opened at or before q; without one the cross-attention is exactly 0. Images
get no loss of their own. The architecture is Flamingo's (Perceiver resampler, gated cross-attention), sized as in
mlfoundations/open_flamingo; unlike there nothing is frozen, because every row of the table trains from scratch.

Reads: documents, MEDIA_TOKEN.  LM passes: 1.

Shape letters: m images, b rows, t tokens, p patches, l latents, i images of a row, k keys, v vision width, d width.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from backbones.lm import LanguageModel
from backbones.masks import causal
from backbones.perceiver import GatedCrossAttention, PerceiverResampler
from backbones.special import Special
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout, Rows, TokenType
from objectives.base import Objective
from objectives.functional import TEXT_TARGETS, Losses, token_nll
from objectives.registry import register

TextTargets = Literal["all", "after_first_image"]


@register("flamingo")
class Flamingo(Objective):
    """Next-token prediction on text that reads images through gated cross-attention."""

    reads = "documents"
    layouts: ClassVar[tuple[Layout, ...]] = (Layout.MEDIA_TOKEN,)
    lm_passes = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """Sizes of the modules that read images, and which text is predicted."""

        latents: int = 64  # of an image
        resampler_depth: int = 6
        heads: int = 8  # of 64, in the resampler and in the cross-attention
        cross_attention_every: int = 1  # layers of the language model for one that reads images; OpenFlamingo-9B: 4
        text_targets: TextTargets = "all"  # open_flamingo: after_first_image

        def __post_init__(self) -> None:
            super().__post_init__()
            self.at_least(1, "latents", "resampler_depth", "heads", "cross_attention_every")

    config: Config

    def __init__(self, config: Config, vision: VisionEncoder, language: LanguageModel, special: Special) -> None:
        super().__init__(config, vision, language, special)
        self.resampler = PerceiverResampler(vision.width, config.latents, config.resampler_depth, config.heads)
        self.readers = range(config.cross_attention_every - 1, language.depth, config.cross_attention_every)
        if not self.readers:
            raise ValueError(
                f"cross_attention_every={config.cross_attention_every} is more than the {language.depth} layers of the "
                f"language model, so none would read images; choose at most {language.depth}"
            )
        self.cross_attention = nn.ModuleList(
            GatedCrossAttention(language.width, vision.width, config.heads) for _ in self.readers
        )

    @property
    def blocks(self) -> list[nn.Module]:
        """With what reads images, but for the gates, which `gates` shows at any time."""
        readers = [part for layer in self.cross_attention for part in (layer.attention, layer.feed_forward)]
        return [*super().blocks, *self.resampler.layers, *readers]

    def forward(self, batch: Batch) -> Losses:
        """Generation loss over the text; watch: text_nll, the gates of each layer, collapse of the encoder."""
        rows = batch[Layout.MEDIA_TOKEN]
        patches = self.encode(batch.images)
        hidden = self.read(rows, self.resampler(patches))
        extra = media_index(rows) > 0 if self.config.text_targets == "after_first_image" else None
        text = token_nll(hidden, rows, self.language.logits, TEXT_TARGETS, extra)
        watch = {"text_nll": text.text_nll(), **self.gates(), **self.diagnose(patches)}
        return Losses(terms={"generate": text.term()}, weights={"generate": 1.0}, watch=watch)

    def read(self, rows: Rows, latents: Float[Tensor, "m l v"]) -> Float[Tensor, "b t d"]:
        """States of the language model over the rows, with each image's latents open to the text after it."""
        context, allowed = media_context(rows, latents)
        reader = dict(zip(self.readers, self.cross_attention, strict=True))
        return self.language(
            self.embed(rows),
            causal(rows.attn_mask),
            rows.position_ids,
            before_layer=lambda i, y: reader[i](y, context, allowed) if i in reader else y,
        )

    def gates(self) -> dict[str, Tensor]:
        """tanh of both gates of each layer that has them: how much of images and of the feed-forward gets through."""
        return {
            f"{name}_{i:02d}": gate.detach().float().tanh().squeeze()
            for i, layer in zip(self.readers, self.cross_attention, strict=True)
            for name, gate in layer.named_parameters(recurse=False)  # a block's own parameters are its two gates
        }


def media_index(rows: Rows) -> Int[Tensor, "b t"]:
    """tt: which image of its row (from 1) each position reads: the latest opened in its document, 0 where none is."""
    opens = rows.token_type == int(TokenType.BOI)
    columns = torch.arange(opens.shape[1], device=opens.device).expand_as(opens)
    latest = torch.where(opens, columns, -1).cummax(dim=1).values
    own = rows.doc_id.gather(1, latest.clamp(min=0)) == rows.doc_id  # padding belongs to no document
    return torch.where((latest >= 0) & own, opens.cumsum(dim=1), 0)


def media_context(rows: Rows, latents: Float[Tensor, "m l v"]) -> tuple[Float[Tensor, "b k v"], Bool[Tensor, "b t k"]]:
    """Latents of each row's images side by side, and which of them each position may read: the latest image's."""
    opened = media_index(rows)
    places = opened[rows.img_row, rows.img_boi] - 1  # 0 for the first image of its row
    most = max(1, int(opened.max())) if opened.numel() else 1
    context = latents.new_zeros(len(opened), most, *latents.shape[1:])
    context = context.index_put((rows.img_row, places), latents)
    numbers = torch.arange(1, most + 1, device=opened.device)
    allowed = opened[:, :, None] == numbers
    return context.flatten(1, 2), allowed.repeat_interleave(latents.shape[1], dim=2)
