"""Greedy and beam search against exhaustive search, and independence of the batch."""

import itertools

import pytest
import torch
from llm_helpers import MODELS
from transfer_helpers import language
from transformers import DynamicCache

from backbones import masks
from backbones.llm import CausalLM
from backbones.lm import Decoder
from transfer import decode
from transfer.decode import Decoding, beam_search, generate


@pytest.fixture(scope="module")
def model():
    lm = language().eval()
    with torch.no_grad():
        # Untrained logits hardly differ between tokens or positions; these make searches and ends differ.
        lm.decoder.embed_tokens.weight.mul_(20)
        lm.decoder.embed_positions.weight.mul_(20)
        for parameter in lm.decoder.layers.parameters():
            if parameter.ndim == 2:
                parameter.mul_(8)
    return lm


def prefixes(count, seed=0):
    return torch.randn(count, 5, 32, generator=torch.Generator().manual_seed(seed)) * 2


@torch.no_grad()
def next_log_probabilities(lm, prefix, ids, never):
    """After one prefix and ids, alone in the batch."""
    x = torch.cat([prefix[None], lm.embed(torch.tensor([ids], dtype=torch.int64))], dim=1)
    valid = torch.ones(1, x.shape[1], dtype=torch.bool)
    logits = lm.logits(lm(x, masks.causal(valid), torch.arange(x.shape[1])[None])[:, -1])[0]
    logits[list(never)] = -torch.inf
    return logits.log_softmax(0)


def test_greedy_takes_the_best_token_each_time(model):
    found = generate(model, prefixes(6), 2, {1}, Decoding(beams=1, max_tokens=6))
    for prefix, ids in zip(prefixes(6), found, strict=True):
        said: list[int] = []
        while len(said) < 6 and (best := int(next_log_probabilities(model, prefix, said, {1}).argmax())) != 2:
            said.append(best)
        assert ids == said


class Rereading(Decoder):
    """Another model without its memory: it reads everything again at every step. What it has read is kept as keys."""

    def __init__(self, of):
        super().__init__()
        self.of, self.embed, self.logits = of, of.embed, of.logits
        self.width, self.kept_per_token = of.width, of.kept_per_token

    def embed(self, ids):
        raise NotImplementedError

    def logits(self, y):
        raise NotImplementedError

    def forward(self, x, allowed, position_ids):
        return self.of(x, allowed, position_ids)

    def read_on(self, x, seen):
        everything = seen.update(x[:, None], x[:, None], 0)[0][:, 0]
        valid = torch.ones(everything.shape[:2], dtype=torch.bool)
        positions = torch.arange(everything.shape[1]).expand_as(valid)
        return self.of(everything, masks.causal(valid), positions)[:, -x.shape[1] :]


@pytest.mark.parametrize("beams", [1, 3])
def test_memory_changes_no_caption(model, beams):
    config = Decoding(beams=beams, max_tokens=10)
    expected = generate(Rereading(model), prefixes(16), 2, {1}, config)
    assert generate(model, prefixes(16), 2, {1}, config) == expected and len(set(map(tuple, expected))) > 8


@pytest.mark.parametrize("kind", ["tied", "learned positions"])
def test_memory_changes_no_caption_of_a_model_from_elsewhere(kind):
    torch.manual_seed(2)
    theirs = CausalLM(MODELS[kind]())
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.mul_(6 if parameter.ndim == 2 else 1)
    for beams in (1, 3):
        config = Decoding(beams=beams, max_tokens=8)
        expected = generate(Rereading(theirs), prefixes(8), 2, {1}, config)
        assert generate(theirs, prefixes(8), 2, {1}, config) == expected and len(set(map(tuple, expected))) > 4


def test_what_is_kept_is_bounded_and_changes_no_caption(model, monkeypatch):
    config, rows, seen = Decoding(beams=3, max_tokens=6), [], DynamicCache()
    model.read_on(prefixes(2), seen)
    held = sum(layer.keys.numel() + layer.values.numel() for layer in seen.layers)
    assert held == 2 * 5 * model.kept_per_token  # two rows of five tokens
    expected = generate(model, prefixes(8), 2, {1}, config)
    monkeypatch.setattr(decode, "KEPT_BYTES", 3 * 3 * (5 + 6) * 4 * model.kept_per_token)  # of three images
    monkeypatch.setattr(decode, "beam_search", lambda *given: rows.append(len(given[1])) or beam_search(*given))
    assert generate(model, prefixes(8), 2, {1}, config) == expected and rows == [3, 3, 2]


