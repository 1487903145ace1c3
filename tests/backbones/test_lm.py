"""The language model against transformers' OPT, and the mask invariants INV-LM-1, 2, 3 and 5."""

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache, OPTForCausalLM

from backbones.build import build_language
from backbones.lm import LanguageModel
from backbones.masks import bidirectional, causal, within
from backbones.sizes import OPT_125M, SIZES, LanguageSize, Size


def positions(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1]).expand_as(ids)


def run(language: LanguageModel, ids: Tensor, allowed: Tensor) -> Tensor:
    return language(language.embed(ids), allowed, positions(ids))


def ragged() -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, 64, (3, 9))
    return ids, torch.arange(9) < torch.tensor([9, 6, 1])[:, None]


def test_parameter_count_of_opt_125m() -> None:
    with torch.device("meta"):
        model = LanguageModel(OPT_125M, 50272)
    assert sum(p.numel() for p in model.parameters()) == 125_239_296
    assert SIZES["base16"].language is SIZES["large14"].language is OPT_125M


def test_logits_equal_transformers(language: LanguageModel) -> None:
    ids, valid = ragged()
    theirs = OPTForCausalLM(language.decoder.config).eval()
    theirs.model.decoder.load_state_dict(language.decoder.state_dict())
    expected = theirs(input_ids=ids, attention_mask=valid.long()).logits
    ours = language.logits(run(language, ids, causal(valid))[valid])
    torch.testing.assert_close(ours, expected[valid], atol=1e-5, rtol=0)


def test_the_head_is_the_embedding(language: LanguageModel) -> None:
    weight, y = language.decoder.embed_tokens.weight, torch.randn(2, language.width)
    language.logits(y)[:, 5].sum().backward()
    expected = torch.zeros_like(weight)
    expected[5] = y.sum(dim=0)
    torch.testing.assert_close(weight.grad, expected)


def test_causal_leakage(language: LanguageModel) -> None:  # INV-LM-1
    ids, _ = ragged()
    allowed = causal(torch.ones_like(ids, dtype=torch.bool))
    before = run(language, ids, allowed)
    for q in range(1, 9):
        changed = ids.clone()
        changed[:, q] = (changed[:, q] + 1) % 64
        after = run(language, changed, allowed)
        assert torch.equal(before[:, :q], after[:, :q])
        assert not torch.allclose(before[:, q:], after[:, q:])


def test_what_is_read_in_parts_is_what_is_read_at_once(language: LanguageModel) -> None:
    ids, seen = torch.randint(0, 64, (3, 9)), DynamicCache()
    x, at_once = language.embed(ids), run(language, ids, causal(torch.ones_like(ids, dtype=torch.bool)))
    first, second = language.read_on(x[:, :5], seen), language.read_on(x[:, 5:8], seen)
    rows = torch.tensor([2, 0, 0])  # one row goes on in two ways, one in none
    seen.reorder_cache(rows)
    torch.testing.assert_close(torch.cat([first, second], dim=1), at_once[:, :8], atol=1e-5, rtol=0)
    torch.testing.assert_close(language.read_on(x[rows, 8:], seen), at_once[rows, 8:], atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=f"rows have {language.size.positions + 1} tokens"):
        language.read_on(torch.zeros(3, language.size.positions - 8, language.width), seen)


def test_bidirectional_sees_the_last_token(language: LanguageModel) -> None:  # INV-LM-2
    ids, _ = ragged()
    allowed = bidirectional(torch.ones_like(ids, dtype=torch.bool))
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 64
    assert not torch.equal(run(language, ids, allowed)[:, 0], run(language, changed, allowed)[:, 0])


