"""Frozen means frozen: no gradient, no noise, not in the optimiser, not one byte changed."""

import pytest
import torch
from torch import nn
from transfer_helpers import encoder, features, task, train, vision

from transfer.classify import Classify
from transfer.encoder import fingerprint
from transfer.freeze import freeze, frozen_transfer, unchanged
from transfer.registry import available
from transfer.stream import FeatureStream


@pytest.mark.parametrize("name", available())
def test_training_a_head_leaves_every_encoder_byte(tmp_path, name):
    of = encoder()
    before = fingerprint(of.module)
    data, the_task = features(tmp_path, of), task(name, batch=6, epochs=4.0)
    head = the_task.head(data, seed=0)
    text = the_task.text if the_task.reads_text else None
    start = {n: p.detach().clone() for n, p in head.named_parameters()}
    with unchanged(of.module):
        train(head, FeatureStream(data, the_task.config, 0, text), the_task.config, of.module, steps=4)
    assert fingerprint(of.module) == before
    still = [n for n, p in head.named_parameters() if torch.equal(p, start[n])]
    assert not still


def test_the_language_model_of_the_task_is_never_trained(tmp_path):
    the_task = task("caption", batch=6, epochs=4.0)
    data, before = features(tmp_path), fingerprint(the_task.text.language)
    head = the_task.head(data, seed=0)
    train(head, FeatureStream(data, the_task.config, 0, the_task.text), the_task.config, vision(), steps=2)
    assert fingerprint(the_task.text.language) == before != fingerprint(head.language)


def test_freeze_turns_off_gradient_and_drop_path():
    module = vision().train()
    freeze(module)
    assert not module.training and not any(p.requires_grad for p in module.parameters())


def test_unchanged_notices_parameters_and_buffers():
    module = nn.BatchNorm1d(2)
    with pytest.raises(RuntimeError, match="frozen encoder changed"), unchanged(module):
        module(torch.randn(4, 2))
    with unchanged(module.eval()):
        module(torch.randn(4, 2))


def test_groups_hold_each_parameter_once_with_its_rate_and_decay(tmp_path):
    data, the_task = features(tmp_path), task("retrieve", lr=1e-3, lr_pretrained=1e-5, weight_decay=0.5)
    head = the_task.head(data, seed=0)
    groups = {group.name: group for group in frozen_transfer(head, vision(), the_task.config)}
    names = [name for group in groups.values() for name in group.parameters]
    assert sorted(names) == sorted(name for name, _ in head.named_parameters())
    assert set(groups["new_no_decay"].parameters) >= {"pool.query", "temperature.log_scale", "proj.bias"}
    assert set(groups["new_decay"].parameters) == {
        "proj.weight", *(f"pool.to_{part}.weight" for part in ("query", "key", "value", "output"))
    }  # fmt: skip
    assert all(name.startswith("language.") for name in groups["pretrained_decay"].parameters)
    assert not any("norm" in name or "bias" in name for g in groups.values() if g.weight_decay for name in g.parameters)
    assert {(g.lr, g.weight_decay) for g in groups.values()} == {(1e-3, 0.5), (1e-3, 0.0), (1e-5, 0.5), (1e-5, 0.0)}


def test_a_language_model_from_scratch_trains_as_a_new_part(tmp_path):
    from transfer_helpers import text_model

    from transfer.registry import get

    cls = get("retrieve")
    the_task = cls(cls.Config(), text_model(pretrained=False))
    groups = frozen_transfer(the_task.head(features(tmp_path), 0), vision(), the_task.config)
    assert {group.name for group in groups} == {"new_decay", "new_no_decay"}


def test_a_head_that_holds_the_encoder_is_refused(tmp_path):
    the_task = Classify(Classify.Config())
    module, head = vision(), the_task.head(features(tmp_path), seed=0)
    head.smuggled = module.vit.norm
    with pytest.raises(ValueError, match="2 parameters of the frozen encoder, first 'smuggled.weight'"):
        frozen_transfer(head, module, the_task.config)
