"""What every registered transfer task must keep, found automatically."""

from dataclasses import fields, is_dataclass

import pytest
import torch
from helpers import at_tiny
from transfer_helpers import constant_encoder, encoder, split, task, train

from objectives.functional import total
from transfer import registry
from transfer.base import TransferTask
from transfer.encoder import fingerprint
from transfer.features import FeatureSplit, extract
from transfer.freeze import frozen_transfer
from transfer.registry import available, get
from transfer.stream import FeatureStream

TASKS = available()


@pytest.fixture(params=TASKS)
def name(request):
    return request.param


def stream(the_task: TransferTask, data: FeatureSplit, seed: int = 0) -> FeatureStream:
    return FeatureStream(data, the_task.config, seed, the_task.text if the_task.reads_text else None)


def near_chance(found, noise):
    """Metrics with a declared chance lie within `noise` points of it."""
    chances = {key.removeprefix("chance_"): value for key, value in found.extras.items() if key.startswith("chance_")}
    assert set(chances) <= set(found.metrics)
    for metric, value in chances.items():
        assert abs(found.metrics[metric] - value) <= noise, metric


def test_there_are_the_three_frozen_tasks():
    assert set(TASKS) >= {"classify", "retrieve", "caption"}


def test_declarations(name):
    cls = get(name)
    assert cls.name == name and cls.protocol >= 1 and len(set(cls.metrics)) == len(cls.metrics) > 0
    for config in (cls.Config(), at_tiny("transfer", cls)):
        assert is_dataclass(config) and isinstance(config, cls.Config)
        assert {"epochs", "batch", "lr", "warmup", "weight_decay"} <= {field.name for field in fields(config)}
        hash(config)


def test_an_untrained_head_is_near_chance_and_returns_what_it_declares(tmp_path, name):
    data, the_task = extract(encoder(), split(60), tmp_path), task(name)
    found = the_task.evaluate(the_task.head(data, 0), data)
    assert set(found.metrics) | set(found.unavailable) == set(the_task.metrics)
    assert not set(found.metrics) & set(found.unavailable)
    assert all(isinstance(value, float) for value in found.metrics.values())
    near_chance(found, noise=20)


def test_a_constant_encoder_is_at_chance_after_training(tmp_path, name):
    of = constant_encoder()
    data, the_task = extract(of, split(60), tmp_path), task(name, batch=12)
    head = the_task.head(data, 0)
    losses = train(head, stream(the_task, data), the_task.config, of.module, steps=6)
    assert all(map(torch.isfinite, map(torch.tensor, losses)))
    near_chance(the_task.evaluate(head, data), noise=12)


def test_items_carry_ids_and_their_image(tmp_path, name):
    data, the_task = extract(encoder(), split(12), tmp_path), task(name)
    items = the_task.evaluate(the_task.head(data, 0), data).items
    ids = [item["item_id"] for item in items]
    assert len(set(ids)) == len(ids) >= 12
    assert {item["group_id"] for item in items} == set(data.split.item_ids)


def test_evaluation_changes_neither_head_nor_encoder_and_repeats(tmp_path, name):
    of = encoder()
    data, the_task = extract(of, split(12), tmp_path), task(name)
    head = the_task.head(data, 0).train()
    before = fingerprint(head), fingerprint(of.module)
    first, second = the_task.evaluate(head, data), the_task.evaluate(head, data)
    assert (fingerprint(head), fingerprint(of.module)) == before and head.training
    assert first == second


def test_the_encoder_is_unchanged_by_training(tmp_path, name):
    of = encoder()
    before = fingerprint(of.module)
    data, the_task = extract(of, split(12), tmp_path), task(name, batch=6)
    train(the_task.head(data, 0), stream(the_task, data), the_task.config, of.module, steps=3)
    assert fingerprint(of.module) == before


def test_exactly_the_grouped_parameters_get_gradient(tmp_path, name):
    of = encoder()
    data, the_task = extract(of, split(12), tmp_path), task(name, batch=6)
    head = the_task.head(data, 0)
    groups = frozen_transfer(head, of.module, the_task.config)
    total(head(stream(the_task, data).batch(0))).backward()
    grouped = {key for group in groups for key in group.parameters}
    assert {key for key, parameter in head.named_parameters() if parameter.grad is not None} == grouped
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in of.module.parameters())


def test_a_head_is_a_pure_function_of_the_seed(tmp_path, name):
    data, the_task = extract(encoder(), split(12), tmp_path), task(name)
    state = torch.random.get_rng_state()
    first = fingerprint(the_task.head(data, 0))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    assert fingerprint(the_task.head(data, 0)) == first != fingerprint(the_task.head(data, 1))


def test_a_resumed_head_is_the_uninterrupted_one(tmp_path, name):
    of = encoder()
    data, the_task = extract(of, split(12), tmp_path), task(name, batch=6)
    whole = train(the_task.head(data, 0), stream(the_task, data), the_task.config, of.module, steps=4)
    head = the_task.head(data, 0)
    train(head, stream(the_task, data), the_task.config, of.module, steps=2)
    other = the_task.head(data, 1)
    other.load_state_dict(head.state_dict())
    resumed = total(other(stream(the_task, data).batch(2))).item()
    assert resumed == pytest.approx(whole[2], rel=1e-6)


def test_text_is_given_to_tasks_that_read_it_and_to_no_other(name):
    from transfer_helpers import text_model

    cls = get(name)
    wrong = None if cls.reads_text else text_model()
    with pytest.raises(ValueError, match=f"{name!r} (needs a TextModel|reads no text)"):
        cls(cls.Config(), wrong)


def test_unknown_and_ill_named_tasks():
    with pytest.raises(ValueError, match="did you mean 'classify'"):
        get("clasify")
    with pytest.raises(ValueError, match=r"'caption' is defined in test_tasks\.py"):
        registry.register("caption")(type("Caption", (TransferTask,), {"__module__": "tests.test_tasks"}))
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("caption")(type("Other", (TransferTask,), {"__module__": "elsewhere.caption"}))
