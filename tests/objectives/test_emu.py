"""Emu: what is regressed from where, and which gradients flow."""

from dataclasses import replace

import pytest
import torch
from helpers import IMAGE, SPECIAL, Doc, at_tiny, batch, documents, with_images, words
from slow import causally, slow_language
from torch import Tensor, nn

from backbones.causal_former import CausalFormer
from backbones.heads import Visual
from backbones.lm import LanguageModel
from backbones.masks import causal
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout, TokenType
from objectives.emu import Emu
from objectives.functional import total
from objectives.lcl import LCL

K = 8
ROWS = Layout.INTERLEAVED


@pytest.fixture
def emu(vision: VisionEncoder, language: LanguageModel) -> Emu:
    return build(vision, language)


def build(vision: VisionEncoder, language: LanguageModel, **options: object) -> Emu:
    return Emu(replace(at_tiny("objectives", Emu), **options), vision, language, SPECIAL).eval()


def make(docs: list[Doc], slots: int = K) -> Batch:
    return batch(docs, Emu.layouts, slots)


def run(emu: Emu, of: Batch, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """States [b, t, d] and inputs [b, t, d] for given embeddings [m, k, d]."""
    rows = of[ROWS]
    inputs = emu.embed(rows, embeddings)
    return emu.language(inputs, causal(rows.attn_mask), rows.position_ids), inputs


class GivenTokens(nn.Module):
    """Stands where LCL's connector stands and gives Emu's embeddings."""

    def __init__(self, causal_former: CausalFormer) -> None:
        super().__init__()
        self.causal_former = causal_former

    def forward(self, patches: Tensor) -> Visual:
        tokens = self.causal_former(patches)
        return Visual(tokens=tokens, pooled=tokens.mean(1))


def test_states_are_those_of_the_language_model_written_out(emu: Emu, monkeypatch: pytest.MonkeyPatch) -> None:
    docs, held = documents()[:2], []
    of = make(docs)
    emu.language.register_forward_hook(lambda module, inputs, output: held.append(output))
    emu(of)
    embeddings, words, image = emu.causal_former(emu.encode(of.images)), emu.language.decoder.embed_tokens.weight, 0
    for row, doc in enumerate(docs):
        parts = [words[[SPECIAL.bos]]]
        for segment in doc.segments:
            if segment is IMAGE:
                parts += [words[[SPECIAL.boi]], embeddings[image], words[[SPECIAL.eoi]]]
                image += 1
            else:
                parts.append(words[list(segment)])
        x = torch.cat([*parts, words[[SPECIAL.eos]]])
        expected = slow_language(emu.language, x, range(len(x)), causally)
        torch.testing.assert_close(held[0][row, : len(x)], expected, atol=1e-5, rtol=0)


def test_inv_e_1_causal_former_is_causal_in_its_tokens() -> None:
    former = CausalFormer(16, 32, queries=5, depth=2, width=32, heads=2, ffn=64)
    patches = torch.randn(2, 9, 16)
    base = former(patches)
    assert base.shape == (2, 5, 32)
    for k in range(5):
        with torch.no_grad():
            former.queries[k] += 1.0
            changed = (former(patches) != base).any(-1).all(0)
            former.queries[k] -= 1.0
            # Subtracting what was added leaves a rounding error behind: read the base again.
            base = former(patches)
        assert changed.tolist() == [False] * k + [True] * (5 - k)


def test_inv_e_1_every_embedding_reads_every_patch() -> None:
    former = CausalFormer(16, 32, queries=5, depth=2, width=32, heads=2, ffn=64)
    patches = torch.randn(1, 9, 16)
    base = former(patches)
    for p in range(9):
        changed = patches.clone()
        changed[:, p] += torch.randn(16)
        assert (former(changed) != base).any(-1).all()


def test_inv_e_2_targets_get_no_gradient_and_inputs_do(emu: Emu) -> None:
    of = make(documents()[:1])
    embeddings = torch.randn(3, K, emu.language.width, requires_grad=True)
    hidden, inputs = run(emu, of, embeddings)
    emu.regress(hidden.detach(), inputs, of[ROWS]).sum.backward(retain_graph=True)
    assert embeddings.grad is None or (embeddings.grad == 0).all()
    emu.regress(hidden, inputs, of[ROWS]).sum.backward()
    gradient = embeddings.grad.abs().sum(-1)
    # The last slot of all is nobody's context: everything else is read by some later prediction.
    assert gradient.flatten()[-1] == 0
    assert (gradient.flatten()[:-1] > 0).all()


def test_inv_e_2_regression_reaches_the_encoder_through_inputs(emu: Emu) -> None:
    emu(make(documents())).terms["regress"].sum.backward()
    assert any((p.grad != 0).any() for p in emu.vision.parameters())


def test_inv_e_2_one_image_of_one_slot_gives_the_encoder_nothing(
    vision: VisionEncoder, language: LanguageModel
) -> None:
    emu = build(vision, language, queries=1)
    losses = emu(make([Doc("one", (words("o", length=3), IMAGE, words("p", length=2)))], slots=1))
    assert losses.terms["regress"].count == 1
    losses.terms["regress"].sum.backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in vision.parameters())


