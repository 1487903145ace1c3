"""LCL against CLIP, open_clip, a loop over targets, and in its degenerate cases."""

import math

import pytest
import torch
from helpers import (
    IMAGE,
    SPECIAL,
    VOCABULARY,
    Doc,
    batch_for,
    build,
    documents,
    gradients,
    norm,
    packed,
    pairs,
    share_weights,
    with_images,
)
from open_clip.loss import ClipLoss
from slow import causally, slow_language, slow_norm
from torch import Tensor
from torch.nn import functional as F

from backbones.heads import Connector
from backbones.masks import causal
from data.batch import Batch, Layout, TokenType
from objectives.base import Objective
from objectives.functional import total

INTERLEAVED = Layout.INTERLEAVED


def states(lcl: Objective, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [b, t, d], pooled images [m, d] and contexts [m, d] before normalisation."""
    rows = batch[Layout(lcl.config.layout)]
    visual = lcl.connector(lcl.encode(batch.images))
    hidden = lcl.language(lcl.embed(rows, visual.tokens), causal(rows.attn_mask), rows.position_ids)
    return hidden, visual.pooled, lcl.readout(lcl.at_boi(hidden, rows))


def on_pairs(name: str, **options: float | str) -> Objective:
    return build("lcl", layout=name, **options)


def test_paper_weights_and_layouts() -> None:
    lcl = build("lcl")
    assert lcl(batch_for(lcl, documents())).weights == {"contrast": 0.1, "generate": 1.0}
    assert type(lcl).layouts_for(lcl.config) == type(lcl).layouts == (INTERLEAVED,)
    assert type(lcl).layouts_for(on_pairs("random_order").config) == (Layout.RANDOM_ORDER,)


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        build("lcl", contrast_weight=-0.1)


def test_inv_lcl_1_contrast_on_text_first_pairs_is_clip() -> None:
    clip, lcl = build("clip"), on_pairs("random_order", contrast_weight=1.0, generate_weight=0.0)
    share_weights(clip, lcl)
    docs = pairs(6, text_first=True)
    ours, theirs = total(lcl(batch_for(lcl, docs))), total(clip(batch_for(clip, docs)))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_inv_lcl_2_both_orders_of_the_pairs_sum_to_coca() -> None:
    coca, contrast, generate = build("coca"), on_pairs("text_first"), on_pairs("image_first", gen_on_boi="never")
    share_weights(coca, contrast)
    share_weights(coca, generate)
    batch = batch_for(coca, pairs(5), [*coca.layouts, Layout.TEXT_FIRST])
    expected = contrast(batch).terms["contrast"].mean() + 2 * generate(batch).terms["generate"].mean()
    torch.testing.assert_close(total(coca(batch)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("changed", range(6))
def test_inv_lcl_3_no_leak(changed: int) -> None:
    lcl = build("lcl")
    batch = batch_for(lcl, documents())
    rows = batch[INTERLEAVED]
    images = batch.images.clone()
    images[changed] = torch.randn(images.shape[1:])
    before, after = states(lcl, batch)[2], states(lcl, with_images(batch, images))[2]
    later = (rows.img_row == rows.img_row[changed]) & (rows.img_boi > rows.img_boi[changed])
    assert ((before != after).any(dim=1) == later).all()


def test_inv_lcl_4_target_counts() -> None:
    docs = pairs(4, lengths=(3, 5, 4, 6)), pairs(4, lengths=(3, 5, 4, 6), text_first=True)
    lcl = on_pairs("random_order")
    for each in docs:
        counts = [lcl(batch_for(lcl, [doc])).terms["generate"].count for doc in each]
        assert counts == [4, 6, 5, 7]  # T text tokens and EOS, or T text tokens and <BoI>
    lcl = build("lcl")
    types = batch_for(lcl, documents())[INTERLEAVED]
    text, ends = (int((types.token_type == kind).sum()) for kind in (TokenType.TEXT, TokenType.EOS))
    assert (text, ends, int(types.img_has_ctx.sum())) == (24, 4, 5)
    assert lcl(batch_for(lcl, documents())).terms["generate"].count == 24 + 4 + 5


@pytest.mark.parametrize(("rule", "opened"), [("with_context", 5), ("always", 6), ("never", 0)])
def test_when_an_image_is_announced_is_an_option(rule: str, opened: int) -> None:
    lcl = build("lcl", gen_on_boi=rule)
    assert lcl(batch_for(lcl, documents())).terms["generate"].count == 24 + 4 + opened


def test_inv_lcl_5_gradients_by_order() -> None:
    for layout, silent, speaking in (("text_first", "generate", "contrast"), ("image_first", "contrast", "generate")):
        lcl = on_pairs(layout)
        terms = lcl(batch_for(lcl, pairs(3))).terms
        assert norm(gradients(lcl, terms[speaking].sum), "vision.") > 1e-3
        assert norm(gradients(lcl, terms[silent].sum), "vision.") == 0


def test_inv_lcl_6_equals_open_clip_and_a_loop_over_targets() -> None:
    lcl = build("lcl")
    batch = batch_for(lcl, documents())
    rows, losses = batch[INTERLEAVED], lcl(batch)
    hidden, pooled, context = states(lcl, batch)
    v, t = (F.normalize(x[rows.img_has_ctx], dim=-1) for x in (pooled, context))
    expected = ClipLoss()(v, t, lcl.temperature.scale())
    torch.testing.assert_close(losses.terms["contrast"].mean(), expected.detach(), atol=1e-5, rtol=0)
    places = zip(rows.img_row.tolist(), rows.img_boi.tolist(), strict=True)
    has_context = dict(zip(places, rows.img_has_ctx.tolist(), strict=True))
    embedding = lcl.language.decoder.embed_tokens.weight
    nll, text_nll = [], []
    for b in range(len(rows.input_ids)):
        for q in range(rows.input_ids.shape[1] - 1):
            kind = TokenType(int(rows.token_type[b, q + 1]))
            is_text = kind in (TokenType.TEXT, TokenType.EOS)
            if is_text or (kind is TokenType.BOI and has_context[b, q + 1]):
                loss = -(embedding @ hidden[b, q]).log_softmax(dim=0)[rows.input_ids[b, q + 1]]
                nll.append(loss)
                text_nll += [loss] if is_text else []
    assert len(nll) == losses.terms["generate"].count
    torch.testing.assert_close(losses.terms["generate"].mean(), torch.stack(nll).mean().detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(losses.watch["text_nll"], torch.stack(text_nll).mean().detach(), atol=1e-5, rtol=0)
    both = 0.1 * expected + torch.stack(nll).mean()
    theirs = gradients(lcl, both)
    for name, grad in gradients(lcl, total(losses)).items():
        torch.testing.assert_close(grad, theirs[name], atol=1e-5, rtol=1e-4, msg=name)


def test_words_can_be_written_by_a_head_of_its_own() -> None:
    tied, own = build("lcl"), build("lcl", head="own")
    share_weights(tied, own)
    assert set(own.state_dict()) - set(tied.state_dict()) == {
        "own_head.0.weight", "own_head.0.bias", "own_head.1.weight",
    }  # fmt: skip
    assert own.own_head[1].weight.shape == (VOCABULARY, 128)
    torch.nn.init.normal_(own.own_head[0].weight)
    batch = batch_for(own, documents())
    rows, hidden = batch[INTERLEAVED], states(own, batch)[0]
    norm_of, linear = own.own_head
    log_p = (slow_norm(norm_of, hidden) @ linear.weight.T).log_softmax(dim=-1)
    opened = torch.zeros_like(rows.attn_mask)
    opened[rows.img_row, rows.img_boi] = rows.img_has_ctx
    wanted = (rows.token_type == TokenType.TEXT) | (rows.token_type == TokenType.EOS) | opened
    by_hand = -sum(log_p[b, q - 1, rows.input_ids[b, q]] for b, q in wanted.nonzero().tolist())
    term = own(batch).terms["generate"]
    torch.testing.assert_close(term.sum, by_hand)
    assert torch.equal(own(batch).terms["contrast"].sum, tied(batch).terms["contrast"].sum)
    grads = gradients(own, term.sum)
    assert norm(grads, "own_head.") > 0


def test_inv_lcl_7_image_first_documents_change_generation_only() -> None:
    lcl = build("lcl")
    more = [*documents(), *pairs(3)]
    few, many = lcl(batch_for(lcl, documents())), lcl(batch_for(lcl, more))
    torch.testing.assert_close(few.terms["contrast"].sum, many.terms["contrast"].sum, atol=1e-5, rtol=0)
    assert (few.terms["generate"].mean() - many.terms["generate"].mean()).abs() > 1e-4
    mixed = lcl(batch_for(lcl, [more[i] for i in (5, 3, 0, 6, 2, 4, 1)]))
    for name, term in many.terms.items():
        torch.testing.assert_close(term.sum, mixed.terms[name].sum, atol=1e-4, rtol=1e-6)


def test_inv_lcl_9_loss_at_init_and_the_query_path() -> None:
    lcl = build("lcl")
    losses = lcl(batch_for(lcl, documents(copies=16)))
    n = losses.watch["con_n"].item()
    assert n == 80
    assert math.log(n) - 0.2 <= losses.terms["contrast"].mean() <= math.log(n) + 0.6
    assert math.log(VOCABULARY) - 0.1 <= losses.terms["generate"].mean() <= math.log(VOCABULARY) + 0.3
    lcl = build("lcl", contrast_weight=0.0)
    grads = gradients(lcl, total(lcl(batch_for(lcl, documents()))))
    assert norm(grads, "connector.query", "connector.to_query", "connector.norm_query", "connector.to_key") == 0
    assert norm(grads, "connector.to_tokens.to_value") > 0


def test_inv_t_1_temperature_stays_in_its_range() -> None:
    lcl = build("lcl")
    for value, kept in ((9.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)):
        lcl.temperature.log_scale.data.fill_(value)
        lcl.after_step()
        assert lcl.temperature.log_scale.item() == pytest.approx(kept)


def test_states_are_those_of_the_language_model_written_out() -> None:
    lcl, docs = build("lcl"), documents()[:2]
    batch = batch_for(lcl, docs)
    tokens = lcl.connector(lcl.encode(batch.images)).tokens
    hidden, _, context = states(lcl, batch)
    words, image = lcl.language.decoder.embed_tokens.weight, 0
    for row, doc in enumerate(docs):
        parts, opened = [words[[SPECIAL.bos]]], []
        for segment in doc.segments:
            if segment is IMAGE:
                opened.append((image, sum(map(len, parts))))
                parts += [words[[SPECIAL.boi]], tokens[image], words[[SPECIAL.eoi]]]
                image += 1
            else:
                parts.append(words[list(segment)])
        x = torch.cat([*parts, words[[SPECIAL.eos]]])
        expected = slow_language(lcl.language, x, range(len(x)), causally)
        torch.testing.assert_close(hidden[row, : len(x)], expected, atol=1e-5, rtol=0)
        for number, boi in opened:
            read = lcl.readout.proj.weight @ slow_norm(lcl.readout.norm, expected[boi])
            torch.testing.assert_close(context[number], read, atol=1e-5, rtol=0)


def test_inv_lcl_10_uniform_attention_pools_the_mean_token() -> None:
    connector = Connector(32, 48)  # narrower than two heads of 64
    connector.to_query.weight.data.zero_()
    visual = connector(torch.randn(3, 9, 32))
    torch.testing.assert_close(visual.pooled, visual.tokens.mean(dim=1), atol=1e-5, rtol=0)


# Degenerate cases


def test_leading_images_are_left_out_of_the_contrast() -> None:
    lcl = build("lcl")
    several = Doc("several", (IMAGE, IMAGE, IMAGE, (5, 6)))
    losses = lcl(batch_for(lcl, [several]))
    assert losses.watch["con_n"] == 2  # the second and third have images as context
    assert losses.watch["skipped_images"].item() == pytest.approx(1 / 3)


@pytest.mark.parametrize(("rule", "used"), [("content", 5), ("index0", 6), ("never", 6)])
def test_which_leading_images_are_skipped_is_an_option(rule: str, used: int) -> None:
    lcl = build("lcl", skip_rule=rule)
    assert lcl(batch_for(lcl, documents())).watch["con_n"] == used


def test_without_a_skip_rule_leading_images_share_one_context() -> None:
    lcl = build("lcl", skip_rule="never")
    docs = [Doc(f"leading-{i}", (IMAGE, (5 + i,))) for i in range(4)]
    batch = batch_for(lcl, docs)
    context = states(lcl, batch)[2]
    torch.testing.assert_close(context, context[:1].expand_as(context), atol=1e-5, rtol=0)
    assert lcl(batch).terms["contrast"].mean() >= math.log(4) - 1e-3  # false negatives: the floor is ln 4


def test_batch_of_leading_images_has_generation_only() -> None:
    lcl = build("lcl")
    losses = lcl(batch_for(lcl, pairs(3)))
    assert losses.terms["contrast"].sum == losses.terms["contrast"].count == 0
    assert losses.watch["skipped_images"] == 1
    assert total(losses).item() == pytest.approx(losses.terms["generate"].mean().item(), rel=1e-6)


def test_text_alone_trains_no_encoder() -> None:
    lcl = build("lcl")
    losses = lcl(batch_for(lcl, [documents()[2], Doc("words", ((7, 8, 9),))]))
    assert losses.terms["generate"].count == 8 + 3 + 2 and losses.terms["contrast"].count == 0
    grads = gradients(lcl, total(losses))
    assert norm(grads, "vision.", "connector.", "readout.", "temperature.") == 0
    assert norm(grads, "language.") > 0


def test_one_image_with_context_has_nothing_to_be_told_from() -> None:
    lcl = build("lcl")
    losses = lcl(batch_for(lcl, pairs(1, text_first=True)))
    assert losses.watch["con_n"] == 1 and losses.terms["contrast"].sum == 0


def test_final_image_without_end_is_contrasted_only() -> None:
    lcl = build("lcl")
    docs = [Doc("cut", ((5, 6, 7), IMAGE), cut=True), Doc("other", ((8, 9), IMAGE), cut=True)]
    losses = lcl(batch_for(lcl, docs))
    assert norm(gradients(lcl, losses.terms["generate"].sum), "vision.") == 0
    assert norm(gradients(lcl, losses.terms["contrast"].sum), "vision.") > 0


def test_images_of_one_document_are_negatives_unless_masked() -> None:
    docs = [Doc("a", ((5,), IMAGE, (6,), IMAGE)), Doc("b", ((7,), IMAGE))]
    plain, masked = build("lcl"), build("lcl", mask_same_document=True)
    share_weights(plain, masked)
    batch = batch_for(plain, docs)
    assert plain(batch).watch["same_document"].item() == pytest.approx(2 / 6)
    assert masked(batch).terms["contrast"].sum < plain(batch).terms["contrast"].sum
    alone = batch_for(plain, docs[:1])
    assert masked(alone).terms["contrast"].sum == 0 and plain(alone).terms["contrast"].sum > 0


def test_documents_of_one_row_are_told_apart() -> None:
    """A window of OBELICS holds several: the first images of two are negatives of each other, masked or not."""
    docs = [Doc("a", ((5,), IMAGE, (6,), IMAGE)), Doc("b", ((7,), IMAGE))]
    plain, masked = build("lcl"), build("lcl", mask_same_document=True)
    share_weights(plain, masked)
    window = packed(docs, Layout.INTERLEAVED, 16)
    assert plain(window).watch["same_document"].item() == pytest.approx(2 / 6)
    assert 0 < masked(window).terms["contrast"].sum < plain(window).terms["contrast"].sum


def test_random_order_gives_each_pair_one_cross_modal_signal() -> None:
    lcl = on_pairs("random_order")
    docs = [*pairs(3, text_first=True), *pairs(2, start=3)]
    losses = lcl(batch_for(lcl, docs))
    assert losses.watch["con_n"] == 3
    assert losses.watch["skipped_images"].item() == pytest.approx(2 / 5)