def test_ends_come_at_different_steps_in_these_tests(model):
    lengths = {len(ids) for ids in generate(model, prefixes(24), 2, {1}, Decoding(beams=1, max_tokens=12))}
    assert len(lengths) >= 3


def test_greedy_equals_beam_search_with_one_beam(model):
    config = Decoding(beams=1, max_tokens=12)
    banned = torch.tensor([1])
    with torch.no_grad():
        assert beam_search(model, prefixes(24), 2, banned, config) == generate(model, prefixes(24), 2, {1}, config)


@pytest.mark.parametrize("beams", [1, 3, 5])
def test_result_does_not_depend_on_the_batch(model, beams):
    config = Decoding(beams=beams, max_tokens=10)
    together = generate(model, prefixes(8), 2, {1}, config)
    alone = [generate(model, prefix[None], 2, {1}, config)[0] for prefix in prefixes(8)]
    assert together == alone


@pytest.mark.parametrize("length_penalty", [1.0, 0.0])
def test_enough_beams_find_the_best_of_all_hypotheses(model, length_penalty):
    never = set(range(64)) - {2, 7, 8, 9}  # EOS and three words
    config = Decoding(beams=27, max_tokens=3, length_penalty=length_penalty)
    found = generate(model, prefixes(3, seed=3), 2, never, config)
    for prefix, ids in zip(prefixes(3, seed=3), found, strict=True):
        every = {}
        after = {said: next_log_probabilities(model, prefix, list(said), never)
                 for count in range(3) for said in itertools.product((7, 8, 9), repeat=count)}  # fmt: skip
        for count in range(4):
            for said in itertools.product((7, 8, 9), repeat=count):
                full = [*said, 2] if count < 3 else list(said)
                total = sum(after[tuple(full[:i])][token].item() for i, token in enumerate(full))
                every[said] = total / len(full) ** length_penalty
        assert tuple(ids) == max(every, key=every.get)


def test_more_beams_differ_from_greedy_somewhere(model):
    greedy, beam = (generate(model, prefixes(24), 2, {1}, Decoding(beams=k, max_tokens=12)) for k in (1, 5))
    assert greedy != beam


@pytest.mark.parametrize("beams", [1, 4])
def test_length_is_respected_and_banned_ids_never_appear(model, beams):
    never = {1, 60, 61, 62, 63, *range(20, 40)}
    said = generate(model, prefixes(16), 2, never, Decoding(beams=beams, max_tokens=7))
    assert max(map(len, said)) <= 7
    assert not never & {token for ids in said for token in ids}
    assert not any(2 in ids for ids in said)


def test_eos_is_allowed_although_it_is_also_bos(model):
    config = Decoding(beams=1, max_tokens=12)
    assert generate(model, prefixes(8), 2, {1, 2}, config) == generate(model, prefixes(8), 2, {1}, config)


def test_an_end_at_once_is_an_empty_caption(model):
    everything = set(range(64)) - {2, 5, 6, 7, 8}
    with torch.no_grad():
        certain = language().eval()
        certain.decoder.final_layer_norm.weight.zero_()
        certain.decoder.final_layer_norm.bias.copy_(certain.decoder.embed_tokens.weight[2] * 1e4)
    for beams in (1, 2):
        assert generate(certain, prefixes(3), 2, everything, Decoding(beams=beams)) == [[], [], []]


def test_no_rows_and_bad_configurations(model):
    assert generate(model, prefixes(0), 2, {1}, Decoding(beams=3)) == []
    with pytest.raises(ValueError, match="at least 1"):
        Decoding(beams=0)
    with pytest.raises(ValueError, match="vocabulary of at least 80"):
        generate(model, prefixes(1), 2, {1}, Decoding(beams=40))


def test_logits_that_are_not_finite_abort():
    broken = language().eval()
    with torch.no_grad():
        broken.decoder.final_layer_norm.bias[0] = torch.nan
    with pytest.raises(ValueError, match="not finite"):
        generate(broken, prefixes(2), 2, {1}, Decoding(beams=1))
