"""What BEiT-3 hides in a batch: blocks of patches, words, and which documents are read one modality at a time.

BEiT-3 (Wang et al. 2022, section 2.2) for the rates, BEiT for the blocks, BERT for 80 / 10 / 10. Every draw comes from
a stream named by the seed of the document's row and its place among those of the row: a document, or a window of
several, has the same masks in any batch, order or number of ranks.

Shape letters: m images, b rows, t tokens, p patches.
"""

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from backbones.block_mask import block_mask
from backbones.special import Special
from data.batch import Rows, TokenType
from data.seeds import generator


@dataclass(frozen=True, kw_only=True)
class MaskRules:
    """Shares of what is hidden; counts are rounded to the nearest whole, the even one of two."""

    image_share: float = 0.4  # of the patches: 78 of 196
    min_block: int = 16  # smallest block of patches, as an area
    text_share_mono: float = 0.15  # of the text tokens, at least one
    text_share_multi: float = 0.5
    mono_share: float = 0.5  # probability that a document with images is read one modality at a time
    mask_share: float = 0.8  # of the hidden tokens: shown as [MASK]
    random_share: float = 0.1  # shown as another token; the rest is shown as it is

    def __post_init__(self) -> None:
        for name in ("image_share", "text_share_mono", "text_share_multi", "mono_share", "mask_share", "random_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share between 0 and 1, got {getattr(self, name)}")
        if self.min_block < 1:
            raise ValueError(f"min_block is a number of patches, at least 1, got {self.min_block}")
        if self.mask_share + self.random_share > 1:
            raise ValueError(
                f"mask_share {self.mask_share} and random_share {self.random_share} add up to more than 1; lower one"
            )


class MaskPlan(NamedTuple):
    """What is hidden, and the ids shown instead."""

    mono: Bool[Tensor, "b t"]  # of a document whose text and images are blind to each other
    patches: Bool[Tensor, "m p"]  # hidden patches
    text: Bool[Tensor, "b t"]  # text tokens to predict
    input_ids: Int[Tensor, "b t"]  # with hidden tokens replaced


def plan_masks(
    rows: Rows, doc_seed: Int[Tensor, " b"], grid: int, rules: MaskRules, special: Special, vocab_size: int
) -> MaskPlan:
    """Masks of a batch; grid: patches along an image's side. Drawn on CPU, returned on the rows' device."""
    ids, types = rows.input_ids.cpu().numpy().copy(), rows.token_type.cpu().numpy()
    documents = rows.doc_id.cpu().numpy()
    owner = documents[rows.img_row.cpu().numpy(), rows.img_boi.cpu().numpy()]
    images = Counter(zip(rows.img_row.tolist(), owner.tolist(), strict=True))
    reserved = {special.pad, special.bos, special.eos, special.boi, special.eoi, special.img, special.mask}
    ordinary = np.setdiff1d(np.arange(vocab_size), sorted(reserved))
    hide_patches = round(rules.image_share * grid**2)
    mono, text, patches = np.zeros(ids.shape, dtype=bool), np.zeros(ids.shape, dtype=bool), []
    for row, number in _documents(documents):
        name = (int(doc_seed[row]), *([number] if number else []))
        here, shown = documents[row] == number, images[row, number]
        stream = generator("beit3", "text", *name)
        # A document without images has one modality: it is masked as one, whatever the coin says.
        alone = stream.random() < rules.mono_share or not shown
        mono[row, here] = alone
        share = rules.text_share_mono if alone else rules.text_share_multi
        chosen = _choose_text(stream, np.flatnonzero(here & (types[row] == int(TokenType.TEXT))), share)
        text[row, chosen] = True
        ids[row, chosen] = _replace(stream, ids[row, chosen], rules, special.mask, ordinary)
        stream = generator("beit3", "image", *name)
        patches += [block_mask(stream, grid, grid, hide_patches, rules.min_block) for _ in range(shown)]
    hidden = np.stack(patches) if patches else np.zeros((0, grid**2), dtype=bool)
    return MaskPlan(*(torch.from_numpy(array).to(rows.input_ids.device) for array in (mono, hidden, text, ids)))


def _documents(numbers: np.ndarray) -> list[tuple[int, int]]:
    """Row and number of each document, as images are ordered; padding is numbered -1."""
    return [(row, int(number)) for row, held in enumerate(numbers) for number in np.unique(held) if number >= 0]


def _choose_text(stream: np.random.Generator, places: np.ndarray, share: float) -> np.ndarray:
    count = max(1, round(share * len(places))) if len(places) else 0
    return stream.permutation(places)[:count]


def _replace(
    stream: np.random.Generator, shown: np.ndarray, rules: MaskRules, mask: int, ordinary: np.ndarray
) -> np.ndarray:
    """The ids to show at hidden positions: [MASK], another ordinary token, or the token itself."""
    fate = stream.random(len(shown))
    other = ordinary[stream.integers(len(ordinary), size=len(shown))]
    changed = np.where(fate < rules.mask_share + rules.random_share, other, shown)
    return np.where(fate < rules.mask_share, mask, changed)
