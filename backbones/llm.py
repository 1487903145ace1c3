"""A pretrained causal language model of transformers as a Decoder, with its tokenizer; never downloaded.

Source: huggingface/transformers `AutoModelForCausalLM`; a folder, a cached hub name, or a GGUF file, which is
de-quantised to be trained (transformers with the packages gguf and accelerate). Code that comes with a model is not
run, and of pickled weights only tensors are read.

Shape letters: b rows, t tokens, k tokens to attend (those read before, too), d width, n selected positions,
v vocabulary.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from filelock import FileLock
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, DynamicCache, OPTConfig

from backbones import masks
from backbones.lm import Decoder
from backbones.pretrained import load_opt, read_whole

GGUF = ".gguf"
_CHECKED = 6  # tokens on which the wrapped model is compared with the library's own
_CLOSE = 1e-3  # logits, in fp32


@dataclass(frozen=True)
class LlmSpecial:
    """Special ids of a model that knows no images: what it has none for has the id of EOS, and is told by its type."""

    pad: int
    bos: int
    eos: int
    boi: int
    eoi: int
    img: int
    mask: int


class LlmTokenizer:
    """A fast tokenizer of transformers: text to ordinary ids, "<|im_end|>" in a text being text."""

    def __init__(self, found: Any) -> None:
        """Raises ValueError for a tokenizer without an end, or one that is not fast."""
        if found.eos_token_id is None or not getattr(found, "is_fast", False):
            raise ValueError(f"a {type(found).__name__} that is not fast, or has no end-of-text token, cannot be used")
        eos, bos = int(found.eos_token_id), found.bos_token_id
        self.special = LlmSpecial(eos, eos if bos is None else int(bos), eos, eos, eos, eos, eos)
        self._core = found.backend_tokenizer
        self._core.encode_special_tokens = True

    def encode(self, text: str) -> list[int]:
        """Ordinary ids, without BOS or EOS."""
        ids: list[int] = self._core.encode(text, add_special_tokens=False).ids
        return ids

    def spans(self, text: str) -> list[tuple[int, int, int]]:
        """`encode`, each id with the characters [start, end) that it covers."""
        found = self._core.encode(text, add_special_tokens=False)
        return [(token, start, end) for token, (start, end) in zip(found.ids, found.offsets, strict=True)]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special ones are left out."""
        text: str = self._core.decode(list(ids), skip_special_tokens=True)
        return text


class CausalLM(Decoder):
    """Any causal language model whose logits are a linear map of its last states, tied to its embedding or not."""

    def __init__(self, model: Any) -> None:
        """Raises ValueError where logits, positions or memory work in another way, as far as a short text shows.

        Its dropout is off, as is that of every other language model here (LCL's and OPT's have none).
        """
        super().__init__()
        whole = _without_dropout(model.eval())
        embedding, head = whole.get_input_embeddings(), whole.get_output_embeddings()
        self.decoder: Any = whole.base_model
        self.head = None if head.weight is embedding.weight else head
        self.width: int = embedding.weight.shape[1]
        self.positions: int = _positions(whole)
        ids = torch.arange(_CHECKED)[None] % embedding.num_embeddings
        with torch.no_grad():
            x, seen = self.embed(ids), DynamicCache()
            states = self(x, masks.causal(torch.ones_like(ids, dtype=torch.bool)), ids)
            off = float((self.logits(states[0]) - whole(input_ids=ids).logits[0]).abs().max())
            in_two = torch.cat([self.read_on(x[:, :-2], seen), self.read_on(x[:, -2:], seen)], dim=1)
            forgot = float((in_two - states).abs().max())
            self.kept_per_token = (
                sum(layer.keys[0].numel() + layer.values[0].numel() for layer in seen.layers) // _CHECKED
            )
        if not off < _CLOSE:
            raise ValueError(
                f"a {type(whole).__name__} gives other logits when its last states are read directly (off by "
                f"{off:.3g}): it scales or masks in a way of its own; choose another model, such as a Llama"
            )
        if not forgot < _CLOSE:
            raise ValueError(
                f"a {type(whole).__name__} gives other states when it reads a text in two parts (off by "
                f"{forgot:.3g}): it remembers otherwise than by keys and values; choose another model, such as a Llama"
            )

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """Token embeddings."""
        found: Tensor = self.decoder.get_input_embeddings()(ids)
        return found

    def forward(
        self, x: Float[Tensor, "b t d"], allowed: Bool[Tensor, "b t t"], position_ids: Int[Tensor, "b t"]
    ) -> Float[Tensor, "b t d"]:
        """States after the final norm."""
        return self._states(x, allowed, position_ids, None)

    def read_on(self, x: Float[Tensor, "b t d"], seen: DynamicCache) -> Float[Tensor, "b t d"]:
        """As `Decoder.read_on`."""
        allowed, positions = masks.following(x.shape[0], x.shape[1], seen.get_seq_length(), x.device)
        return self._states(x, allowed, positions, seen)

    def _states(
        self,
        x: Float[Tensor, "b t d"],
        allowed: Bool[Tensor, "b t k"],
        position_ids: Int[Tensor, "b t"],
        seen: DynamicCache | None,
    ) -> Float[Tensor, "b t d"]:
        # As in lm.py: on CPU written-out attention.
        self.decoder.config._attn_implementation = "eager" if x.device.type == "cpu" else "sdpa"
        out = self.decoder(
            inputs_embeds=x,
            attention_mask=masks.additive(allowed, x.dtype),
            position_ids=position_ids,
            past_key_values=seen,
            use_cache=seen is not None,
        )
        states: Tensor = out.last_hidden_state
        return states

    def logits(self, y: Float[Tensor, "n d"]) -> Float[Tensor, "n v"]:
        """Next-token logits. Give it target positions only."""
        if self.head is None:
            return F.linear(y, self.decoder.get_input_embeddings().weight)
        found: Tensor = self.head(y)
        return found


