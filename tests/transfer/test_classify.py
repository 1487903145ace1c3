"""The attention probe (LCL paper A.2), accuracy, and the standardised twin."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transfer_helpers import constant_encoder, encoder, features, split, task, train, vision

from transfer.classify import Classify, Probe, Standardise
from transfer.features import FeatureSplit, extract
from transfer.pooling import AttentionPool
from transfer.stream import FeatureStream


@pytest.mark.parametrize(("width", "count"), [(768, 3_137_512), (1024, 5_231_592)])
def test_parameter_count_of_the_specification(width, count):
    with torch.device("meta"):
        probe = Probe(width, 1000)
    assert sum(parameter.numel() for parameter in probe.parameters()) == count
    assert probe.pool.heads == width // 64


def randomised(pool: AttentionPool) -> AttentionPool:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.normal_()
    return pool


@pytest.mark.parametrize("tokens", [1, 7])
def test_attention_pool_equals_multi_head_attention(tokens):
    pool, x = randomised(AttentionPool(128)), torch.randn(3, tokens, 128)
    reference = nn.MultiheadAttention(128, 2, batch_first=True)
    with torch.no_grad():
        reference.in_proj_weight.copy_(torch.cat([pool.to_query.weight, pool.to_key.weight, pool.to_value.weight]))
        reference.in_proj_bias.copy_(torch.cat([pool.to_query.bias, torch.zeros(128), pool.to_value.bias]))
        reference.out_proj.load_state_dict(pool.to_output.state_dict())
        query = pool.norm_query(pool.query).expand(3, -1, -1)
        expected, _ = reference(query, pool.norm_key(x), pool.norm_value(x))
        torch.testing.assert_close(pool(x), expected[:, 0], rtol=1e-3, atol=1e-3)


def test_pool_ignores_token_order_and_with_one_token_the_query():
    pool, x = randomised(AttentionPool(64)), torch.randn(2, 5, 64)
    torch.testing.assert_close(pool(x), pool(x[:, torch.randperm(5)]), rtol=1e-4, atol=1e-4)
    one = pool(x[:, :1])
    with torch.no_grad():
        pool.query.add_(3.0)
    assert torch.allclose(pool(x[:, :1]), one) and not torch.allclose(pool(x), pool(x)[[1, 0]])


def test_an_untrained_pool_is_the_mean_of_values():
    pool, x = AttentionPool(64), torch.randn(2, 5, 64)
    assert pool.query.abs().sum() == 0
    expected = pool.to_output(pool.to_value(pool.norm_value(x)).mean(dim=1))
    torch.testing.assert_close(pool(x), expected, rtol=1e-4, atol=1e-5)


def test_pool_runs_in_fp32_under_autocast():
    pool, x = randomised(AttentionPool(64)), torch.randn(2, 5, 64)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pool(x), pool.float()(x)) and pool(x).dtype == torch.float32


def test_classifier_is_normal_with_std_001():
    torch.manual_seed(0)
    probe = Probe(256, 1000)
    assert probe.classifier.weight.std().item() == pytest.approx(0.01, rel=0.02)
    assert probe.classifier.bias.abs().sum() == 0


def test_loss_at_initialisation_is_ln_classes(tmp_path):
    data, the_task = features(tmp_path), task("classify", batch=12)
    losses = the_task.head(data, 0)(FeatureStream(data, the_task.config, 0).batch(0))
    for term in losses.terms.values():
        assert term.mean().item() == pytest.approx(np.log(3), abs=0.05)
    assert losses.terms.keys() == losses.weights.keys() == {"acc1", "acc1_standardised"}


def test_a_trained_probe_learns_colours(tmp_path):
    of = encoder()
    data = extract(of, split(60), tmp_path)
    test = extract(of, split(30, name="toy/test"), tmp_path)
    the_task = task("classify", batch=20, epochs=20.0)
    head = the_task.head(data, 0)
    train(head, FeatureStream(data, the_task.config, 0), the_task.config, of.module, steps=30)
    found = the_task.evaluate(head, test)
    assert found.metrics == {"acc1": 100.0, "acc1_standardised": 100.0}
    assert found.extras["chance_acc1"] == pytest.approx(100 / 3) and found.extras["n_images"] == 30


class Fixed(nn.Module):
    """Logits from the first three channels of the first token."""

    def __init__(self, logits):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))
        self.logits = logits

    def forward(self, tokens):
        return self.logits(tokens) + self.bias


def accuracy(tmp_path, logits, images=12, chunk=None):
    data, the_task = features(tmp_path, images=images), task("classify", probes=("acc1",))
    head = the_task.head(data, 0)
    head.probes["acc1"] = Fixed(logits)
    return the_task.evaluate(head, data)


def test_accuracy_of_perfect_and_constant_predictions(tmp_path):
    order = iter(torch.eye(3).repeat(4, 1).split(12))
    assert accuracy(tmp_path, lambda x: next(order)).metrics == {"acc1": 100.0}
    constant = accuracy(tmp_path, lambda x: torch.tensor([0.0, 1.0, 0.0]).expand(len(x), 3))
    assert constant.metrics["acc1"] == pytest.approx(100 / 3)
    assert [item["acc1"] for item in constant.items[:3]] == [0.0, 100.0, 0.0]
    assert constant.unavailable == {"acc1_standardised": "this probe is not in the configuration"}


def test_accuracy_ignores_row_constants_and_batch_size(tmp_path, monkeypatch):
    def logits(x):
        return x[:, 0, :3]

    base = accuracy(tmp_path, logits).items
    assert accuracy(tmp_path, lambda x: logits(x) + x[:, 1, :1] * 7).items == base
    chunks = FeatureSplit.chunks
    monkeypatch.setattr(FeatureSplit, "chunks", lambda self, size=5: chunks(self, size))
    assert accuracy(tmp_path, logits).items == base


def test_logits_that_are_not_finite_abort(tmp_path):
    with pytest.raises(ValueError, match="not finite"):
        accuracy(tmp_path, lambda x: x[:, 0, :3] * torch.nan)


def test_standardised_features_have_zero_mean_and_unit_std(tmp_path):
    data = features(tmp_path, images=30)
    done = Standardise(data, "all")(data.gather(np.arange(30)))
    torch.testing.assert_close(done.mean(dim=0), torch.zeros(5, 64), rtol=0, atol=1e-4)
    varying = data.gather(np.arange(30)).std(dim=0) > 1e-2
    assert varying.sum() > 100  # the class token of an untrained encoder hardly varies
    spread = done.std(dim=0, correction=0)[varying]
    torch.testing.assert_close(spread, torch.ones(len(spread)), rtol=2e-3, atol=0)


def test_near_constant_features_are_read_by_the_standardised_probe_only(tmp_path):
    of, data = encoder(), split(60)
    tokens = of.module.tokens
    # Collapsed: what tells images apart is a ten-thousandth of what they share.
    shared = 3 * torch.randn(5, 64, generator=torch.Generator().manual_seed(0))
    of.module.tokens = lambda images: shared + 3e-4 * tokens(images)
    got = extract(of, data, tmp_path)
    the_task = task("classify", batch=20, epochs=10.0)
    head = the_task.head(got, 0)
    train(head, FeatureStream(got, the_task.config, 0), the_task.config, of.module, steps=30)
    found = the_task.evaluate(head, got).metrics
    assert found["acc1_standardised"] == 100.0
    assert found["acc1"] < 60


def test_constant_features_give_chance_from_both_probes(tmp_path):
    got = extract(constant_encoder(), split(12), tmp_path)
    the_task = task("classify", batch=6, epochs=4.0)
    head = the_task.head(got, 0)
    train(head, FeatureStream(got, the_task.config, 0), the_task.config, vision(), steps=8)
    assert the_task.evaluate(head, got).metrics == pytest.approx({"acc1": 100 / 3, "acc1_standardised": 100 / 3})


def test_the_two_probes_train_as_if_alone(tmp_path):
    data = features(tmp_path)
    results = []
    for probes in (("acc1",), ("acc1", "acc1_standardised")):
        the_task = task("classify", batch=6, epochs=4.0, probes=probes)
        head = the_task.head(data, 0)
        train(head, FeatureStream(data, the_task.config, 0), the_task.config, vision(), steps=5)
        results.append(head.logits(data.gather(np.arange(12)))["acc1"])
    assert torch.equal(*results)


def test_patch_tokens_only(tmp_path):
    data, the_task = features(tmp_path), task("classify", probe_tokens="patch", batch=12)
    head, batch = the_task.head(data, 0), FeatureStream(data, task("classify", batch=12).config, 0).batch(0)
    other = replace(batch, tokens=torch.cat([batch.tokens[:, :1].flip(-1), batch.tokens[:, 1:]], dim=1))
    for name, term in head(batch).terms.items():
        assert torch.equal(term.sum, head(other).terms[name].sum)
    whole = task("classify", batch=12).head(data, 0)
    with torch.no_grad():
        whole.probes["acc1"].pool.query.normal_()
    assert not torch.equal(whole(batch).terms["acc1"].sum, whole(other).terms["acc1"].sum)
    the_task.evaluate(head, data)


def test_labels_are_required(tmp_path):
    data, the_task = features(tmp_path), task("classify")
    without = FeatureSplit(replace(data.split, labels=None), data.features)
    negative = FeatureSplit(replace(data.split, labels=(-1, *data.split.labels[1:])), data.features)
    for bad, message in ((without, "no label"), (negative, "without label")):
        with pytest.raises(ValueError, match=message):
            the_task.head(bad, 0)
        with pytest.raises(ValueError, match=message):
            the_task.evaluate(the_task.head(data, 0), bad)
    with pytest.raises(ValueError, match="has no label"):
        the_task.head(data, 0)(FeatureStream(without, the_task.config, 0).batch(0))


def test_configuration_is_checked():
    probes = ({"probes": ("acc5",)}, {"probes": ("acc1_standardised",)})
    for bad in (*probes, {"epochs": 0.0}, {"warmup": 1.0}, {"batch": 0}):
        with pytest.raises(ValueError):
            replace(Classify.Config(), **bad)
