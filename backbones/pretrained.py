"""A pretrained OPT as our LanguageModel, from a local folder or from the local Hugging Face cache; never downloaded.

Source: facebook/opt-125m, -1.3b, ... in the layout of huggingface/transformers. The transfer tasks of the paper start
from a pretrained language model (LCL paper A.2); which one is a setting, equal for all rows of a table.
"""

from typing import Any, get_args

import torch
from transformers import AutoConfig, OPTConfig, OPTForCausalLM
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, WEIGHTS_INDEX_NAME, WEIGHTS_NAME
from transformers.utils.hub import cached_file

from backbones.lm import LanguageModel
from backbones.sizes import Activation, LanguageSize

_WEIGHTS = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
_FETCH = (
    "give the folder that holds its config.json and weights, or fetch it into the Hugging Face cache first with "
    "`hf download` (runs never download)"
)


def read_whole(kind: Any, source: str) -> Any:
    """A model of transformers in fp32 on CPU.

    Raises ValueError where files lack a weight or have one of another shape: transformers starts it at random.
    """
    model, info = kind.from_pretrained(
        source, local_files_only=True, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True
    )
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ValueError(
            f"the weights of {source!r} are not those of its config.json: missing {sorted(info['missing_keys'])[:4]}, "
            f"of another shape {[each[0] for each in info['mismatched_keys']][:4]}; copy the whole folder again"
        )
    return model


def load_opt(source: str) -> LanguageModel:
    """The model in that folder, or of that name in the local cache, in fp32 on CPU.

    Raises ValueError as `check_opt` and `read_whole`.
    """
    config = check_opt(source)
    size = LanguageSize(
        name=source,
        width=config.hidden_size,
        depth=config.num_hidden_layers,
        heads=config.num_attention_heads,
        ffn=config.ffn_dim,
        positions=config.max_position_embeddings,
        vocab_size=config.vocab_size,
        activation=config.activation_function,
        final_norm=not config._remove_final_layer_norm,
    )
    loaded = read_whole(OPTForCausalLM, source)
    language = LanguageModel(size, config.vocab_size)
    language.decoder.load_state_dict(loaded.model.decoder.state_dict())
    return language


def check_opt(source: str) -> OPTConfig:
    """What a model is, without a look into its weights.

    Raises ValueError where its files are not there, the model is no OPT, or it is an OPT variant this decoder does not
    have (a projected embedding, LayerNorm after the blocks: opt-350m; another activation than ReLU or GELU; a head of
    its own).
    """
    try:
        config = AutoConfig.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ValueError(f"no language model {source!r} here; {_FETCH}") from error
    if not isinstance(config, OPTConfig):
        raise ValueError(f"{source!r} is a {config.model_type}; the transfer tasks read with OPT models")
    if config.word_embed_proj_dim != config.hidden_size or not config.do_layer_norm_before:
        raise ValueError(
            f"{source!r} projects its embeddings or normalises after its blocks, as opt-350m; use another OPT"
        )
    if not (config.tie_word_embeddings and config.enable_bias and config.layer_norm_elementwise_affine):
        raise ValueError(
            f"{source!r} has a head of its own, or no biases or norm weights, which no published OPT has and this "
            "decoder does not read; use another OPT"
        )
    if config.activation_function not in get_args(Activation):
        raise ValueError(
            f"{source!r} has the activation {config.activation_function!r}; this decoder has "
            f"{' and '.join(get_args(Activation))}, use another OPT"
        )
    if not any(_held(source, name) for name in _WEIGHTS):
        raise ValueError(f"no weights of the language model {source!r} here; {_FETCH}")
    return config


def _held(source: str, name: str) -> bool:
    """Whether a file of a model is in its folder, or in the local cache."""
    try:
        return cached_file(source, name, local_files_only=True) is not None
    except OSError:
        return False
