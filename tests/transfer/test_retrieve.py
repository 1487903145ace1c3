"""Retrieval transfer: two towers, the state at EOS, several test splits with one head."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transfer_helpers import constant_encoder, encoder, features, split, task, train, vision

from transfer.features import FeatureSplit, extract
from transfer.stream import FeatureStream, pad


def test_text_is_read_at_the_last_real_token_whatever_follows(tmp_path):
    the_task = task("retrieve")
    head = the_task.head(features(tmp_path), 0)
    short, long = [2, 5, 6, 2], [2, 7, 8, 9, 10, 11, 2]
    ids, mask = pad([short, long], fill=1)
    together = head.embed_texts(ids, mask)
    alone = head.embed_texts(*pad([short], fill=1))
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    ids[0, 4:] = 33  # whatever stands in the padding
    torch.testing.assert_close(head.embed_texts(ids, mask), together, rtol=1e-4, atol=1e-5)
    ids[0, 3] = 34  # EOS itself
    assert not torch.allclose(head.embed_texts(ids, mask)[0], together[0], atol=1e-3)


def test_loss_of_equal_embeddings_is_ln_b(tmp_path):
    data, the_task = extract(constant_encoder(), split(12), tmp_path), task("retrieve", batch=12)
    head, batch = the_task.head(data, 0), FeatureStream(data, the_task.config, 0, the_task.text).batch(0)
    same = replace(batch, ids=batch.ids[:1].expand(12, -1), mask=batch.mask[:1].expand(12, -1))
    assert head(same).terms["contrast"].mean().item() == pytest.approx(np.log(12), abs=1e-4)
    assert head(same).watch["con_n"] == 12


def test_temperature_starts_at_the_published_value_and_stays_in_range(tmp_path):
    head = task("retrieve").head(features(tmp_path), 0)
    assert head.temperature.scale().item() == pytest.approx(1 / 0.07)
    with torch.no_grad():
        head.temperature.log_scale.fill_(9.0)
    head.after_step()
    assert head.temperature.scale().item() == pytest.approx(100)


def test_one_head_is_scored_on_several_splits_with_all_captions(tmp_path):
    of, the_task = encoder(), task("retrieve", batch=6, epochs=4.0)
    head = the_task.head(features(tmp_path, of), 0)
    for name, captions in (("coco/test", [5, 5, 6, 7]), ("flickr30k/test", [2, 1, 1, 3, 1])):
        test = extract(of, split(len(captions), name=name, captions=captions), tmp_path)
        found = the_task.evaluate(head, test)
        assert set(found.metrics) == {"tr1", "tr5", "tr10", "ir1", "ir5", "ir10"}
        assert found.extras["n_captions"] == sum(captions) and found.extras["n_images"] == len(captions)
        assert found.extras["chance_tr1"] == pytest.approx(100 / len(captions))
        assert found.extras["chance_ir1"] == pytest.approx(100 / len(captions))
        ids = [item["item_id"] for item in found.items]
        assert len(set(ids)) == len(ids) == len(captions) + sum(captions)
        for way in ("tr1", "ir10"):
            scores = [item[way] for item in found.items if way in item]
            assert np.mean(scores) == pytest.approx(found.metrics[way])


def test_training_raises_recall_above_chance(tmp_path):
    of, the_task = encoder(), task("retrieve", batch=12, epochs=40.0)
    data = features(tmp_path, of, images=24)
    head = the_task.head(data, 0)
    before = the_task.evaluate(head, data).metrics["ir5"]
    losses = train(head, FeatureStream(data, the_task.config, 0, the_task.text), the_task.config, of.module, steps=60)
    after = the_task.evaluate(head, data).metrics
    assert losses[-1] < losses[0] - 0.3
    assert after["ir5"] > max(40, before)  # eight images share a colour: 5 of 8 at best


def test_constant_features_are_at_chance_after_training(tmp_path):
    data, the_task = extract(constant_encoder(), split(12), tmp_path), task("retrieve", batch=6, epochs=4.0)
    head = the_task.head(data, 0)
    train(head, FeatureStream(data, the_task.config, 0, the_task.text), the_task.config, vision(), steps=4)
    found = the_task.evaluate(head, data)
    assert found.metrics["ir1"] == pytest.approx(100 / 12) and found.metrics["ir5"] == pytest.approx(500 / 12)
    assert found.metrics["tr1"] <= 100 * 4 / 12  # colours repeat, so one caption text belongs to four images


def test_embeddings_that_are_not_finite_abort(tmp_path):
    data, the_task = features(tmp_path), task("retrieve")
    head = the_task.head(data, 0)
    with torch.no_grad():
        head.proj.bias[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        the_task.evaluate(head, data)


def test_splits_without_captions_are_refused(tmp_path):
    data, the_task = features(tmp_path), task("retrieve")
    without = FeatureSplit(replace(data.split, captions=None), data.features)
    with pytest.raises(ValueError, match="captions of 0"):
        the_task.evaluate(the_task.head(data, 0), without)
