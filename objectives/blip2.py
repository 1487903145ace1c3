"""BLIP-2, first stage (Li et al. 2023): contrast, matching and captioning.  Con. + Cap. + Mat. in Table 2.

    L = L_itc + L_itm + L_itg,      L_itc = L_con (CLIP),      L_itg = L_cap (CoCa)
    L_itm = -1/3n sum over { (x_b, w_b): 1, (x_neg(b), w_b): 0, (x_b, w_neg(b)): 0 } of ln p(label)
    x_neg(b) ~ softmax_j h s <t_b, v_j>,    w_neg(b) ~ softmax_j h s <v_b, t_j>,    j not b nor a twin caption of b

h is the hardness of the negatives, 1 in BLIP-2 (docs/decisions/0006-blip2-matching.md says what it does from scratch).

Shared architecture (our choice: CoCa and one task more, so that the rows of a table nest). The matching pass reads
IMAGE_FIRST rows with bidirectional attention; its logits are the mean over the image's positions. Negatives come from
all ranks, and it is captions that travel: a rank runs the rows of its own images, so tokens Z are never gathered.

Reads: pairs, TEXT_ONLY and IMAGE_FIRST.  LM passes: 3, the matching one with three rows a pair.

Shape letters: m images (here one a row), r pairs of this rank, n pairs of all ranks, q rows of the matching pass,
p patches, t tokens, d language width.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.lm import LanguageModel
from backbones.masks import bidirectional
from backbones.precision import at_least_fp32
from backbones.special import Special
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout, Rows, TokenType
from objectives.coca import CoCa
from objectives.functional import Losses, matching_loss
from objectives.gather import gather_rows
from objectives.hard_negatives import draw, pair_noise
from objectives.registry import register

Candidates = Literal["global", "local"]
IMAGE_DRAW, TEXT_DRAW = 1, 2  # two independent streams of noise for one pair


class Negatives(NamedTuple):
    """A wrong image and a wrong caption for each pair of this rank, as indices over the pairs of all ranks."""

    image: Int[Tensor, " r"]
    text: Int[Tensor, " r"]
    found: Bool[Tensor, " r"]  # False: there is no admissible negative, or no caption; the whole triple is skipped


class Matching(NamedTuple):
    """Rows of the matching pass on this rank."""

    image: Int[Tensor, " q"]  # index over the images of this rank
    text: Int[Tensor, " q"]  # index over the pairs of all ranks
    matched: Bool[Tensor, " q"]
    counted: Bool[Tensor, " q"]


@register("blip2")
class BLIP2(CoCa):
    """CoCa, and telling whether an image and a caption belong together when the wrong one is a hard one."""

    layouts = (Layout.TEXT_ONLY, Layout.IMAGE_FIRST)
    lm_passes = 3

    @dataclass(frozen=True, kw_only=True)
    class Config(CoCa.Config):
        """Weights of the terms (1:1:1 in BLIP-2) and which pairs may be drawn as negatives."""

        caption_weight: float = 1.0
        match_weight: float = 1.0
        negatives: Candidates = "global"  # pairs of all ranks, or of this one
        hardness: float = 1.0  # factor on the similarities of the draw: 1 as in BLIP-2, 0 draws evenly
        filter_captions: bool = True  # an equal caption is no negative; BLIP-2 itself excludes only the pair

        def __post_init__(self) -> None:
            super().__post_init__()
            self.at_least(0, "hardness")

    config: Config

    def __init__(self, config: Config, vision: VisionEncoder, language: LanguageModel, special: Special) -> None:
        super().__init__(config, vision, language, special)
        self.match_head = nn.Linear(language.width, 2)
        nn.init.normal_(self.match_head.weight, std=0.02)
        nn.init.zeros_(self.match_head.bias)

    def forward(self, batch: Batch) -> Losses:
        """The terms `contrast`, `match` and `caption`."""
        patches = self.encode(batch.images)
        visual = self.connector(patches)
        context = self.context(batch)
        pooled = self.pool(visual)
        contrast, watch = self.contrast(batch, pooled, context)
        caption = self.caption(batch, visual.tokens)
        rows = self.matching(self.negatives(batch, pooled, context))
        logits = self.match(visual.tokens, self.captions(batch), rows)[rows.counted]
        matched = rows.matched[rows.counted]
        watch |= {"text_nll": caption.text_nll()} | self.diagnose(patches, batch[Layout.IMAGE_FIRST], visual.tokens)
        if len(matched):
            watch["match_acc"] = (logits.argmax(dim=1) == matched.long()).float().mean()
        config = self.config
        return Losses(
            {"contrast": contrast, "match": matching_loss(logits, matched), "caption": caption.term()},
            {"contrast": config.contrast_weight, "match": config.match_weight, "caption": config.caption_weight},
            watch,
        )

    @torch.no_grad()
    def negatives(self, batch: Batch, pooled: Float[Tensor, "r d"], context: Float[Tensor, "r d"]) -> Negatives:
        """Draw the hard negatives by the similarities of the contrast."""
        rows = batch[Layout.IMAGE_FIRST]
        caption, key = batch.caption_hash[rows.img_row], batch.doc_seed[rows.img_row]
        captioned = batch[Layout.TEXT_ONLY].img_has_ctx
        with torch.autocast(pooled.device.type, enabled=False):
            v, t = (F.normalize(at_least_fp32(x), dim=-1) for x in (pooled, context))
            both, first = gather_rows(torch.cat([v, t], dim=-1))
            facts, _ = gather_rows(torch.stack([caption, key, captioned.long()], dim=1))
            all_caption, all_key, all_captioned = facts.unbind(dim=1)
            own = first + torch.arange(len(v), device=v.device)
            everyone = torch.arange(len(both), device=v.device)
            allowed = captioned[:, None] & all_captioned.bool() & (own[:, None] != everyone)
            if self.config.filter_captions:
                allowed &= caption[:, None] != all_caption
            if self.config.negatives == "local":
                allowed &= (everyone >= first) & (everyone < first + len(v))
            all_v, all_t = both.split([v.shape[1], t.shape[1]], dim=1)
            scale = self.config.hardness * self.temperature.scale()
            image = draw(scale * t @ all_v.T, allowed, pair_noise(key, all_key, IMAGE_DRAW))
            text = draw(scale * v @ all_t.T, allowed, pair_noise(key, all_key, TEXT_DRAW))
        return Negatives(image, text, allowed.any(dim=1))

    def matching(self, negatives: Negatives) -> Matching:
        """Three rows a pair, each on the rank that owns its image: the pair, the wrong image, the wrong caption."""
        found = negatives.found
        drawn, first = gather_rows(torch.stack([negatives.image, found.long()], dim=1))
        images = torch.arange(len(found), device=found.device)
        wanted = (drawn[:, 0] >= first) & (drawn[:, 0] < first + len(found)) & drawn[:, 1].bool()
        asking = wanted.nonzero()[:, 0]  # pairs of any rank that drew an image of this one
        image = torch.cat([images, drawn[asking, 0] - first, images])
        text = torch.cat([first + images, asking, negatives.text])
        matched = torch.arange(len(image), device=found.device) < len(found)
        return Matching(image, text, matched, torch.cat([found, torch.ones_like(asking, dtype=torch.bool), found]))

    def captions(self, batch: Batch) -> Int[Tensor, "n 3 t"]:
        """IMAGE_FIRST rows of the pairs of all ranks: ids, types and positions, padded to the longest."""
        rows = batch[Layout.IMAGE_FIRST]
        own = torch.stack([rows.input_ids, rows.token_type, rows.position_ids], dim=1)[rows.img_row]
        widths, _ = gather_rows(torch.tensor([own.shape[2]], device=own.device))
        padding = own.new_tensor([self.special.pad, int(TokenType.PAD), 0])[:, None]
        more = int(widths.max()) - own.shape[2]
        return gather_rows(torch.cat([own, padding.expand(len(own), 3, more)], dim=2))[0]

    def match(
        self, tokens: Float[Tensor, "r p d"], captions: Int[Tensor, "n 3 t"], matching: Matching
    ) -> Float[Tensor, "q 2"]:
        """Logits of (not matched, matched) for each row, mean over the image's positions. One LM pass."""
        ids, types, positions = captions[matching.text].unbind(dim=1)
        number = torch.arange(len(ids), device=ids.device)
        valid = types != int(TokenType.PAD)
        rows = Rows(
            input_ids=ids,
            attn_mask=valid,
            token_type=types,
            position_ids=positions,
            doc_id=valid.long() - 1,
            img_row=number,
            img_boi=(types == int(TokenType.BOI)).long().argmax(dim=1),
            img_has_ctx=torch.zeros_like(number, dtype=torch.bool),
        )
        hidden = self.language(self.embed(rows, tokens[matching.image]), bidirectional(valid), positions)
        with torch.autocast(hidden.device.type, enabled=False):
            at_image = at_least_fp32(hidden)[types == int(TokenType.IMG)].unflatten(0, (len(ids), tokens.shape[1]))
            return self.match_head(at_image.mean(dim=1))  # the head is linear: mean of logits = logits of the mean
