"""Recall at K against hand-made matrices, brute force over tie orders, and closed forms of chance."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transfer.metrics import retrieval
from transfer.metrics.retrieval import chance, recall_at_k

KS = (1, 5, 10)


def both(images, texts, owner, ks=KS):
    """Mean TR@K and IR@K in %."""
    every = torch.arange(len(images))
    return (
        100 * recall_at_k(images, texts, every, owner, ks).mean(dim=0),
        100 * recall_at_k(texts, images, owner, every, ks).mean(dim=0),
    )


def test_identity_gives_100():
    owner = torch.arange(12).repeat_interleave(5)
    tr, ir = both(torch.eye(12), torch.eye(12)[owner], owner)
    assert tr.tolist() == ir.tolist() == [100.0] * 3


def test_equal_embeddings_give_chance_whatever_the_value():
    owner = torch.arange(20).repeat_interleave(5)
    for value in (torch.ones(8), torch.randn(8), torch.full((8,), 1e-30)):
        tr, ir = both(value.expand(20, 8), value.expand(100, 8), owner)
        assert tr[0].item() == pytest.approx(100 / 20)
        assert ir.tolist() == pytest.approx([100 * k / 20 for k in KS])
        assert tr[1].item() == pytest.approx(100 * (1 - math.comb(95, 5) / math.comb(100, 5)))


def test_constant_images_with_different_texts_are_chance_too():
    torch.manual_seed(0)
    owner = torch.arange(20).repeat_interleave(5)
    tr, ir = both(torch.ones(20, 8), torch.randn(100, 8), owner)
    assert tr[0].item() == pytest.approx(100 / 20)  # one caption is everybody's best
    assert ir[0].item() == pytest.approx(100 / 20)  # all images tie


def test_zero_embeddings_do_not_crash():
    owner = torch.arange(4)
    assert both(torch.zeros(4, 3), torch.zeros(4, 3), owner)[0][0].item() == pytest.approx(25)


def test_random_embeddings_are_near_chance():
    torch.manual_seed(0)
    owner = torch.arange(1000).repeat_interleave(5)
    tr, ir = both(torch.randn(1000, 16), torch.randn(5000, 16), owner)
    assert tr[2].item() == pytest.approx(100 * chance(5, 5000, 10), abs=0.7)
    assert ir[2].item() == pytest.approx(1.0, abs=0.5)


def test_chance_in_closed_form():
    assert 100 * chance(5, 25_000, 1) == pytest.approx(100 / 5000)
    assert 100 * chance(5, 25_000, 5) == pytest.approx(0.09997, abs=5e-6)
    assert chance(1, 3, 5) == 1.0


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_expected_credit_equals_the_mean_over_all_orders_of_ties(data):
    count = data.draw(st.integers(2, 6))
    scores = data.draw(st.lists(st.sampled_from([0.1, 0.2, 0.3]), min_size=count, max_size=count))
    own = data.draw(st.lists(st.booleans(), min_size=count, max_size=count).filter(any))
    k = data.draw(st.integers(1, 4))
    hits = []
    for order in itertools.permutations(range(count)):
        top = sorted(order, key=lambda i: -scores[i])[:k]  # stable: the permutation decides among ties
        hits.append(any(own[i] for i in top))
    # Cosines with the first axis are the scores.
    gallery = torch.tensor([[s, math.sqrt(1 - s * s)] for s in scores])
    got = recall_at_k(torch.tensor([[1.0, 0.0]]), gallery, torch.tensor([1]), torch.tensor(own).long(), (k,))
    assert got.item() == pytest.approx(sum(hits) / len(hits))


def example(seed=0):
    """Four images with 5, 5, 6 and 7 captions."""
    torch.manual_seed(seed)
    owner = torch.repeat_interleave(torch.arange(4), torch.tensor([5, 5, 6, 7]))
    images = torch.randn(4, 6)
    return images, images[owner] + 1.5 * torch.randn(23, 6), owner


def test_ragged_captions():
    images, texts, owner = example()
    tr, ir = both(images, texts, owner)
    scores = torch.nn.functional.normalize(images, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T
    assert tr[0].item() == pytest.approx(100 * (owner[scores.argmax(dim=1)] == torch.arange(4)).float().mean().item())
    assert ir[0].item() == pytest.approx(100 * (scores.argmax(dim=0) == owner).float().mean().item())
    assert 0 < ir[0] < 100


def test_gallery_order_and_scale_change_nothing_and_recall_grows_with_k():
    images, texts, owner = example()
    tr, ir = both(images, texts, owner, (1, 2, 3, 5))
    order = torch.randperm(23)
    again = both(images * 7, texts[order] * 0.01, owner[order], (1, 2, 3, 5))
    torch.testing.assert_close(again[0], tr)
    torch.testing.assert_close(again[1], ir)
    assert (tr.diff() >= 0).all() and (ir.diff() >= 0).all()


def test_hit_rate_is_at_least_textbook_recall():
    images, texts, owner = example(1)
    scores = torch.nn.functional.normalize(images, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T
    for k in (1, 5):
        found = owner[scores.topk(k, dim=1).indices] == torch.arange(4)[:, None]
        textbook = (found.sum(dim=1) / torch.bincount(owner)).mean()
        hit = recall_at_k(images, texts, torch.arange(4), owner, (k,)).mean()
        assert hit > textbook


def test_transposing_swaps_the_roles_only_with_one_caption_each():
    torch.manual_seed(0)
    images, texts = torch.randn(6, 3), torch.randn(6, 3)
    one = both(images, texts, torch.arange(6))
    swapped = both(texts, images, torch.arange(6))
    torch.testing.assert_close(one[0], swapped[1])
    torch.testing.assert_close(one[1], swapped[0])
    images, texts, owner = example()
    assert len(recall_at_k(images, texts, torch.arange(4), owner)) == 4
    assert len(recall_at_k(texts, images, owner, torch.arange(4))) == 23


def test_chunks_change_nothing(monkeypatch):
    images, texts, owner = example()
    whole = both(images, texts, owner)
    monkeypatch.setattr(retrieval, "CHUNK", 3)
    for a, b in zip(both(images, texts, owner), whole, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_aborts(bad):
    images, texts, owner = example()
    texts[7, 2] = bad
    with pytest.raises(ValueError, match="1 gallery embeddings are not finite, first at row 7"):
        both(images, texts, owner)


def test_a_query_without_own_item_aborts():
    with pytest.raises(ValueError, match="query 2 owns no item"):
        recall_at_k(torch.eye(3), torch.eye(3)[:2], torch.arange(3), torch.arange(2))
