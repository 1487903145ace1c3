"""CLIP against open_clip, closed forms, and LCL."""

import math

import pytest
import torch
from helpers import IMAGE, SPECIAL, Doc, batch_for, build, gradients, norm, pairs, share_weights, with_images
from open_clip.loss import ClipLoss
from slow import causally, slow_language, slow_norm
from torch.nn import functional as F

from data.batch import Layout
from objectives.functional import total


def test_inv_clip_1_equals_open_clip_with_gradients() -> None:
    clip = build("clip")
    batch = batch_for(clip, pairs(7))
    v = F.normalize(clip.connector(clip.encode(batch.images)).pooled, dim=-1)
    t = F.normalize(clip.context(batch), dim=-1)
    theirs = ClipLoss()(v, t, clip.temperature.scale())
    ours = total(clip(batch))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    expected = gradients(clip, theirs)
    for name, grad in gradients(clip, ours).items():
        torch.testing.assert_close(grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_inv_clip_2_closed_forms() -> None:
    clip = build("clip")
    batch = batch_for(clip, pairs(8))
    clip.temperature.log_scale.data.fill_(math.log(100))
    term, watch = clip.contrast(batch, torch.eye(8, 128), torch.eye(8, 128))
    assert term.mean() < 1e-6 and watch["con_acc"] == 1
    twins = [Doc(f"twin-{i}", (IMAGE, (5, 9, 7))) for i in range(8)]
    batch = batch_for(clip, twins)
    batch = with_images(batch, batch.images[:1].expand(8, -1, -1, -1))
    losses = clip(batch)
    assert total(losses).item() == pytest.approx(math.log(8), abs=1e-5)
    assert losses.watch["same_caption"] == 1


def test_inv_clip_3_images_and_texts_play_the_same_part() -> None:
    clip = build("clip")
    batch = batch_for(clip, pairs(6))
    v, t = torch.randn(6, 128), torch.randn(6, 128)
    there, back = clip.contrast(batch, v, t)[0].sum, clip.contrast(batch, t, v)[0].sum
    torch.testing.assert_close(there, back, atol=1e-5, rtol=0)


def test_inv_clip_4_gradient_is_orthogonal_and_one_pair_teaches_nothing() -> None:
    clip = build("clip")
    batch = batch_for(clip, pairs(6))
    pooled = clip.connector(clip.encode(batch.images)).pooled.detach().requires_grad_()
    clip.contrast(batch, pooled, clip.context(batch))[0].sum.backward()
    assert pooled.grad.norm(dim=1).min() > 1e-3
    assert (pooled.grad * pooled).sum(dim=1).abs().max() < 1e-5
    alone = clip(batch_for(clip, pairs(1)))
    assert total(alone) == 0 and alone.watch["con_n"] == 1
    assert norm(gradients(clip, total(alone)), "") == 0


def test_inv_clip_5_is_the_contrast_of_lcl_on_text_first_pairs() -> None:
    clip, lcl = build("clip"), build("lcl", seed=1, contrast_weight=1.0, generate_weight=0.0, layout="text_first")
    share_weights(clip, lcl)
    batch = batch_for(clip, pairs(6), [Layout.TEXT_ONLY, Layout.TEXT_FIRST])
    ours, theirs = total(clip(batch)), total(lcl(batch))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    expected = gradients(lcl, theirs)
    for name, grad in gradients(clip, ours).items():
        torch.testing.assert_close(grad, expected[name], atol=1e-5, rtol=1e-4, msg=name)


def test_the_context_written_out() -> None:
    clip, docs = build("clip"), pairs(3)
    context, words = clip.context(batch_for(clip, docs)), clip.language.decoder.embed_tokens.weight
    for row, doc in enumerate(docs):
        x = words[[SPECIAL.bos, *doc.text, SPECIAL.boi]]
        at_boi = slow_language(clip.language, x, range(len(x)), causally)[-1]
        expected = clip.readout.proj.weight @ slow_norm(clip.readout.norm, at_boi)
        torch.testing.assert_close(context[row], expected, atol=1e-5, rtol=0)


def test_inv_t_1_temperature_stays_in_its_range() -> None:
    clip = build("clip")
    for value, kept in ((9.0, math.log(100)), (-1.0, 0.0), (2.0, 2.0)):
        clip.temperature.log_scale.data.fill_(value)
        clip.after_step()
        assert clip.temperature.log_scale.item() == pytest.approx(kept)


def test_context_is_read_after_the_whole_caption_and_before_the_image() -> None:
    clip = build("clip")
    batch = batch_for(clip, pairs(2))
    context = clip.context(batch)
    assert torch.equal(context, clip.context(with_images(batch, batch.images + 1)))
    rows = batch[Layout.TEXT_ONLY]
    last = rows.input_ids.clone()
    last[0, rows.img_boi[0] - 1] += 1
    rows.input_ids.copy_(last)
    changed = clip.context(batch)
    assert not torch.equal(context[0], changed[0]) and torch.equal(context[1], changed[1])


def test_empty_caption_is_neither_positive_nor_negative() -> None:
    clip = build("clip")
    docs = pairs(5)
    with_empty = clip(batch_for(clip, [*docs[:2], Doc("empty", (IMAGE, ())), *docs[2:]]))
    without = clip(batch_for(clip, docs))
    assert with_empty.watch["con_n"] == 5
    torch.testing.assert_close(total(with_empty), total(without), atol=1e-5, rtol=0)


def test_an_image_can_be_contrasted_by_the_mean_of_its_tokens() -> None:
    attention, mean = build("clip"), build("clip", image_pool="mean")
    share_weights(attention, mean)
    batch = batch_for(mean, pairs(5))
    assert total(mean(batch)) != total(attention(batch))
    attention.connector.to_query.weight.data.zero_()  # its pool attends evenly: one head's mean of values is Z's mean
    torch.testing.assert_close(total(mean(batch)), total(attention(batch)), atol=1e-5, rtol=0)
    grads = gradients(mean, total(mean(batch)))
    assert norm(grads, "connector.query", "connector.to_query", "connector.to_key") == 0
    assert norm(grads, "connector.to_tokens") > 0


def test_targets_of_the_contrast_can_be_smoothed() -> None:
    sharp, smooth = build("clip"), build("clip", label_smoothing=0.1)
    share_weights(sharp, smooth)
    batch = batch_for(sharp, pairs(5))
    v = F.normalize(sharp.pool(sharp.connector(sharp.encode(batch.images))), dim=-1)
    logits = sharp.temperature.scale() * v @ F.normalize(sharp.context(batch), dim=-1).T
    expected = sum(F.cross_entropy(x, torch.arange(5), label_smoothing=0.1) for x in (logits, logits.T)) / 2
    torch.testing.assert_close(total(smooth(batch)), expected)
    with pytest.raises(ValueError, match=r"in \[0, 1\), got 1.0"):
        build("clip", label_smoothing=1.0)
    with pytest.raises(ValueError, match="label_smoothing=0.1.*mask_same_caption"):
        build("clip", label_smoothing=0.1, mask_same_caption=True)


def test_twin_captions_can_be_masked() -> None:
    plain, masked = build("clip"), build("clip", mask_same_caption=True)
    share_weights(plain, masked)
    docs = [Doc("one", (IMAGE, (5, 6))), Doc("two", (IMAGE, (5, 6))), Doc("three", (IMAGE, (7, 8)))]
    batch = batch_for(plain, docs)
    assert total(masked(batch)) < total(plain(batch))
    assert total(masked(batch_for(masked, docs[:2]))) == 0  # only twins: nothing to be told from
    assert masked(batch).watch["same_caption"].item() == pytest.approx(2 / 6)


def test_twin_captions_stay_negatives_and_their_share_is_watched() -> None:
    clip = build("clip")
    docs = [Doc("one", (IMAGE, (5, 6))), Doc("two", (IMAGE, (5, 6))), Doc("three", (IMAGE, (7, 8)))]
    losses = clip(batch_for(clip, docs))
    assert losses.watch["con_n"] == 3
    assert losses.watch["same_caption"].item() == pytest.approx(2 / 6)
    assert total(losses) > math.log(2) / 3 / 2 * 0.9  # of two equal texts at most one can be told
