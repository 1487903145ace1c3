"""A pretrained causal model of transformers behind our interface: its logits, its tokens, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from backbones import masks
from backbones.llm import CausalLM, LlmTokenizer, check_llm, load_llm
from backbones.lm import LanguageModel

END, START = "<|im_end|>", "<|im_start|>"
SHAPE = {"vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 2, "max_position_embeddings": 64}  # fmt: skip


def tokenizer(bos: str | None = START) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=[START, END], show_progress=False
    )
    core.train_from_iterator(["a red square on green"] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token=bos, eos_token=END)


def saved(folder: Path, model: Any) -> str:
    """A model as transformers saves it, no norm the identity."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, mean=0.5)
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


MODELS = {
    "tied": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)),
    "own head": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=False)),
    "learned positions": lambda: GPT2LMHeadModel(GPT2Config(vocab_size=320, n_embd=32, n_layer=2, n_head=2)),
    "opt": lambda: OPTForCausalLM(
        OPTConfig(vocab_size=320, hidden_size=32, word_embed_proj_dim=32, ffn_dim=48, num_hidden_layers=2,
                  num_attention_heads=2, max_position_embeddings=64)
    ),
}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_from_a_folder_gives_its_own_logits_and_padding_changes_nothing(kind: str, tmp_path: Path) -> None:
    theirs = MODELS[kind]().eval()
    found = load_llm(saved(tmp_path / "model", theirs), tmp_path / "kept").language.eval()
    assert isinstance(found, LanguageModel) == (kind == "opt")
    ids = torch.randint(2, 300, (2, 9))
    valid = torch.tensor([[True] * 9, [True] * 6 + [False] * 3])
    positions = torch.arange(9).expand(2, -1)
    logits = found.logits(found(found.embed(ids), masks.causal(valid), positions)[valid])
    expected = torch.cat([theirs(ids[:1]).logits[0], theirs(ids[1:, :6]).logits[0]])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_a_tied_embedding_is_one_parameter_and_trains() -> None:
    model = CausalLM(LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True)))
    embeddings = [name for name, p in model.named_parameters() if p.shape[0] == SHAPE["vocab_size"]]
    assert embeddings == ["decoder.embed_tokens.weight"] and len(model.state_dict()) == len(list(model.parameters()))
    ids = torch.arange(4)[None]
    allowed = masks.causal(torch.ones_like(ids, dtype=torch.bool))
    model.logits(model(model.embed(ids), allowed, ids)[0]).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_model_whose_logits_are_no_linear_map_of_its_states_is_refused() -> None:
    scaled = GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=3.0))
    with pytest.raises(ValueError, match="a GraniteForCausalLM gives other logits"):
        CausalLM(scaled)


def test_text_gives_no_special_token_and_comes_back() -> None:
    found = LlmTokenizer(tokenizer())
    text = f"a red square{END} on green"
    ids = found.encode(text)
    assert found.special.eos not in ids and found.special.bos not in ids
    assert found.decode(ids) == text
    assert found.decode([found.special.bos, *ids, found.special.eos]) == text
    assert LlmTokenizer(tokenizer(bos=None)).special.bos == found.special.eos


def test_what_is_no_causal_model_is_named(tmp_path: Path) -> None:
    CLIPVisionConfig().save_pretrained(tmp_path / "clip")
    for source, message in (
        (tmp_path / "clip", "is a clip_vision_model, which writes no text"),
        (tmp_path / "nowhere", "no language model .* here; give the folder"),
        (tmp_path / "x.gguf", "there is no file"),
    ):
        with pytest.raises(ValueError, match=message):
            check_llm(str(source))
    with pytest.raises(ValueError, match="has no end-of-text token"):
        LlmTokenizer(PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE())))
