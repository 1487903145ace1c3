"""Batches of features: a pure function of (seed, epoch, step)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from transfer_helpers import Words, features, text_model

from data.seeds import generator
from transfer.classify import Classify
from transfer.stream import MAX_TEXT, FeatureStream, encode_captions, pad

CONFIG = Classify.Config(epochs=3.0, batch=5, lr=1e-3, lr_pretrained=1e-3, warmup=0.1)


def equal(a, b):
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("tokens", "labels", "ids", "mask", "index"))


def test_every_image_is_seen_once_an_epoch_and_the_last_batch_is_kept(tmp_path):
    stream = FeatureStream(features(tmp_path), CONFIG, seed=0)
    batches = list(stream.batches())
    assert stream.steps == len(batches) == 9
    assert [len(batch.index) for batch in batches[:3]] == [5, 5, 2]
    for epoch in range(3):
        seen = torch.cat([batch.index for batch in batches[3 * epoch : 3 * epoch + 3]])
        assert sorted(seen.tolist()) == list(range(12))


def test_features_labels_and_captions_belong_to_the_image(tmp_path):
    data = features(tmp_path)
    for batch in FeatureStream(data, CONFIG, 0, text_model()).batches():
        assert torch.equal(batch.tokens, data.gather(batch.index.numpy()))
        assert batch.labels.tolist() == [data.split.labels[i] for i in batch.index]
        for row, mask, i in zip(batch.ids, batch.mask, batch.index, strict=True):
            ids = row[mask].tolist()
            assert ids[0] == ids[-1] == Words.special.bos
            assert Words().decode(ids[1:-1]) in data.split.captions[i]
            assert (row[~mask] == Words.special.pad).all()


def test_any_step_resumes_as_an_uninterrupted_run(tmp_path):
    data = features(tmp_path)
    whole = list(FeatureStream(data, CONFIG, 0, text_model()).batches())
    for start in range(9):
        resumed = list(FeatureStream(data, CONFIG, 0, text_model()).batches(start))
        assert all(map(equal, resumed, whole[start:])) and len(resumed) == 9 - start
    backwards = FeatureStream(data, CONFIG, 0, text_model())
    assert equal(backwards.batch(8), whole[8]) and equal(backwards.batch(0), whole[0])


def test_seeds_and_epochs_differ_and_encoders_do_not(tmp_path):
    data = features(tmp_path)
    stream = FeatureStream(data, CONFIG, 0, text_model())
    orders = [torch.cat([stream.batch(3 * epoch + k).index for k in range(3)]).tolist() for epoch in range(3)]
    other = FeatureStream(data, CONFIG, 1, text_model())
    orders.append(torch.cat([other.batch(k).index for k in range(3)]).tolist())
    assert len({tuple(order) for order in orders}) == 4
    from transfer_helpers import encoder

    same_order = FeatureStream(features(tmp_path, encoder(seed=1)), CONFIG, 0, text_model()).batch(4)
    assert torch.equal(same_order.index, stream.batch(4).index) and torch.equal(same_order.ids, stream.batch(4).ids)


def test_over_the_epochs_every_caption_of_an_image_is_drawn(tmp_path):
    config = Classify.Config(epochs=40.0, batch=12, lr=1e-3, lr_pretrained=1e-3, warmup=0.0)
    data = features(tmp_path)
    stream = FeatureStream(data, config, 0, text_model())
    drawn: dict[int, list[int]] = {i: [] for i in range(12)}
    for batch in stream.batches():
        for row, mask, i in zip(batch.ids, batch.mask, batch.index.tolist(), strict=True):
            drawn[i].append(data.split.captions[i].index(Words().decode(row[mask].tolist())))
    counts = np.array([np.bincount(each, minlength=2) for each in drawn.values()])
    assert (counts.sum(axis=1) == 40).all() and counts.min() >= 8


def test_what_grows_with_the_set_is_done_once_an_epoch_and_never_for_a_batch(tmp_path, monkeypatch):
    """A batch touches its own items: at 10 million captions anything else would be the whole cost of a step."""
    from transfer import stream as module

    drawn: list[str] = []

    def counted(*name):
        drawn.append(name[2])
        return generator(*name)

    texts: list[str] = []

    class Counting(Words):
        def encode(self, text):
            texts.append(text)
            return super().encode(text)

    monkeypatch.setattr(module, "generator", counted)
    stream = FeatureStream(features(tmp_path), CONFIG, 0, replace(text_model(), tokenizer=Counting()))
    assert not texts
    stream.batch(0)
    assert len(texts) <= CONFIG.batch
    stream.batch(1), stream.batch(2)
    assert drawn == ["order", "caption"]
    list(stream.batches())
    assert len(texts) == len(set(texts))


def test_long_captions_are_cut_and_keep_their_end(tmp_path):
    data = features(tmp_path, images=1)
    long = replace(data.split, captions=(("red " * 100,),))
    rows = encode_captions(long, Words())
    assert len(rows[0][0]) == MAX_TEXT and rows[0][0][-1] == Words.special.eos


def test_bad_requests(tmp_path):
    data = features(tmp_path)
    stream = FeatureStream(data, CONFIG, 0)
    assert stream.batch(0).ids.shape == (5, 0)
    for step in (-1, 9):
        with pytest.raises(IndexError, match="9 steps"):
            stream.batch(step)
    without = type(data)(replace(data.split, captions=None), data.features)
    with pytest.raises(ValueError, match="12 images and captions of 0"):
        FeatureStream(without, CONFIG, 0, text_model())
    some = type(data)(replace(data.split, captions=(*data.split.captions[:-1], ())), data.features)
    with pytest.raises(ValueError, match="'toy/train/011' has no caption"):
        FeatureStream(some, CONFIG, 0, text_model())


def test_pad_is_right_padding():
    ids, mask = pad([[1, 2, 3], [4]], fill=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]] and mask.tolist() == [[True] * 3, [True, False, False]]


@pytest.mark.parametrize(
    ("task", "images", "steps", "warmup"),
    [("classify", 1_281_167, 14_130, 1500), ("retrieve", 14_700_000, 5000, 500), ("caption", 10_240_000, 20_000, 1000)],
)
def test_paper_configurations_give_the_steps_of_table_8(task, images, steps, warmup):
    from transfer.registry import get

    config = get(task).Config()
    assert (config.steps_over(images), config.warmup_steps(images)) == (steps, warmup)
    assert (config.weight_decay, config.betas) == (1e-4, (0.9, 0.95))
    table = {"classify": (8192, 1e-4), "retrieve": (16_384, 1e-3), "caption": (512, 1e-4)}
    assert (config.batch, config.lr) == table[task]


def test_steps_are_steps_whatever_the_size_of_the_set_and_only_one_of_the_two_lengths_counts():
    config = replace(CONFIG, epochs=None, steps=5000)
    assert {config.steps_over(images) for images in (1, 100, 14_700_000)} == {5000}
    assert config.warmup_steps(100) == 500
    for wrong in ({"epochs": 3.0, "steps": 5000}, {"epochs": None}):
        with pytest.raises(ValueError, match="one of epochs and steps"):
            replace(CONFIG, **wrong).steps_over(100)
    with pytest.raises(ValueError, match="steps must be positive, got 0"):
        replace(CONFIG, epochs=None, steps=0)
