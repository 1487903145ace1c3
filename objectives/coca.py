"""CoCa (Yu et al. 2022): contrast and captioning.  Con. + Cap. in Table 2.

    L = w_con L_con(v, t) + w_cap L_cap,      L_cap = -1/n_tok sum_b sum_q ln p(w_bq | w_b<q, image_b)

with w_con = 1 and w_cap = 2 (CoCa's own; the LCL paper gives none). Shared architecture (our choice: one
language model run twice, which are the passes that the caption of Table 1 counts): pass 1 reads the caption alone for
t, pass 2 reads the image's tokens and then the caption; EOS is a target where the caption was not cut, `<BoI>` is not
one. The encoder and the connector run once for both passes.

Reads: pairs, TEXT_ONLY and IMAGE_FIRST.  LM passes: 2.

Shape letters: m images (here one a row), p patches, d language width.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from backbones.masks import causal
from data.batch import Batch, Layout
from objectives.clip import CLIP
from objectives.functional import TEXT_TARGETS, Losses, TokenLoss, token_nll
from objectives.registry import register


@register("coca")
class CoCa(CLIP):
    """CLIP's contrast, and the caption written from the image."""

    layouts = (Layout.TEXT_ONLY, Layout.IMAGE_FIRST)
    lm_passes = 2

    @dataclass(frozen=True, kw_only=True)
    class Config(CLIP.Config):
        """Weights of the two terms."""

        contrast_weight: float = 1.0  # w_con
        caption_weight: float = 2.0  # w_cap

        def __post_init__(self) -> None:
            super().__post_init__()
            self.some_weight()

    config: Config

    def forward(self, batch: Batch) -> Losses:
        """The terms `contrast` and `caption`."""
        patches = self.encode(batch.images)
        visual = self.connector(patches)
        contrast, watch = self.contrast(batch, self.pool(visual), self.context(batch))
        caption = self.caption(batch, visual.tokens)
        watch |= {"text_nll": caption.text_nll()} | self.diagnose(patches, batch[Layout.IMAGE_FIRST], visual.tokens)
        return Losses(
            {"contrast": contrast, "caption": caption.term()},
            {"contrast": self.config.contrast_weight, "caption": self.config.caption_weight},
            watch,
        )

    def caption(self, batch: Batch, tokens: Float[Tensor, "m p d"]) -> TokenLoss:
        """L_cap by token: each caption token from the image and the caption so far. One LM pass."""
        rows = batch[Layout.IMAGE_FIRST]
        hidden = self.language(self.embed(rows, tokens), causal(rows.attn_mask), rows.position_ids)
        smoothing = self.config.label_smoothing
        return token_nll(hidden, rows, self.language.logits, TEXT_TARGETS, smoothing=smoothing)
