"""CLIP (Radford et al. 2021): contrast of an image with its caption.  Con. in Table 1.

    L = L_con(v, t) = 1/(2n) sum_i [ CE(s v_i t^T, i) + CE(s t_i v^T, i) ]          (LCL paper Eq. 6 with the half sum)

v: the connector's pooled vector of the image; t: the language model's state at `<BoI>` after the caption, through a
LayerNorm and a linear layer. The image never enters the language model, so this is LCL's contrast on text-first pairs
and nothing else (our choice: the paper leaves the text tower open; in this reading CLIP, CoCa and
BLIP-2 are exact nestings).

Reads: pairs, TEXT_ONLY.  LM passes: 1.

Shape letters: m images (here one a row), n pairs with a caption, p patches, v vision width, d language width.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from backbones.heads import Connector, ContextReadout, Temperature, Visual
from backbones.lm import LanguageModel
from backbones.masks import causal
from backbones.special import Special
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout
from objectives.base import Objective
from objectives.diagnostics import same_document_share
from objectives.functional import Losses, Term, info_nce
from objectives.registry import register

ImagePool = Literal["attention", "mean"]


@register("clip")
class CLIP(Objective):
    """Image and caption embeddings attract, those of other pairs repel."""

    reads = "pairs"
    layouts: ClassVar[tuple[Layout, ...]] = (Layout.TEXT_ONLY,)
    lm_passes = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """Readings of the contrast that the paper leaves open; what stands here holds for CoCa and BLIP-2 as well."""

        image_pool: ImagePool = "attention"  # of what an image is contrasted by; mean: of the tokens the LM would read
        mask_same_caption: bool = False  # pairs of an equal caption are no negatives of each other
        label_smoothing: float = 0.0  # in the contrast, and in the captions of CoCa and BLIP-2; LAVIS has 0.1 in BLIP-2

        def __post_init__(self) -> None:
            super().__post_init__()
            if not 0 <= self.label_smoothing < 1:
                raise ValueError(f"label_smoothing is a share in [0, 1), got {self.label_smoothing}")
            if self.label_smoothing and self.mask_same_caption:
                raise ValueError(
                    f"label_smoothing={self.label_smoothing} would spread targets over the pairs that "
                    "mask_same_caption=True leaves out; choose one of the two"
                )

    config: Config

    def __init__(
        self, config: Objective.Config, vision: VisionEncoder, language: LanguageModel, special: Special
    ) -> None:
        super().__init__(config, vision, language, special)
        self.connector = Connector(vision.width, language.width)
        self.readout = ContextReadout(language.width)
        self.temperature = Temperature()

    def forward(self, batch: Batch) -> Losses:
        """The term `contrast`."""
        patches = self.encode(batch.images)
        contrast, watch = self.contrast(batch, self.pool(self.connector(patches)), self.context(batch))
        return Losses({"contrast": contrast}, {"contrast": 1.0}, watch | self.diagnose(patches))

    def pool(self, visual: Visual) -> Float[Tensor, "m d"]:
        """v before normalisation. The mean is what the pool gives where it attends evenly; its query then idles."""
        return visual.pooled if self.config.image_pool == "attention" else visual.tokens.mean(dim=1)

    def context(self, batch: Batch) -> Float[Tensor, "m d"]:
        """t before normalisation: what the caption alone says of its image. One LM pass, blind to the image."""
        rows = batch[Layout.TEXT_ONLY]
        hidden = self.language(self.embed(rows), causal(rows.attn_mask), rows.position_ids)
        return self.readout(self.at_boi(hidden, rows))

    def contrast(
        self, batch: Batch, pooled: Float[Tensor, "m d"], context: Float[Tensor, "m d"]
    ) -> tuple[Term, dict[str, Tensor]]:
        """L_con over pairs with a caption. By default twin captions stay negatives, as in CLIP; watch: their share."""
        rows = batch[Layout.TEXT_ONLY]
        captioned = rows.img_has_ctx
        captions = batch.caption_hash[rows.img_row[captioned]]
        groups = captions if self.config.mask_same_caption else None
        term, watch = info_nce(
            pooled[captioned], context[captioned], self.temperature.scale(), groups, self.config.label_smoothing
        )
        if len(captions) > 1:
            watch["same_caption"] = same_document_share(captions)
        return term, watch

    def after_step(self) -> None:
        """Keep the logit scale in [1, 100]."""
        self.temperature.clamp_()
