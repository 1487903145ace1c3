"""BLIP-2's first stage: matching, its negatives and its nesting."""

import math
from dataclasses import replace

import pytest
import torch
from helpers import IMAGE, SPECIAL, Doc, batch_for, build, gradients, norm, pairs, share_weights, with_images, words
from slow import slow_language
from torch import Tensor

from backbones.masks import causal
from data.batch import Batch, Layout, TokenType
from data.seeds import torch_generator
from objectives.base import Objective
from objectives.blip2 import Matching, Negatives
from objectives.functional import matching_loss, total
from objectives.hard_negatives import draw, pair_noise


def parts(blip2: Objective, batch: Batch) -> tuple[Tensor, Negatives, Matching]:
    """Visual tokens, drawn negatives and rows of the matching pass."""
    visual = blip2.connector(blip2.encode(batch.images))
    negatives = blip2.negatives(batch, visual.pooled, blip2.context(batch))
    return visual.tokens, negatives, blip2.matching(negatives)


def test_inv_b2_1_nests_clip_and_coca() -> None:
    blip2 = build("blip2")
    batch = batch_for(blip2, pairs(6))
    terms = blip2(batch).terms
    clip, coca = build("clip", seed=1), build("coca", seed=1)
    for other in (clip, coca):
        own = {name: value for name, value in blip2.state_dict().items() if name in other.state_dict()}
        other.load_state_dict(own)
    assert torch.equal(terms["contrast"].sum, clip(batch).terms["contrast"].sum)
    assert torch.equal(terms["caption"].sum, coca(batch).terms["caption"].sum)


def test_inv_b2_2_matching_at_init_and_its_best_constant() -> None:
    blip2 = build("blip2")
    batch = batch_for(blip2, pairs(64))
    term = blip2(batch).terms["match"]
    assert term.count == 3 * 64
    assert term.mean().item() == pytest.approx(math.log(2), abs=0.1)
    rows = parts(blip2, batch)[2]
    constant = torch.tensor([2 / 3, 1 / 3]).log().expand(len(rows.matched), 2)
    entropy = -(math.log(1 / 3) / 3 + 2 * math.log(2 / 3) / 3)
    assert matching_loss(constant, rows.matched).mean().item() == pytest.approx(entropy, rel=1e-5)


def test_inv_b2_3_rows_are_a_set() -> None:
    blip2 = build("blip2")
    batch = batch_for(blip2, pairs(5))
    tokens, _, rows = parts(blip2, batch)
    order = torch.randperm(len(rows.image))
    shuffled = Matching(*(field[order] for field in rows))
    captions = blip2.captions(batch)
    loss = matching_loss(blip2.match(tokens, captions, rows), rows.matched).sum
    logits = blip2.match(tokens, captions, shuffled)
    torch.testing.assert_close(matching_loss(logits, shuffled.matched).sum, loss, atol=1e-5, rtol=0)
    flipped = shuffled.matched.clone()
    flipped[3] = ~flipped[3]
    assert (matching_loss(logits, flipped).sum - loss).abs() > 1e-4


def test_the_matching_pass_written_out() -> None:
    blip2 = build("blip2")
    docs = pairs(3)
    batch = batch_for(blip2, docs)
    tokens, _, rows = parts(blip2, batch)
    tokens = tokens.detach() + torch.arange(16.0)[None, :, None] / 8  # patches that differ, so that none stands for all
    logits = blip2.match(tokens, blip2.captions(batch), rows)
    words, weight, bias = blip2.language.decoder.embed_tokens.weight, blip2.match_head.weight, blip2.match_head.bias
    for row in range(len(rows.image)):
        text = docs[int(rows.text[row])].text
        before, after = [SPECIAL.bos, SPECIAL.boi], [SPECIAL.eoi, *text, SPECIAL.eos]
        x = torch.cat([words[before], tokens[rows.image[row]], words[after]])
        states = slow_language(blip2.language, x, range(len(x)), lambda i, j: True)
        each = torch.stack([state @ weight.T + bias for state in states[2:18]])
        assert (each - each[0]).abs().max() > 1e-3
        torch.testing.assert_close(logits[row], each.mean(dim=0), atol=1e-5, rtol=0)


def test_the_term_is_the_loss_of_these_rows_and_reaches_the_encoder() -> None:
    blip2 = build("blip2")
    batch = batch_for(blip2, pairs(4))
    tokens, _, rows = parts(blip2, batch)
    log_p = blip2.match(tokens, blip2.captions(batch), rows).log_softmax(dim=1)
    by_hand = -sum(log_p[i, int(matched)] for i, matched in enumerate(rows.matched.tolist()))
    term = blip2(batch).terms["match"]
    torch.testing.assert_close(term.sum, by_hand)
    assert norm(gradients(blip2, term.sum), "vision.") > 1e-3


