"""LLaVA-1.5's model behind an encoder: an MLP turns patch tokens into positions of a language model's row.

Source: LCL paper A.2 and Fig. 3c; haotian-liu/LLaVA (`mlp2x_gelu`). Stage 1 trains the MLP, through a language model
that stays as it is; stage 2 trains both. Which other parameters train is transfer/freeze.py's.

Shape letters: b conversations, t tokens, p patches, v vision width, d language width.
"""

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from backbones import masks
from backbones.lm import Decoder
from data.batch import Rows, TokenType
from objectives.functional import TEXT_TARGETS, Losses, token_nll
from transfer.base import FeatureBatch, TransferHead


@dataclass(frozen=True)
class TalkBatch(FeatureBatch):
    """Conversations and, in every row that has slots, the picture they are about; `ids` and `mask` are the rows."""

    kinds: Int[Tensor, "b s"]  # TokenType values
    learned: Bool[Tensor, "b s"]


class TalkHead(TransferHead):
    """What both stages share: pictures embedded into rows, and the loss on what is learned."""

    def __init__(self, width: int, language: Decoder) -> None:
        super().__init__()
        self.projector = nn.Sequential(
            nn.Linear(width, language.width), nn.GELU(), nn.Linear(language.width, language.width)
        )

    @property
    @abstractmethod
    def decoder(self) -> Decoder:
        """The language model."""

    def embedded(
        self, patches: Float[Tensor, "b p v"], ids: Int[Tensor, "b t"], kinds: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b t d"]:
        """Rows with the patches of each row's picture in its slots, in order. Rows without slots take no patches.

        Raises ValueError where a row has slots, and another number of them than its picture has patches.
        """
        slots = kinds == TokenType.IMG
        words = self.decoder.embed(ids.masked_fill(slots, 0))
        counts = slots.sum(dim=1)
        pictured = counts > 0
        if bool((counts[pictured] != patches.shape[1]).any()):
            raise ValueError(
                f"rows have {sorted(set(counts.tolist()))} slots, a picture has {patches.shape[1]} patches"
            )
        images = self.projector(patches)[pictured].flatten(0, 1).to(words.dtype)
        return words.masked_scatter(slots[:, :, None], images)

    def forward(self, batch: FeatureBatch) -> Losses:
        """Next-token loss over the answers."""
        if not isinstance(batch, TalkBatch):
            raise TypeError(f"a {type(self).__name__} learns from a TalkBatch, got {type(batch).__name__}")
        rows = _rows(batch)
        x = self.embedded(batch.select("patch"), batch.ids, batch.kinds)
        hidden = self.decoder(x, masks.causal(rows.attn_mask), rows.position_ids)
        loss = token_nll(hidden, rows, self.decoder.logits, TEXT_TARGETS, extra=batch.learned)
        return Losses({"generate": loss.term()}, {"generate": 1.0}, {"text_nll": loss.text_nll()})


class AlignHead(TalkHead):
    """Stage 1: the language model is frozen, and no part of this module's parameters."""

    def __init__(self, width: int, language: Decoder) -> None:
        super().__init__(width, language)
        frozen = copy.deepcopy(language).requires_grad_(False).eval()
        self._frozen = (frozen,)  # a tuple hides it from parameters(), train() and checkpoints

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What `to` moves: the language model too, wherever the MLP goes."""
        self.decoder._apply(fn, recurse)
        return super()._apply(fn, recurse)

    @property
    def decoder(self) -> Decoder:
        """The language model as it came."""
        return self._frozen[0]


class TuneHead(TalkHead):
    """Stage 2: the language model trains with the MLP."""

    def __init__(self, width: int, language: Decoder) -> None:
        super().__init__(width, language)
        self.language = copy.deepcopy(language)  # the caller's model starts every head, of every row

    @property
    def decoder(self) -> Decoder:
        """The language model as it has become."""
        return self.language

    def pretrained(self) -> tuple[nn.Module, ...]:
        """The language model; the MLP trains at the rate of what is new, also after stage 1."""
        return (self.language,)


def _rows(batch: TalkBatch) -> Rows:
    b, t = batch.ids.shape
    device = batch.ids.device
    none = torch.zeros(0, dtype=torch.int64, device=device)
    return Rows(
        input_ids=batch.ids,
        attn_mask=batch.mask,
        token_type=batch.kinds,
        position_ids=torch.arange(t, device=device).expand(b, -1),
        doc_id=torch.where(batch.mask, 0, -1),
        img_row=none,
        img_boi=none,
        img_has_ctx=none.bool(),
    )
