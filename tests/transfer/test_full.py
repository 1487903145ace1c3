"""Full transfer trains every block of the encoder at its own rate; a frozen encoder on pictures trains none of it."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from transfer_helpers import encoder, pixels, split, task, text_model, train

from backbones.sizes import VisionSize
from backbones.tower import add_drop_path, layer_scales
from backbones.vit import VisionEncoder
from data.images import ImageTransform
from objectives.functional import total
from transfer.encoder import Encoder, fingerprint
from transfer.features import extract
from transfer.freeze import frozen_transfer, full_transfer, unchanged
from transfer.pictures import CHECKED, BehindFrozen, PictureSplit, PictureStream, Tuned, gradient_norm
from transfer.registry import available
from transfer.stream import FeatureStream

DEEP = VisionSize(name="deep", image_size=16, patch_size=8, width=64, depth=3, heads=1)
TASKS = available()


def deep() -> Encoder:
    torch.manual_seed(0)
    return Encoder(VisionEncoder(DEEP), ImageTransform(size=16))


def full_task(name: str, **changes: object):
    made = task(name, **{"batch": 6, "epochs": 2.0, **changes})
    return type(made)(replace(made.config, pictures="augmented"), made.text if made.reads_text else None)


def tuned(name: str, of: Encoder, **changes: object):
    """A task's head with its encoder, the batches it learns from, and the parameter groups."""
    the_task = full_task(name, **changes)
    data = PictureSplit(split(), of)
    module = Tuned(the_task.head(data, 0), of)
    stream = PictureStream(data, the_task.config, 0, the_task.text if the_task.reads_text else None)
    return module, stream, full_transfer(module, the_task.config)


@pytest.mark.parametrize("name", TASKS)
def test_at_the_first_step_every_block_of_the_encoder_has_a_gradient_and_moves(name):
    of = deep()
    module, stream, groups = tuned(name, of)
    before = {n: p.detach().clone() for n, p in of.module.named_parameters()}
    optimiser = torch.optim.AdamW([{"params": list(g.parameters.values()), "lr": g.lr} for g in groups])
    total(module(stream.batch(0))).backward()
    assert all(gradient_norm(block) > 0 for block in of.module.blocks) and len(of.module.blocks) == 3
    assert gradient_norm(of.module.vit.patch_embed) > 0 and gradient_norm(of.module.vit.norm) > 0
    optimiser.step()
    assert not [n for n, p in of.module.named_parameters() if torch.equal(p, before[n])]


@pytest.mark.parametrize("name", TASKS)
def test_each_parameter_of_head_and_encoder_is_in_one_group(name):
    module, _, groups = tuned(name, deep())
    names = [n for group in groups for n in group.parameters]
    assert sorted(names) == sorted(n for n, _ in module.named_parameters())


def test_rates_of_the_layers_fall_towards_the_image(monkeypatch):
    of = deep()
    _, _, groups = tuned("classify", of)
    rates = {n: (g.lr, g.weight_decay) for g in groups for n in g.parameters}
    config = full_task("classify").config
    lr, decay = config.vision.lr, config.vision.layer_decay
    assert (config.vision.layer_decay, config.vision.weight_decay) == (0.75, 0.05)
    assert rates["vision.vit.norm.weight"] == (pytest.approx(lr), 0.0)
    for number, power in ((2, 1), (1, 2), (0, 3)):
        assert rates[f"vision.vit.blocks.{number}.mlp.fc1.weight"] == (pytest.approx(lr * decay**power), 0.05)
        assert rates[f"vision.vit.blocks.{number}.norm1.weight"] == (pytest.approx(lr * decay**power), 0.0)
    assert rates["vision.vit.patch_embed.proj.weight"] == (pytest.approx(lr * decay**4), 0.05)
    assert rates["vision.vit.cls_token"] == rates["vision.vit.pos_embed"] == (pytest.approx(lr * decay**4), 0.0)
    assert rates["head.probes.acc1.classifier.weight"] == (config.lr, config.weight_decay)
    assert set(layer_scales(of.module, 1.0).values()) == {1.0}