def test_terms_weigh_one_to_one_to_one_and_each_has_a_weight_of_its_own() -> None:
    batch = batch_for(build("blip2"), pairs(3))
    assert build("blip2")(batch).weights == {"contrast": 1.0, "match": 1.0, "caption": 1.0}
    weighed = build("blip2", contrast_weight=2.0, match_weight=3.0, caption_weight=5.0)
    assert weighed(batch).weights == {"contrast": 2.0, "match": 3.0, "caption": 5.0}


def test_a_pair_draws_its_wrong_image_and_its_wrong_caption_on_their_own() -> None:
    blip2, equal = build("blip2", hardness=0.0), []
    for epoch in range(10):
        drawn = parts(blip2, batch_for(blip2, pairs(12), epoch=epoch))[1]
        equal.append((drawn.image == drawn.text).float().mean())
    assert torch.stack(equal).mean().item() == pytest.approx(1 / 11, abs=0.08)  # eleven even candidates


def test_each_pair_has_one_right_and_two_wrong_rows() -> None:
    blip2 = build("blip2")
    _, negatives, rows = parts(blip2, batch_for(blip2, pairs(5)))
    assert rows.counted.all()
    assert sorted(zip(rows.image[rows.matched].tolist(), rows.text[rows.matched].tolist(), strict=True)) == [
        (i, i) for i in range(5)
    ]
    wrong = zip(rows.image[~rows.matched].tolist(), rows.text[~rows.matched].tolist(), strict=True)
    expected = [(int(negatives.image[i]), i) for i in range(5)] + [(i, int(negatives.text[i])) for i in range(5)]
    assert sorted(wrong) == sorted(expected)


def twins() -> list[Doc]:
    docs = pairs(4)
    return [*docs, *(replace(doc, uid=f"twin-of-{doc.uid}") for doc in docs[:3])]


def test_inv_b2_4_negatives_are_neither_self_nor_twin() -> None:
    blip2 = build("blip2")
    for epoch in range(20):
        batch = batch_for(blip2, twins(), epoch=epoch)
        _, negatives, _ = parts(blip2, batch)
        for drawn in (negatives.image, negatives.text):
            assert (batch.caption_hash[drawn] != batch.caption_hash).all()
    # Without the filter a twin is drawn sooner or later, and a pair never draws itself.
    blip2, drawn_twins = build("blip2", filter_captions=False), 0
    for epoch in range(20):
        batch = batch_for(blip2, twins(), epoch=epoch)
        drawn = parts(blip2, batch)[1].text
        assert (drawn != torch.arange(7)).all()
        drawn_twins += int((batch.caption_hash[drawn] == batch.caption_hash).sum())
    assert drawn_twins > 0


def test_inv_b2_4_draws_belong_to_documents_not_to_places() -> None:
    blip2, docs = build("blip2"), pairs(6)
    order = [4, 2, 0, 5, 1, 3]
    _, one, _ = parts(blip2, batch_for(blip2, docs))
    _, two, _ = parts(blip2, batch_for(blip2, [docs[i] for i in order]))
    for a, b in ((one.image, two.image), (one.text, two.text)):
        assert [order[i] for i in b.tolist()] == a[order].tolist()
    draws = [parts(blip2, batch_for(blip2, docs, epoch=epoch))[1].image.tolist() for epoch in range(8)]
    assert len({tuple(each) for each in draws}) > 1  # another epoch, other negatives


def test_inv_b2_5_a_dominant_candidate_is_always_drawn() -> None:
    blip2 = build("blip2")
    blip2.temperature.log_scale.data.fill_(math.log(100))
    v, t = torch.eye(6, 128), torch.zeros(6, 128)
    for i in range(6):  # caption i looks like image i + 1 and nothing else
        t[i, (i + 1) % 6] = 1
    for epoch in range(20):
        drawn = blip2.negatives(batch_for(blip2, pairs(6), epoch=epoch), v, t)
        assert drawn.image.tolist() == [1, 2, 3, 4, 5, 0]
        assert drawn.text.tolist() == [5, 0, 1, 2, 3, 4]


