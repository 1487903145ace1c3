"""BEiT-3 (Wang et al. 2022): predict hidden patches and hidden words from what is left.  Mask. in Table 1.

    L = L_img + L_txt
    L_img = mean over hidden patches of CE(Q(state at the patch's slot), code of the patch)
    L_txt = mean over hidden tokens of CE(state at the token itself, token)

One bidirectional pass over the shared architecture ("stacked": encoder, connector, language model), so that only masks
and losses differ from the other rows; the multiway transformer of the original is not built. BEiT-3's codes come from a
tokenizer distilled from CLIP: `backbones.image_targets` takes its place.

Original batches mix images, texts and pairs 1:1:1. One pass per document does the same: half of the documents are read
`mono` (text masked at 15 %, images and text blind to each other), half as one sequence (text masked at 50 %).

Reads: documents, INTERLEAVED.  LM passes: 1.

Shape letters: m images, b rows, t tokens, p patches, n masked positions, s image side, d width.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from timm.layers import trunc_normal_
from torch import Tensor, nn
from torch import distributed as dist

from backbones.heads import TokenConnector
from backbones.image_targets import CentroidCodes, ImageTarget, Pixels, RandomCodes
from backbones.lm import LanguageModel
from backbones.masks import bidirectional, within
from backbones.special import Special
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout, Rows, TokenType
from objectives.base import Objective
from objectives.functional import Losses, Term, masked_token_loss
from objectives.gather import gather_rows, world_size
from objectives.masking import MaskPlan, MaskRules, plan_masks
from objectives.registry import register

# Of the loader's transform, which is the same for every row: targets are made of pixels in [0, 1].
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

TargetName = Literal["rpq_kmeans", "rpq_random", "pixel"]


@register("beit3")
class BEiT3(Objective):
    """Masked data modelling on interleaved images and text."""

    reads = "documents"
    layouts: ClassVar[tuple[Layout, ...]] = (Layout.INTERLEAVED,)
    lm_passes = 1

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """What is masked, what is predicted for a hidden patch, and how the terms are weighted."""

        masks: MaskRules = MaskRules()
        target: TargetName = "rpq_kmeans"
        codes: int = 8192
        code_width: int = 16
        codebook_seed: int = 0  # of the projection, the random codebook and the k-means start: part of the target
        fit_patches: int = 1_000_000
        image_weight: float = 1.0
        text_weight: float = 1.0

        def __post_init__(self) -> None:
            super().__post_init__()
            self.some_weight()
            self.at_least(1, "codes", "code_width")
            if self.target == "rpq_kmeans" and self.fit_patches < self.codes:
                raise ValueError(
                    f"fit_patches must be at least codes, as each code is the centre of some patches; got fit_patches "
                    f"{self.fit_patches} and codes {self.codes}"
                )

    config: Config
    image_mean: Tensor
    image_std: Tensor

    def __init__(self, config: Config, vision: VisionEncoder, language: LanguageModel, special: Special) -> None:
        super().__init__(config, vision, language, special)
        # No attention pool: it would be parameters without a gradient.
        self.connector = TokenConnector(vision.width, language.width)
        self.mask_token = nn.Parameter(trunc_normal_(torch.empty(1, 1, vision.width), std=0.02))
        self.target = _image_target(config, vision.size.patch_size)
        self.image_head = nn.Linear(language.width, self.target.dim)
        trunc_normal_(self.image_head.weight, std=0.02)
        nn.init.zeros_(self.image_head.bias)
        self.register_buffer("image_mean", torch.tensor(CLIP_MEAN)[:, None, None], persistent=False)
        self.register_buffer("image_std", torch.tensor(CLIP_STD)[:, None, None], persistent=False)

    def prepare(self, images: Iterable[Float[Tensor, "_ 3 s s"]]) -> None:
        """Fit the image target to batches of normalised training images; call once before the first step.

        Only rank 0 reads the images, the other ranks receive its codebook. A checkpoint holds the result. Raises
        ValueError where ranks would predict different targets all the same: their random projections differ.
        """
        if world_size() == 1 or dist.get_rank() == 0:
            self.target.fit(self.pixels(batch) for batch in images)
        if world_size() > 1 and isinstance(self.target, CentroidCodes):
            codebook = self.target.codebook.clone()
            dist.broadcast(codebook, src=0)
            self.target.set_codebook(codebook)
        own = torch.tensor([int(self.target.fingerprint()[:15], 16)], device=self.mask_token.device)
        if len(set(gather_rows(own)[0].tolist())) > 1:
            raise ValueError(
                "ranks have different image targets, so their losses could not be added; give every rank the same "
                "configuration and the same version of torch"
            )

    def forward(self, batch: Batch) -> Losses:
        """Masked image and text losses; watch: accuracies against the unigram baseline, codebook use, collapse."""
        rows = batch[Layout.INTERLEAVED]
        plan = self.plan(batch)
        hidden, patches, tokens = self.read(batch, plan)
        image, watch = self.image_term(hidden, rows, plan, self.target.targets(self.pixels(batch.images)))
        text = masked_token_loss(hidden, rows.input_ids, plan.text, self.language.logits)
        return Losses(
            terms={"masked_image": image, "masked_text": text},
            weights={"masked_image": self.config.image_weight, "masked_text": self.config.text_weight},
            watch={**watch, **self.diagnose(patches, rows, tokens)},
        )

    def plan(self, batch: Batch) -> MaskPlan:
        """What is hidden in this batch: a function of each document's seed and content alone."""
        side = self.vision.size.image_size // self.vision.size.patch_size
        rows = batch[Layout.INTERLEAVED]
        return plan_masks(rows, batch.doc_seed, side, self.config.masks, self.special, self.language.vocab_size)

    def read(
        self, batch: Batch, plan: MaskPlan
    ) -> tuple[Float[Tensor, "b t d"], Float[Tensor, "m p v"], Float[Tensor, "m p d"]]:
        """States of the language model, patch tokens of the encoder and what the language model reads of them, from
        what the plan leaves visible."""
        rows = batch[Layout.INTERLEAVED]
        hide = plan.patches[:, :, None]
        patches = self.encode(batch.images, lambda x: torch.where(hide, self.mask_token.to(x.dtype), x))
        if not len(patches):
            patches = patches + self.mask_token  # nothing was hidden: this only keeps the token in the graph
        tokens = self.connector(patches)
        inputs = self.embed(replace(rows, input_ids=plan.input_ids), tokens)
        return self.language(inputs, allowed(rows, plan.mono), rows.position_ids), patches, tokens

    def image_term(
        self, hidden: Float[Tensor, "b t d"], rows: Rows, plan: MaskPlan, targets: Tensor
    ) -> tuple[Term, dict[str, Tensor]]:
        """Loss of the hidden patches, each predicted at its slot, and what to watch.

        targets: of all patches, [m, p, ...].
        """
        slots = hidden[rows.token_type == int(TokenType.IMG)].view(*plan.patches.shape, hidden.shape[-1])
        prediction, wanted = self.image_head(slots[plan.patches]), targets[plan.patches]
        with torch.autocast(hidden.device.type, enabled=False):
            loss = self.target.loss(prediction, wanted)
        term = Term(loss, torch.tensor(float(len(wanted)), device=hidden.device))
        if self.target.kind == "regress" or not len(wanted):
            return term, {}
        used = torch.bincount(targets.flatten(), minlength=self.target.dim).float()
        return term, {
            "image_accuracy": (prediction.detach().argmax(dim=-1) == wanted).float().mean(),
            # Always naming this batch's most frequent code: accuracy means something only above it.
            "image_unigram_accuracy": torch.bincount(wanted).max() / len(wanted),
            "codebook_perplexity": torch.special.entr(used / used.sum()).sum().exp(),
        }

    def pixels(self, images: Float[Tensor, "m 3 s s"]) -> Float[Tensor, "m 3 s s"]:
        """The images before the transform's normalisation, in [0, 1]."""
        return images.to(self.image_mean.device).float() * self.image_std + self.image_mean


def allowed(rows: Rows, mono: Bool[Tensor, "b t"]) -> Bool[Tensor, "b t t"]:
    """Attention within a document: all of it, or in a `mono` one each image (with its markers) and the text alone."""
    opens = (rows.token_type == int(TokenType.BOI)).cumsum(dim=1)
    of_image = torch.isin(rows.token_type, rows.token_type.new_tensor([TokenType.BOI, TokenType.IMG, TokenType.EOI]))
    block = torch.where(of_image & mono, opens, 0)
    return within(within(bidirectional(rows.attn_mask), rows.doc_id), block)


def _image_target(config: BEiT3.Config, patch_size: int) -> ImageTarget:
    match config.target:
        case "rpq_kmeans":
            return CentroidCodes(patch_size, config.codes, config.code_width, config.codebook_seed, config.fit_patches)
        case "rpq_random":
            return RandomCodes(patch_size, config.codes, config.code_width, config.codebook_seed)
        case "pixel":
            return Pixels(patch_size)