def test_retrieval_trains_what_has_weights_at_the_papers_small_rate():
    from transfer.caption import Caption
    from transfer.retrieve import Retrieve

    the_task = Retrieve(Retrieve.Config(pictures="augmented"), text_model())
    of = deep()
    groups = full_transfer(Tuned(the_task.head(PictureSplit(split(), of), 0), of), the_task.config)
    rates = {n: g.lr for g in groups for n in g.parameters}
    assert {rate for n, rate in rates.items() if n.startswith("vision.")} == {1e-5}
    assert {rate for n, rate in rates.items() if n.startswith("head.language.")} == {1e-5}
    assert rates["head.proj.weight"] == rates["head.pool.query"] == 1e-3
    assert (Caption.Config().vision.lr, Caption.Config().vision.drop_path) == (1e-4, 0.2)  # A.2


def test_drop_path_leaves_branches_out_in_training_only_and_rarely_at_the_bottom():
    torch.manual_seed(0)
    module = VisionEncoder(replace(DEEP, depth=3))
    images = torch.randn(64, 3, 16, 16)
    plain = module.eval().tokens(images)
    add_drop_path(module, 0.5)
    assert torch.equal(module.eval().tokens(images), plain)
    module.train()
    seen: dict[int, list[float]] = {0: [], 1: [], 2: []}
    for number, block in enumerate(module.blocks):
        block.drop_path1.register_forward_hook(
            lambda _, __, out, number=number: seen[number].append(
                float((out.flatten(1).abs().sum(1) == 0).float().mean())
            )
        )
    for _ in range(40):
        module.tokens(images)
    shares = {number: np.mean(found) for number, found in seen.items()}
    assert shares[0] == 0 and shares[1] == pytest.approx(0.25, abs=0.04) and shares[2] == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize("name", TASKS)
def test_behind_a_frozen_encoder_nothing_of_it_trains_or_is_saved(name):
    of = deep()
    the_task = full_task(name)
    data = PictureSplit(split(), of)
    module = BehindFrozen(the_task.head(data, 0), of)
    groups = frozen_transfer(module, of.module, the_task.config)
    stream = PictureStream(data, the_task.config, 0, the_task.text if the_task.reads_text else None)
    optimiser = torch.optim.AdamW([{"params": list(g.parameters.values()), "lr": g.lr} for g in groups])
    before = fingerprint(of.module)
    with unchanged(of.module):
        module.train()
        for step in range(3):
            total(module(stream.batch(step))).backward()
            optimiser.step()
    assert fingerprint(of.module) == before and not of.module.training
    assert not any(p.grad is not None for p in of.module.parameters())
    assert not any("vision" in key for key in module.state_dict())


def test_without_augmentation_pictures_teach_exactly_what_cached_features_do(tmp_path):
    """The two ways to a batch differ in the crop alone: with the evaluation's crop they are one."""

    class Still(ImageTransform):
        def train(self, image, rng):
            return self.eval(image)

    of = Encoder(encoder().module, Still(size=16))
    cached = task("classify", batch=5, epochs=1.0, probes=("acc1",))
    config = replace(cached.config, pictures="augmented", flip=0.0)
    features = extract(of, split(), tmp_path)
    data = PictureSplit(split(), of)
    head = cached.head(features, 0)
    twin = BehindFrozen(type(cached)(config).head(data, 0), of)
    for step in range(3):
        a = FeatureStream(features, cached.config, 0).batch(step)
        b = PictureStream(data, config, 0).batch(step)
        assert torch.equal(a.index, b.learned.index) and torch.equal(a.labels, b.learned.labels)
        torch.testing.assert_close(total(head(a)), total(twin(b)), rtol=1e-5, atol=1e-6)


def test_cached_features_give_exactly_the_metric_of_an_encoder_that_runs_in_every_epoch(tmp_path):
    """A whole training and scoring each way on the same crops: not one test image is judged otherwise."""

    class Still(ImageTransform):
        def train(self, image, rng):
            return self.eval(image)

        def with_scale(self, scale):
            return self

    of = Encoder(encoder().module, Still(size=16))
    cached = task("classify", batch=5, epochs=6.0, probes=("acc1",))
    uncached = type(cached)(replace(cached.config, pictures="augmented", flip=0.0))
    features, pictures = extract(of, split(30), tmp_path), PictureSplit(split(30), of)
    head, twin = cached.head(features, 0), uncached.head(pictures, 0)
    train(head, FeatureStream(features, cached.config, 0), cached.config, of.module, steps=36)
    stream = PictureStream(pictures, uncached.config, 0)
    train(BehindFrozen(twin, of), stream, uncached.config, of.module, steps=36)
    test = split(40, "toy/test")
    found = cached.evaluate(head, extract(of, test, tmp_path))
    assert 40 < found.metrics["acc1"] <= 100
    with torch.no_grad():
        tokens = of.module.tokens(torch.cat([pixels(of, test, i) for i in range(len(test))]))
        guesses = twin.eval().logits(tokens)["acc1"].argmax(1)
    hits = [100.0 * (int(guess) == label) for guess, label in zip(guesses, test.labels, strict=True)]
    assert [item["acc1"] for item in found.items] == hits and found.metrics["acc1"] == sum(hits) / len(hits)