def test_inv_b2_6_matching_reaches_the_encoder_through_right_and_wrong_images() -> None:
    blip2 = build("blip2")
    batch = batch_for(blip2, pairs(6))
    patches = blip2.encode(batch.images)
    tokens = blip2.connector(patches).tokens
    _, _, rows = parts(blip2, batch)
    logits = blip2.match(tokens, blip2.captions(batch), rows)
    for matched in (True, False):
        chosen = rows.matched == matched
        term = matching_loss(logits[chosen], rows.matched[chosen])
        (grad,) = torch.autograd.grad(term.sum, patches, retain_graph=True)
        reached = grad.flatten(1).norm(dim=1) > 0
        assert reached[rows.image[chosen]].all()
        assert norm(gradients(blip2, term.sum), "vision.") > 1e-4
    only_wrong = slice(6, 12)  # rows of drawn images
    (grad,) = torch.autograd.grad(logits[only_wrong].sum(), patches)
    assert (grad.flatten(1).norm(dim=1) > 0).tolist() == [i in rows.image[only_wrong].tolist() for i in range(6)]


def test_inv_b2_6_captions_are_causal_and_matching_is_not() -> None:
    blip2 = build("blip2")
    batch = batch_for(blip2, pairs(3))
    tokens, _, matching = parts(blip2, batch)
    rows = batch[Layout.IMAGE_FIRST]
    text = (rows.token_type[1] == TokenType.TEXT).nonzero()[:, 0]
    ids = rows.input_ids.clone()
    ids[1, text[-1]] = 3 if ids[1, text[-1]] != 3 else 4
    other = replace(batch, rows={**batch.rows, Layout.IMAGE_FIRST: replace(rows, input_ids=ids)})

    def states(of: Batch) -> Tensor:
        r = of[Layout.IMAGE_FIRST]
        return blip2.language(blip2.embed(r, tokens), causal(r.attn_mask), r.position_ids)

    same = (states(batch) == states(other)).all(dim=-1)
    assert same[1, : text[-1]].all() and not same[1, text[-1] :].all()
    moved = blip2.match(tokens, blip2.captions(batch), matching) - blip2.match(tokens, blip2.captions(other), matching)
    uses_it = matching.text == 1
    assert (moved[uses_it].abs().amax(dim=1) > 1e-7).all() and (moved[~uses_it] == 0).all()


def test_matching_ignores_padding() -> None:
    blip2 = build("blip2")
    batch = batch_for(blip2, pairs(3))
    tokens, _, rows = parts(blip2, batch)
    captions = blip2.captions(batch)
    padding = captions.new_tensor([blip2.special.pad, TokenType.PAD, 0])[:, None].expand(3, 3, 5)
    longer = blip2.match(tokens, torch.cat([captions, padding], dim=2), rows)
    torch.testing.assert_close(longer, blip2.match(tokens, captions, rows), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "docs",
    [
        pairs(1),
        [Doc("a", (IMAGE, (5, 6))), Doc("b", (IMAGE, (5, 6)))],
        [Doc("a", (IMAGE, (5, 6))), Doc("empty", (IMAGE, ()))],
    ],
    ids=["one pair", "only twins", "only an empty caption"],
)
def test_without_an_admissible_negative_the_triple_is_skipped(docs: list[Doc]) -> None:
    blip2 = build("blip2")
    losses = blip2(batch_for(blip2, docs))
    assert losses.terms["match"].count == losses.terms["match"].sum == 0
    assert losses.terms["caption"].count > 0
    grads = gradients(blip2, total(losses))
    assert all(grad.isfinite().all() for grad in grads.values())
    assert norm(grads, "match_head.") == 0


def test_triples_without_negatives_are_left_out_one_by_one() -> None:
    blip2 = build("blip2")
    docs = [*pairs(3), Doc("empty", (IMAGE, ()))]
    batch = batch_for(blip2, docs)
    _, negatives, rows = parts(blip2, batch)
    assert negatives.found.tolist() == [True, True, True, False]
    assert blip2(batch).terms["match"].count == 9
    assert 3 not in rows.text[rows.counted].tolist() and 3 not in rows.image[rows.counted].tolist()


def test_local_negatives_are_global_ones_on_one_rank() -> None:
    blip2, local = build("blip2"), build("blip2", negatives="local")
    share_weights(blip2, local)
    batch = batch_for(blip2, pairs(6))
    assert torch.equal(blip2(batch).terms["match"].sum, local(batch).terms["match"].sum)


def test_negatives_are_drawn_by_what_is_contrasted(monkeypatch: pytest.MonkeyPatch) -> None:
    blip2, seen = build("blip2", image_pool="mean"), []
    batch = batch_for(blip2, pairs(4))
    drawn_by = blip2.negatives
    monkeypatch.setattr(blip2, "negatives", lambda of, v, t: seen.append(v) or drawn_by(of, v, t))
    blip2(batch)
    torch.testing.assert_close(seen[0], blip2.connector(blip2.encode(batch.images)).tokens.mean(dim=1))