@pytest.mark.parametrize("kind", [causal, bidirectional])
def test_appended_pads_change_nothing(language: LanguageModel, kind) -> None:  # INV-LM-3
    ids, valid = ragged()
    longer = torch.cat([ids, torch.full((3, 4), 7)], dim=1)
    padded = torch.cat([valid, torch.zeros(3, 4, dtype=torch.bool)], dim=1)
    short, long = run(language, ids, kind(valid)), run(language, longer, kind(padded))
    torch.testing.assert_close(short[valid], long[padded], atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", [causal, bidirectional])
def test_a_row_alone_equals_the_row_in_a_batch(language: LanguageModel, kind) -> None:  # INV-LM-5
    ids, valid = ragged()
    together = run(language, ids, kind(valid))
    for i, length in enumerate((9, 6, 1)):
        alone = run(language, ids[i : i + 1, :length], kind(valid[i : i + 1, :length]))
        torch.testing.assert_close(alone[0], together[i, :length], atol=1e-5, rtol=0)


def test_masks_written_out() -> None:
    valid = torch.tensor([[True, True, True, False]])
    group = torch.tensor([[0, 0, 1, -1]])
    for i in range(4):
        for j in range(4):
            both = i < 3 and j < 3
            assert bidirectional(valid)[0, i, j] == both
            assert causal(valid)[0, i, j] == (both and j <= i)
            assert within(causal(valid), group)[0, i, j] == (both and j <= i and group[0, i] == group[0, j])


def test_documents_of_a_packed_row_do_not_see_each_other(language: LanguageModel) -> None:
    ids = torch.randint(0, 64, (1, 8))
    doc = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]])
    allowed = within(causal(torch.ones_like(ids, dtype=torch.bool)), doc)
    changed = ids.clone()
    changed[0, 2] = (changed[0, 2] + 1) % 64
    assert torch.equal(run(language, ids, allowed)[:, 4:], run(language, changed, allowed)[:, 4:])


@pytest.mark.parametrize("enabled", [False, True])
def test_positions_that_attend_nothing_are_finite(language: LanguageModel, enabled: bool) -> None:
    ids, _ = ragged()
    nothing = torch.zeros(3, 9, 9, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        y = run(language, ids, nothing)
    y.float().sum().backward()
    assert y.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in language.parameters())


def test_masked_keys_get_exactly_nothing_in_bf16(language: LanguageModel) -> None:
    ids, _ = ragged()
    allowed = causal(torch.ones_like(ids, dtype=torch.bool))
    changed = ids.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 64
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(run(language, ids, allowed)[:, :-1], run(language, changed, allowed)[:, :-1])


def test_positions_are_the_given_ones(language: LanguageModel) -> None:
    ids, _ = ragged()
    allowed = bidirectional(torch.ones_like(ids, dtype=torch.bool))
    order = torch.randperm(9)
    plain = language(language.embed(ids), allowed, positions(ids))
    permuted = language(language.embed(ids[:, order]), allowed, positions(ids)[:, order])
    torch.testing.assert_close(plain[:, order], permuted, atol=1e-5, rtol=0)
    assert not torch.allclose(plain, language(language.embed(ids), allowed, positions(ids) + 1))


def test_before_layer_sees_and_replaces_each_layer_s_input(language: LanguageModel) -> None:
    ids, valid = ragged()
    seen = []

    def add(i: int, hidden: Tensor) -> Tensor:
        seen.append(i)
        return hidden + float(i == 1)

    plain = run(language, ids, causal(valid))
    hooked = language(language.embed(ids), causal(valid), positions(ids), add)
    assert seen == [0, 1, 2]
    assert not torch.allclose(plain, hooked)
    same = language(language.embed(ids), causal(valid), positions(ids), lambda i, hidden: hidden)
    assert torch.equal(plain, same)


def test_head_is_tied_and_every_token_learns_from_its_input(language: LanguageModel) -> None:
    ids = torch.arange(64)[None]
    run(language, ids, causal(torch.ones_like(ids, dtype=torch.bool))).square().sum().backward()
    weight = language.decoder.embed_tokens.weight
    assert (weight.grad.abs().sum(dim=1) > 0).all(), "no id may be special to the embedding"
    y = torch.randn(2, 128)
    assert torch.equal(language.logits(y), y @ weight.T)


def test_attention_is_written_out_on_cpu(language: LanguageModel) -> None:
    language.decoder.config._attn_implementation = "sdpa"
    ids, valid = ragged()
    run(language, ids, causal(valid))
    assert {layer.self_attn.config._attn_implementation for layer in language.decoder.layers} == {"eager"}


def test_no_dropout(language: LanguageModel) -> None:
    ids, valid = ragged()
    assert torch.equal(run(language.train(), ids, causal(valid)), run(language.eval(), ids, causal(valid)))


def test_rows_longer_than_the_positions_are_refused(tiny: Size) -> None:
    language = build_language(tiny, 64, 0)
    ids = torch.zeros(1, 257, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"257.*256"):
        run(language, ids, causal(torch.ones_like(ids, dtype=torch.bool)))


def test_another_vocabulary_than_the_declared_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"50272.*50265"):
        build_language(SIZES["base16"], 50265, 0)
    with pytest.raises(ValueError, match="not a multiple"):
        LanguageSize(name="t", width=100, depth=1, heads=3, ffn=8, positions=4)
