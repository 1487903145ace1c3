"""CoCa against LCL, open_clip's CoCaLoss and closed forms."""

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
    gradients,
    norm,
    pairs,
    share_weights,
    with_images,
)
from open_clip.loss import CoCaLoss
from slow import causally, slow_language
from torch.nn import functional as F

from backbones.masks import causal
from data.batch import Batch, Layout, TokenType
from objectives.base import Objective
from objectives.functional import total

QUERY_PATH = ("connector.query", "connector.to_query", "connector.to_key", "connector.norm_query", "connector.norm_key")


def caption_logits(coca: Objective, batch: Batch) -> torch.Tensor:
    """Logits [b, t, v] of pass 2 at every position."""
    rows = batch[Layout.IMAGE_FIRST]
    tokens = coca.connector(coca.encode(batch.images)).tokens
    hidden = coca.language(coca.embed(rows, tokens), causal(rows.attn_mask), rows.position_ids)
    return coca.language.logits(hidden.flatten(0, 1)).unflatten(0, hidden.shape[:2])


def test_paper_weights() -> None:
    assert build("coca")(batch_for(build("coca"), pairs(2))).weights == {"contrast": 1.0, "caption": 2.0}
    with pytest.raises(ValueError, match="at least 0"):
        build("coca", caption_weight=-1.0)


def test_inv_coca_1_is_the_sum_of_two_lcl_terms() -> None:
    coca = build("coca")
    contrast = build("lcl", contrast_weight=1.0, generate_weight=0.0, layout="text_first")
    generate = build("lcl", contrast_weight=0.0, layout="image_first", gen_on_boi="never")
    for lcl in (contrast, generate):
        share_weights(coca, lcl)
    batch = batch_for(coca, pairs(5), [*coca.layouts, Layout.TEXT_FIRST])
    ours = total(coca(batch))
    one, two = total(contrast(batch)), total(generate(batch))
    torch.testing.assert_close(ours, one + 2 * two, atol=1e-5, rtol=0)
    first, second = gradients(contrast, one), gradients(generate, two)
    for name, grad in gradients(coca, ours).items():
        torch.testing.assert_close(grad, first[name] + 2 * second[name], atol=1e-5, rtol=1e-4, msg=name)