def test_hardness_scales_the_similarities_of_the_draw() -> None:
    docs, even, hard = pairs(8), build("blip2", hardness=0.0), build("blip2", hardness=3.0)
    v, t = torch.eye(8, 128), torch.eye(8, 128).roll(1, dims=0)  # caption i looks like image i - 1
    drawn = {
        name: torch.stack([of.negatives(batch_for(of, docs, epoch=epoch), v, t).image for epoch in range(40)])
        for name, of in (("even", even), ("hard", hard))
    }
    looks_like = torch.arange(8).roll(1)
    assert (drawn["hard"] == looks_like).all()
    assert (drawn["even"] == looks_like).float().mean().item() == pytest.approx(1 / 7, abs=0.06)
    with pytest.raises(ValueError, match="hardness.*-1"):
        build("blip2", hardness=-1.0)


COLOURS = torch.tensor([[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0], [1.0, 1.0, 1.0]])


def coloured(blip2: Objective, step: int) -> Batch:
    """24 pairs that nobody has seen: a picture of one noisy colour and the word for it."""
    stream = torch_generator("coloured", step)
    colours = torch.randint(len(COLOURS), (24,), generator=stream)
    docs = [Doc(f"{step}-{i}", (IMAGE, (10 + int(colour),))) for i, colour in enumerate(colours)]
    noise = torch.randn(24, 3, 32, 32, generator=stream)
    return with_images(batch_for(blip2, docs), COLOURS[colours][:, :, None, None] + 0.3 * noise)


def test_matching_is_learned_where_pictures_and_captions_agree() -> None:
    blip2 = build("blip2", contrast_weight=0.0, caption_weight=0.0, hardness=0.0)
    optimizer = torch.optim.AdamW(blip2.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, total_iters=45)  # a full rate to the end jumps
    found = []
    for step in range(45):
        losses = blip2(coloured(blip2, step))
        optimizer.zero_grad()
        total(losses).backward()
        torch.nn.utils.clip_grad_norm_(blip2.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        found.append(losses.terms["match"].mean().item())
    assert sum(found[-5:]) / 5 < 0.3  # always answering one third costs 0.637


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0, -1.0]]).repeat(20_000, 1)
    allowed = torch.tensor([True, True, False, True]).expand_as(logits)
    drawn = draw(logits, allowed, pair_noise(torch.arange(20_000), torch.arange(4) + 10**15, 1))
    expected = logits[0].masked_fill(~allowed[0], -math.inf).softmax(dim=0)
    share = drawn.bincount(minlength=4) / len(drawn)
    assert share[2] == 0
    torch.testing.assert_close(share, expected, atol=0.012, rtol=0)


def test_noise_is_gumbel_and_reproducible() -> None:
    left, right = torch.arange(300) * 7919, torch.arange(300) + 2**62
    noise = pair_noise(left, right, 1)
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.02)
    assert noise.std().item() == pytest.approx(math.pi / math.sqrt(6), abs=0.02)
    assert torch.equal(noise[5:9, 7:8], pair_noise(left[5:9], right[7:8], 1))
    assert (noise == pair_noise(left, right, 2)).float().mean() < 0.01
    assert abs(torch.corrcoef(torch.stack([noise[:-1].flatten(), noise[1:].flatten()]))[0, 1]) < 0.02


def test_noise_hash_is_splitmix64() -> None:
    def mix(x: int) -> int:
        x = (x + 0x9E3779B97F4A7C15) % 2**64
        x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ x >> 27) * 0x94D049BB133111EB % 2**64
        return x ^ x >> 31

    assert mix(0) == 0xE220A8397B1DCDAF  # the generator's published first output for seed 0
    left, right = 2**62 + 12345, 987654321987654321
    uniform = ((mix(mix(left + 2) ^ right) >> 11) + 0.5) / 2**53
    noise = pair_noise(torch.tensor([left]), torch.tensor([right]), 2)
    assert noise.item() == pytest.approx(-math.log(-math.log(uniform)), rel=1e-12)


def test_batch_needs_no_common_caption_length() -> None:
    blip2 = build("blip2")
    docs = [Doc("short", (IMAGE, (5,))), Doc("long", (IMAGE, words("long", length=20)))]
    assert blip2(batch_for(blip2, docs)).terms["match"].count == 6