def test_inv_e_3_zero_head_costs_the_mean_square(emu: Emu) -> None:
    nn.init.zeros_(emu.regression_head.weight)
    of = make(documents())
    embeddings = emu.causal_former(emu.encode(of.images))
    term = emu(of).terms["regress"]
    assert term.count == len(of.images) * K
    torch.testing.assert_close(term.mean(), embeddings.square().mean().detach())


def test_inv_e_3_constant_embeddings_that_are_predicted_cost_nothing(emu: Emu) -> None:
    of = make(documents()[:1])
    constant = torch.randn(emu.language.width)
    embeddings = constant.expand(3, K, -1)
    _, inputs = run(emu, of, embeddings)
    nn.init.eye_(emu.regression_head.weight)  # R Y = e where the states themselves are e
    assert emu.regress(constant.expand_as(inputs), inputs, of[ROWS]).sum == 0


@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_inv_e_4_text_term_is_lcl_generation_on_the_same_tokens(
    vision: VisionEncoder, language: LanguageModel, weight: float
) -> None:
    emu = build(vision, language, regression_weight=weight)
    lcl = LCL(LCL.Config(contrast_weight=0.0, gen_on_boi="never"), vision, language, SPECIAL).eval()
    lcl.connector = GivenTokens(emu.causal_former)
    of = make(documents())
    mine, theirs = emu(of), lcl(of)
    torch.testing.assert_close(mine.terms["generate"].sum, theirs.terms["generate"].sum)
    assert mine.terms["generate"].count == theirs.terms["generate"].count
    assert torch.allclose(total(mine), total(theirs)) == (weight == 0)


def test_inv_e_5_prediction_of_an_embedding_does_not_see_it(emu: Emu) -> None:
    of = make(documents()[:1])
    rows = of[ROWS]
    embeddings = emu.causal_former(emu.encode(of.images)).detach()
    columns = (rows.token_type[0] == TokenType.IMG).nonzero().flatten().tolist()
    base, _ = run(emu, of, embeddings)
    for place in (0, 3, K, 2 * K - 1, 2 * K):
        changed = embeddings.flatten(0, 1).clone()
        changed[place:] += 1
        states, _ = run(emu, of, changed.view_as(embeddings))
        assert torch.equal(states[0, : columns[place]], base[0, : columns[place]])
        assert not torch.equal(states[0, columns[place]], base[0, columns[place]])


def test_each_embedding_is_predicted_from_the_position_before_it(emu: Emu) -> None:
    of = make(documents())
    rows = of[ROWS]
    embeddings = emu.causal_former(emu.encode(of.images))
    hidden, inputs = run(emu, of, embeddings)
    slow = torch.zeros(())
    for m, (row, boi) in enumerate(zip(rows.img_row.tolist(), rows.img_boi.tolist(), strict=True)):
        for k in range(K):  # the state at <BoI> predicts the first
            prediction = emu.regression_head(hidden[row, boi + k])
            slow = slow + (prediction - embeddings[m, k]).square().mean()
    torch.testing.assert_close(emu.regress(hidden, inputs, rows).sum, slow)


def test_sum_over_dimensions_is_the_width_times_the_mean(vision: VisionEncoder, language: LanguageModel) -> None:
    mean, total_ = build(vision, language), build(vision, language, reduction="sum")
    total_.load_state_dict(mean.state_dict())
    of = make(documents())
    torch.testing.assert_close(total_(of).terms["regress"].sum, mean(of).terms["regress"].sum * language.width)