def test_inv_coca_2_equals_open_clip_with_gradients() -> None:
    coca = build("coca")
    batch = batch_for(coca, pairs(5))
    rows = batch[Layout.IMAGE_FIRST]
    v = F.normalize(coca.connector(coca.encode(batch.images)).pooled, dim=-1)
    t = F.normalize(coca.context(batch), dim=-1)
    target = (rows.token_type == TokenType.TEXT) | (rows.token_type == TokenType.EOS)
    labels = rows.input_ids.masked_fill(~target, SPECIAL.pad)[:, 1:]
    oracle = CoCaLoss(caption_loss_weight=2.0, clip_loss_weight=1.0, pad_id=SPECIAL.pad)
    theirs = sum(oracle(v, t, caption_logits(coca, batch)[:, :-1], labels, coca.temperature.scale()))
    ours = total(coca(batch))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    expected = gradients(coca, theirs)
    for name, grad in gradients(coca, ours).items():
        torch.testing.assert_close(grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_second_pass_written_out() -> None:
    coca, docs = build("coca"), pairs(3)
    batch = batch_for(coca, docs)
    tokens = coca.connector(coca.encode(batch.images)).tokens
    logits, words = caption_logits(coca, batch), coca.language.decoder.embed_tokens.weight
    for row, doc in enumerate(docs):
        before, after = [SPECIAL.bos, SPECIAL.boi], [SPECIAL.eoi, *doc.text, SPECIAL.eos]
        x = torch.cat([words[before], tokens[row], words[after]])
        expected = slow_language(coca.language, x, range(len(x)), causally) @ words.T
        torch.testing.assert_close(logits[row, : len(x)], expected, atol=1e-5, rtol=0)
        nll = -expected.log_softmax(dim=-1)
        by_hand = sum(
            nll[18 + q, token] for q, token in enumerate([*doc.text, SPECIAL.eos])
        )  # from </s> <BoI> 16 <EoI>
        alone = coca(batch_for(coca, [doc])).terms["caption"]
        torch.testing.assert_close(alone.sum, by_hand, atol=1e-4, rtol=0)


def test_smoothing_and_pooling_are_those_of_the_config() -> None:
    plain, other = build("coca"), build("coca", label_smoothing=0.1, image_pool="mean")
    share_weights(plain, other)
    batch = batch_for(plain, pairs(4))
    logits, rows = caption_logits(plain, batch), batch[Layout.IMAGE_FIRST]
    wanted = (rows.token_type == TokenType.TEXT) | (rows.token_type == TokenType.EOS)
    log_p = logits[:, :-1][wanted[:, 1:]].log_softmax(dim=-1)
    of_target = log_p.gather(1, rows.input_ids[wanted][:, None])[:, 0]
    expected = -(0.9 * of_target + 0.1 * log_p.mean(dim=-1)).sum()
    found = other(batch)
    torch.testing.assert_close(found.terms["caption"].sum, expected)
    torch.testing.assert_close(found.watch["text_nll"], plain(batch).watch["text_nll"])  # never smoothed
    clip = build("clip", label_smoothing=0.1, image_pool="mean")
    clip.load_state_dict({name: value for name, value in plain.state_dict().items() if name in clip.state_dict()})
    assert torch.equal(found.terms["contrast"].sum, clip(batch).terms["contrast"].sum)


def test_inv_coca_3_loss_at_init() -> None:
    coca = build("coca")
    losses = coca(batch_for(coca, pairs(64)))
    contrast, caption = (losses.terms[name].mean().item() for name in ("contrast", "caption"))
    assert math.log(64) - 0.2 <= contrast <= math.log(64) + 0.6
    assert math.log(VOCABULARY) - 0.1 <= caption <= math.log(VOCABULARY) + 0.3
    assert total(losses).item() == pytest.approx(contrast + 2 * caption, rel=1e-5)


def test_inv_coca_4_caption_sees_the_image_and_context_does_not() -> None:
    coca = build("coca")
    batch = batch_for(coca, pairs(3))
    images = batch.images.clone()
    images[1] += 1
    other = with_images(batch, images)
    assert torch.equal(coca.context(batch), coca.context(other))
    text = batch[Layout.IMAGE_FIRST].token_type == TokenType.TEXT
    moved = (caption_logits(coca, batch) - caption_logits(coca, other)).abs().amax(dim=-1)
    assert (moved[1][text[1]] > 1e-6).all()
    assert (moved[[0, 2]] == 0).all()


def test_inv_coca_5_captions_alone_train_the_encoder_and_leave_the_pool_alone() -> None:
    coca = build("coca", contrast_weight=0.0)
    grads = gradients(coca, total(coca(batch_for(coca, pairs(4)))))
    assert norm(grads, "vision.") > 1e-3
    assert norm(grads, *QUERY_PATH) == norm(grads, "readout.", "temperature.") == 0


def test_cut_caption_has_no_end_to_predict() -> None:
    coca = build("coca")
    whole, cut = Doc("doc", (IMAGE, (5, 6, 7))), Doc("doc", (IMAGE, (5, 6, 7)), cut=True)
    for doc, targets in ((whole, 4), (cut, 3)):
        assert coca(batch_for(coca, [doc])).terms["caption"].count == targets


def test_empty_caption_keeps_its_end_and_is_not_contrasted() -> None:
    coca = build("coca")
    losses = coca(batch_for(coca, [*pairs(2, lengths=(3, 3)), Doc("empty", (IMAGE, ()))]))
    assert losses.terms["caption"].count == 4 + 4 + 1
    assert losses.terms["contrast"].count == losses.watch["con_n"] == 2


def test_one_pair_has_a_caption_and_no_contrast() -> None:
    losses = (coca := build("coca"))(batch_for(coca, pairs(1)))
    assert losses.terms["contrast"].sum == 0
    assert total(losses).item() == pytest.approx(2 * losses.watch["text_nll"].item(), rel=1e-6)


@pytest.mark.parametrize("name", ["coca", "blip2"])
def test_encoder_runs_once_for_all_passes(name: str) -> None:
    objective, calls = build(name), []
    objective.vision.vit.norm.register_forward_hook(lambda module, inputs, output: calls.append(output.shape[0]))
    objective(batch_for(objective, pairs(4)))
    assert calls == [4]
