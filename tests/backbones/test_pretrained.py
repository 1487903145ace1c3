import pytest
import torch
from transformers import GPT2Config, OPTConfig, OPTForCausalLM

from backbones import masks
from backbones.pretrained import load_opt

SMALL = dict(
    vocab_size=40, hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=32, dropout=0.0,
)  # fmt: skip


def test_a_saved_opt_computes_what_transformers_computes(tmp_path):
    theirs = OPTForCausalLM(OPTConfig(**SMALL)).eval()
    theirs.save_pretrained(tmp_path)
    ours = load_opt(str(tmp_path)).eval()
    ids = torch.randint(4, 40, (3, 9))
    positions = torch.arange(9).expand(3, -1)
    with torch.no_grad():
        states = ours(ours.embed(ids), masks.causal(torch.ones_like(ids, dtype=torch.bool)), positions)
        assert torch.allclose(ours.logits(states.flatten(0, 1)), theirs(ids).logits.flatten(0, 1), atol=1e-5)


def test_a_missing_model_says_what_to_give(tmp_path):
    with pytest.raises(ValueError, match="no language model .*give the folder"):
        load_opt(str(tmp_path / "nowhere"))


def test_other_architectures_are_refused(tmp_path):
    GPT2Config(n_layer=1).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is a gpt2"):
        load_opt(str(tmp_path))


@pytest.mark.parametrize(
    "changed", [{"tie_word_embeddings": False}, {"enable_bias": False}, {"layer_norm_elementwise_affine": False}]
)
def test_an_opt_whose_weights_this_decoder_would_drop_is_refused(tmp_path, changed):
    OPTConfig(**SMALL, **changed).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has a head of its own, or no biases"):
        load_opt(str(tmp_path))


def test_opt_with_projected_embeddings_is_refused(tmp_path):
    OPTConfig(**{**SMALL, "word_embed_proj_dim": 16}).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="projects its embeddings"):
        load_opt(str(tmp_path))