def test_the_gradient_can_flow_into_what_is_regressed(vision: VisionEncoder, language: LanguageModel) -> None:
    of, found = batch([Doc("i", (IMAGE,))], Emu.layouts, 1), {}
    for choice in ("stopped", "flows"):
        emu = build(vision, language, target_gradient=choice, queries=1)
        term = emu(of).terms["regress"]
        grads = torch.autograd.grad(term.sum, list(emu.vision.parameters()), allow_unused=True)
        found[choice] = any(grad is not None and bool((grad != 0).any()) for grad in grads)
    assert found == {"stopped": False, "flows": True}  # of one slot the embedding is a target and nothing else


def test_closing_marker_can_be_regressed_as_well(vision: VisionEncoder, language: LanguageModel) -> None:
    emu = build(vision, language, regressed="slots_and_eoi")
    of = make(documents())
    rows = of[ROWS]
    embeddings = emu.causal_former(emu.encode(of.images))
    hidden, inputs = run(emu, of, embeddings)
    term = emu.regress(hidden, inputs, rows)
    assert term.count == len(of.images) * (K + 1)
    slots_only = build(vision, language)
    slots_only.load_state_dict(emu.state_dict())
    extra = torch.zeros(())
    for row, boi in zip(rows.img_row.tolist(), rows.img_boi.tolist(), strict=True):
        target = language.embed(torch.tensor([[SPECIAL.eoi]]))[0, 0]
        extra = extra + (emu.regression_head(hidden[row, boi + K]) - target).square().mean()
    torch.testing.assert_close(term.sum, slots_only.regress(hidden, inputs, rows).sum + extra)


def test_text_targets_are_text_and_eos(emu: Emu) -> None:
    of = make(documents())
    types = of[ROWS].token_type
    losses = emu(of)
    assert losses.terms["generate"].count == ((types == TokenType.TEXT) | (types == TokenType.EOS)).sum()
    torch.testing.assert_close(losses.watch["text_nll"], losses.terms["generate"].mean())


def test_watch_shows_when_nothing_is_left_to_regress(emu: Emu) -> None:
    of = make(documents())
    embeddings = emu.causal_former(emu.encode(of.images)).detach().flatten(0, 1)
    by_hand = (embeddings - embeddings.mean(0)).square().mean()
    torch.testing.assert_close(emu(of).watch["embedding_variance"], by_hand)
    nn.init.zeros_(emu.causal_former.proj.weight)
    watch = emu(of).watch
    assert watch["embedding_variance"] == 0
    assert not any(value.requires_grad for value in watch.values())


def test_all_text_batch_regresses_nothing_and_stays_connected(emu: Emu) -> None:
    losses = emu(make([Doc("t", (words("t", length=8),))]))
    assert (losses.terms["regress"].sum, losses.terms["regress"].count) == (0, 0)
    total(losses).backward()
    rest = [*emu.vision.parameters(), *emu.causal_former.parameters(), *emu.regression_head.parameters()]
    assert all(p.grad is not None and (p.grad == 0).all() for p in rest)


def test_document_that_starts_with_an_image_keeps_its_regression(emu: Emu) -> None:
    of = make([Doc("i", (IMAGE,))])
    losses = emu(of)
    assert losses.terms["regress"].count == K
    changed = emu(with_images(of, of.images + 1)).terms["regress"].sum
    assert changed != losses.terms["regress"].sum


def test_slots_are_the_queries() -> None:
    assert Emu.slots(Emu.Config(), 196) == 32
    assert Emu.slots(at_tiny("objectives", Emu), 16) == K


def test_wrong_number_of_slots_is_refused(emu: Emu) -> None:
    with pytest.raises(ValueError, match="slots"):
        emu(make(documents(), slots=16))


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="heads must divide width, got heads 5 and width 768"):
        Emu.Config(heads=5)


def test_register_defaults() -> None:
    config = Emu.Config()
    assert (config.queries, config.depth, config.width, config.heads, config.ffn) == (32, 12, 768, 12, 3072)
    assert (config.regression_weight, config.reduction, config.regressed) == (1.0, "mean", "slots")