class Llm(NamedTuple):
    """A language model and the tokenizer it was trained with."""

    tokenizer: LlmTokenizer
    language: Decoder


def check_llm(source: str) -> None:
    """Raises ValueError where there is no causal language model at that place; reads no weights."""
    path = Path(source)
    if path.suffix == GGUF:
        if not path.is_file():
            raise ValueError(f"data.llm: there is no file {source}; give a .gguf, a folder, or a cached hub name")
        return
    config = _config(source)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(f"data.llm: {source!r} is a {config.model_type}, which writes no text; name a causal model")


def load_tokenizer(source: str) -> LlmTokenizer:
    """The tokenizer alone; no weights are read. Raises ValueError as `check_llm` does."""
    check_llm(source)
    path = Path(source)
    if path.suffix == GGUF:
        return LlmTokenizer(AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True))
    return LlmTokenizer(AutoTokenizer.from_pretrained(source, local_files_only=True))


def load_llm(source: str, kept: Path) -> Llm:
    """The model in fp32 on CPU, with its tokenizer.

    kept: folder where a GGUF file is kept de-quantised, as unpacking takes minutes. Raises ValueError as `check_llm`
    does, and for a model that cannot be read by embeddings.
    """
    check_llm(source)
    where = str(_unpacked(Path(source), kept)) if Path(source).suffix == GGUF else source
    tokenizer = LlmTokenizer(AutoTokenizer.from_pretrained(where, local_files_only=True))
    if isinstance(_config(where), OPTConfig):  # takes its positions from a padding mask, which ours does not
        return Llm(tokenizer, load_opt(where))
    return Llm(tokenizer, CausalLM(read_whole(AutoModelForCausalLM, where)))


def _positions(model: Any) -> int:
    """The longest text on which all layers see everything before: beyond a sliding window our mask would show more.

    Raises ValueError for a model that declares no such length, such as one with ALiBi or one that is no transformer.
    """
    config = model.config
    found = getattr(config, "max_position_embeddings", None)
    if not isinstance(found, int):
        raise ValueError(
            f"a {type(model).__name__} does not say how long a text it reads (max_position_embeddings); choose "
            "another model, such as a Llama"
        )
    kinds = set(getattr(config, "layer_types", None) or ["sliding_attention"])
    slides = getattr(config, "use_sliding_window", True) and kinds != {"full_attention"}
    windows = [getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size") if slides]
    return min([found, *(window for window in windows if window)])


def _without_dropout(model: Any) -> Any:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name in ("attention_dropout", "dropout", "activation_dropout"):  # given to functions, not to modules
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    return model


def _config(source: str) -> Any:
    try:
        return AutoConfig.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"data.llm: no language model {source!r} here; give the folder that holds its config.json and weights, "
            "a .gguf file, or fetch it into the Hugging Face cache first (runs never download)"
        ) from error


def _unpacked(path: Path, folder: Path) -> Path:
    """The folder with what a GGUF file holds, de-quantised, as transformers saves it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if not folder.is_dir():
            given: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
            partial = folder.with_name(f".{folder.name}.partial")
            AutoTokenizer.from_pretrained(path.parent, **given).save_pretrained(partial)
            found = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **given)
            _plain(found).save_pretrained(partial)
            partial.rename(folder)
    return folder


def _plain(model: Any) -> Any:
    """The same tensors in a model that does not count as quantised, which transformers would not save."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config)
    made.load_state_dict(model.state_dict(), assign=True)
    made.tie_weights()
    return made