def test_crops_are_a_function_of_the_step_and_differ_between_epochs():
    data, config = PictureSplit(split(), encoder()), full_task("classify").config
    stream = PictureStream(data, config, 0)
    again = PictureStream(PictureSplit(split(), encoder()), config, 0, workers=3)
    for start in (0, 1):
        ahead = list(again.batches(start))
        assert len(ahead) == stream.steps - start
        for step, batch in enumerate(ahead, start):
            assert torch.equal(stream.batch(step).images, batch.images)
            assert torch.equal(stream.batch(step).learned.index, batch.learned.index)
    first = {int(i): image for i, image in zip(stream.batch(0).learned.index, stream.batch(0).images, strict=True)}
    for step in (2, 3):
        batch = stream.batch(step)
        for i, image in zip(batch.learned.index.tolist(), batch.images, strict=True):
            assert i not in first or not torch.equal(image, first[i])


def test_pictures_of_later_steps_are_decoded_meanwhile_and_a_bad_one_fails_its_own_step():
    of, opened, decoded = encoder(), split(), set()
    fine = threading.Event()

    def load(i):
        decoded.add(i)
        if len(decoded) == len(opened):
            fine.set()
        if opened.item_ids[i] == bad:
            raise OSError("truncated")
        return opened.load(i)

    stream = PictureStream(PictureSplit(replace(opened, load=load), of), full_task("classify").config, 0)
    bad = opened.item_ids[int(stream._drawn(1)[1][0])]
    batches = stream.batches()
    next(batches)
    assert fine.wait(10)  # nobody has asked for the second half of the epoch
    with pytest.raises(OSError, match="truncated"):
        next(batches)


def test_half_the_pictures_are_mirrored():
    class Ramp(ImageTransform):
        def train(self, image, rng):
            return np.broadcast_to(np.arange(16, dtype=np.uint8)[None, :, None], (16, 16, 3)).copy()

        def with_scale(self, scale):
            return self

    data = PictureSplit(split(200), Encoder(encoder().module, Ramp(size=16)))
    images = PictureStream(data, full_task("classify", batch=200).config, 0).batch(0).images
    mirrored = (images[:, 0, 0, 0] > images[:, 0, 0, -1]).float().mean()
    assert 0.4 < float(mirrored) < 0.6


def test_an_encoder_that_is_cut_off_from_the_loss_is_noticed():
    of = deep()
    forward = of.module.vit.blocks[1].forward
    of.module.vit.blocks[1].forward = lambda x, **more: forward(x.detach(), **more)
    module, stream, _ = tuned("classify", of, epochs=20.0)
    with pytest.raises(RuntimeError, match=r"blocks \[0\] of 3 .*no gradient in 20 steps"):
        for step in range(CHECKED):
            module.zero_grad()
            total(module(stream.batch(step))).backward()
            module.after_step()


def test_a_probe_on_standardised_features_needs_a_cache_and_says_so(tmp_path):
    of = deep()
    the_task = full_task("classify")
    head = the_task.head(PictureSplit(split(), of), 0)
    found = the_task.evaluate(head, extract(of, split(), tmp_path))
    assert set(found.metrics) == {"acc1"}
    assert found.unavailable == {"acc1_standardised": "this probe is read from cached features only"}


def test_label_smoothing_is_that_of_torch():
    of = deep()
    the_task = full_task("classify", label_smoothing=0.3)
    data = PictureSplit(split(), of)
    head = the_task.head(data, 0)
    batch = PictureStream(data, the_task.config, 0).batch(0)
    tokens = of.module.eval().tokens(batch.images)
    logits = head.logits(tokens)["acc1"]
    smooth = 0.7 * nn.functional.one_hot(batch.learned.labels, logits.shape[1]) + 0.3 / logits.shape[1]
    expected = -(smooth * logits.log_softmax(1)).sum(1).mean()
    losses = head(replace(batch.learned, tokens=tokens, patches=of.patches))
    torch.testing.assert_close(losses.terms["acc1"].mean(), expected)
