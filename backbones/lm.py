"""The language model g: transformers' OPT decoder under any attention mask, with a tied head.

Source: LCL paper A.1 (OPT-125M, random initialisation); huggingface/transformers `models/opt`. The loop over the layers
is ours because the library derives positions and masks from a padding mask, and because a mask of `None` means causal
there: here the mask and the positions are always given.

Shape letters: b rows, t tokens, k tokens to attend (those read before, too), d width, n selected positions,
v vocabulary.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, OPTConfig, OPTModel

from backbones import masks
from backbones.sizes import LanguageSize


class Decoder(nn.Module, ABC):
    """What a head needs of a language model it reads or writes with; ours, or one from elsewhere (llm.py)."""

    width: int
    positions: int  # tokens that a row may have
    kept_per_token: int  # numbers that `read_on` keeps of a token: keys and values of all layers

    @abstractmethod
    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Token embeddings, without positions."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "b t d"], allowed: Bool[Tensor, "b t t"], position_ids: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b t d"]:
        """Last states. allowed: [row, i, j] is True where position i may attend position j."""

    @abstractmethod
    def read_on(self, x: Float[Tensor, "b t d"], seen: DynamicCache) -> Float[Tensor, "b t d"]:
        """Last states of tokens that follow those read into `seen`, left to right; `seen` then holds them as well.

        seen: keys and values of every layer. No row is padded, so rows of it may be chosen by `seen.reorder_cache`.
        """

    @abstractmethod
    def logits(self, y: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Next-token logits."""


class LanguageModel(Decoder):
    """OPT decoder. Initialised from torch's global generator: `build_language` gives it its own stream."""

    def __init__(self, size: LanguageSize, vocab_size: int) -> None:
        """vocab_size: rows of the tied embedding. Raises ValueError where the size declares another number."""
        super().__init__()
        if size.vocab_size not in (None, vocab_size):
            raise ValueError(
                f"language size {size.name!r} has {size.vocab_size} embedding rows, got vocab_size={vocab_size}; "
                "use the tokenizer of that model, or a size whose vocabulary is open"
            )
        self.size, self.width, self.depth, self.vocab_size = size, size.width, size.depth, vocab_size
        self.positions, self.kept_per_token = size.positions, 2 * size.depth * size.width
        config = OPTConfig(
            vocab_size=vocab_size,
            hidden_size=size.width,
            word_embed_proj_dim=size.width,
            num_hidden_layers=size.depth,
            num_attention_heads=size.heads,
            ffn_dim=size.ffn,
            max_position_embeddings=size.positions,
            init_std=size.init_std,
            activation_function=size.activation,
            _remove_final_layer_norm=not size.final_norm,
            dropout=0.0,
            attention_dropout=0.0,
            # No special ids: a pad id would take the input gradient from whatever token has that id in our tokenizer.
            pad_token_id=None,
            bos_token_id=None,
            eos_token_id=None,
        )
        self.decoder = OPTModel(config).decoder

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Token embeddings, without positions."""
        return self.decoder.embed_tokens(ids)

    def forward(
        self,
        x: Float[Tensor, "b t d"],
        allowed: Bool[Tensor, "b t t"],
        position_ids: Int[Tensor, "b t"],
        before_layer: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "b t d"]:
        """States after the last layer and, where the size has one, the final LayerNorm.

        allowed: [row, i, j] is True where position i may attend position j. A position that may attend nothing
        (padding) gets finite, meaningless states.
        before_layer: called as (index of the layer, hidden states) before each layer; what it returns enters the layer.
        Raises ValueError where the rows are longer than the learned positions.
        """
        return self._states(x, allowed, position_ids, before_layer, None)

    def read_on(self, x: Float[Tensor, "b t d"], seen: DynamicCache) -> Float[Tensor, "b t d"]:
        """As `Decoder.read_on`. Raises ValueError where the rows become longer than the learned positions."""
        allowed, positions = masks.following(x.shape[0], x.shape[1], seen.get_seq_length(), x.device)
        return self._states(x, allowed, positions, None, seen)

    def _states(
        self,
        x: Float[Tensor, "b t d"],
        allowed: Bool[Tensor, "b t k"],
        position_ids: Int[Tensor, "b t"],
        before_layer: Callable[[int, Tensor], Tensor] | None,
        seen: DynamicCache | None,
    ) -> Float[Tensor, "b t d"]:
        if (length := allowed.shape[2]) > self.size.positions:
            raise ValueError(
                f"rows have {length} tokens, but {self.size.name!r} has {self.size.positions} learned positions; "
                "lower the sequence length of the data"
            )
        # On CPU written-out attention: bf16 fused attention takes ten times as long there, forward and backward. In
        # float64 never: the library writes it out with a softmax in fp32.
        written_out = x.device.type == "cpu" and x.dtype != torch.float64
        self.decoder.config._attn_implementation = "eager" if written_out else "sdpa"
        positions = self.decoder.embed_positions
        hidden = x + F.embedding(position_ids + positions.offset, positions.weight)
        bias = masks.additive(allowed, hidden.dtype)
        for i, layer in enumerate(self.decoder.layers):
            if before_layer is not None:
                hidden = before_layer(i, hidden)
            if len(hidden):
                hidden = layer(hidden, attention_mask=bias, past_key_values=seen)
            else:
                hidden = _without_rows(layer, hidden)
        norm = self.decoder.final_layer_norm
        return hidden if norm is None else norm(hidden)

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """The layers of the decoder."""
        return list(self.decoder.layers)

    def logits(self, y: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Next-token logits by the tied embedding. Give it target positions only: this is the dear part."""
        return F.linear(y, self.decoder.embed_tokens.weight)


def _without_rows(layer: nn.Module, hidden: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
    """No rows, connected to every parameter of the layer: a rank without documents enters every collective all the
    same. The library cannot split no rows into heads, so one dummy row goes through and is dropped."""
    one = hidden.sum() + hidden.new_zeros(1, 1, hidden.shape[-1])  # of nothing, but with the graph before it
    return hidden + layer(one, attention_mask=hidden.new_zeros(1, 1, 1, 1))[:0]
