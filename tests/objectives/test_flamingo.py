"""Flamingo: which image each token reads, and how the gates open."""

from dataclasses import replace

import pytest
import torch
from helpers import IMAGE, SPECIAL, VOCABULARY, Doc, at_tiny, batch, documents, packed, with_ids, with_images, words
from slow import causally, slow_attention, slow_language, slow_norm
from torch import Tensor, nn

from backbones.attention import attention_weights
from backbones.lm import LanguageModel
from backbones.masks import causal
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout, Rows, TokenType
from objectives.flamingo import Flamingo, media_context
from objectives.functional import total

ROWS = Layout.MEDIA_TOKEN


@pytest.fixture
def flamingo(vision: VisionEncoder, language: LanguageModel) -> Flamingo:
    return Flamingo(at_tiny("objectives", Flamingo), vision, language, SPECIAL).eval()


def make(docs: list[Doc]) -> Batch:
    return batch(docs, Flamingo.layouts, 16)


def open_gates(flamingo: Flamingo, value: float = 0.1) -> None:
    for layer in flamingo.cross_attention:
        nn.init.constant_(layer.attention_gate, value)
        nn.init.constant_(layer.feed_forward_gate, value)


def logits(flamingo: Flamingo, of: Batch) -> Tensor:
    hidden = flamingo.read(of[ROWS], flamingo.resampler(flamingo.encode(of.images)))
    return hidden @ flamingo.language.decoder.embed_tokens.weight.T


def changed_image(of: Batch, k: int) -> Batch:
    images = of.images.clone()
    images[k] += 1.0
    return with_images(of, images)


def latest_image(rows: Rows) -> list[list[int]]:
    """For each position the number of its document's images opened so far; 0 for none and on padding."""
    latest = []
    for kinds, documents_of in zip(rows.token_type.tolist(), rows.doc_id.tolist(), strict=True):
        opened, current, row = 0, None, []
        for kind, document in zip(kinds, documents_of, strict=True):
            if document != current:
                opened, current = 0, document
            opened += kind == TokenType.BOI
            row.append(opened if kind != TokenType.PAD else 0)
        latest.append(row)
    return latest


def differs(a: Tensor, b: Tensor) -> Tensor:
    return (a != b).any(-1)


def test_inv_f_1_starts_as_the_text_only_language_model(flamingo: Flamingo) -> None:
    of = make(documents())
    rows = of[ROWS]
    plain = flamingo.language(flamingo.language.embed(rows.input_ids), causal(rows.attn_mask), rows.position_ids)
    difference = (logits(flamingo, of) - plain @ flamingo.language.decoder.embed_tokens.weight.T).abs()
    assert difference.max() < 1e-6


def test_inv_f_2_gates_open_first(flamingo: Flamingo) -> None:
    of = make(documents())
    gates = [parameter for layer in flamingo.cross_attention for parameter in layer.parameters(recurse=False)]
    behind = [*flamingo.vision.parameters(), *flamingo.resampler.parameters()]
    behind += [p for p in flamingo.cross_attention.parameters() if all(p is not gate for gate in gates)]
    assert len(gates) == 2 * flamingo.language.depth

    total(flamingo(of)).backward()
    assert all((parameter.grad == 0).all() for parameter in behind)
    assert all(gate.grad.abs() > 0 for gate in gates)

    flamingo.zero_grad()
    open_gates(flamingo)
    total(flamingo(of)).backward()
    assert all((parameter.grad != 0).any() for parameter in behind)


def test_states_are_those_of_its_equations_written_out(flamingo: Flamingo) -> None:
    for number, layer in enumerate(flamingo.cross_attention):  # no two gates alike
        nn.init.constant_(layer.attention_gate, 0.5 + number / 4)
        nn.init.constant_(layer.feed_forward_gate, -0.3 - number / 4)
    of = make(documents()[:2])
    rows = of[ROWS]
    latents, words = flamingo.resampler(flamingo.encode(of.images)), flamingo.language.decoder.embed_tokens.weight
    hidden, image = flamingo.read(rows, latents), 0
    for row, doc in enumerate(documents()[:2]):
        length, latest = int(rows.attn_mask[row].sum()), latest_image(rows)[row]
        own = latents[image : image + doc.images].flatten(0, 1)  # side by side, 16 of each image
        image += doc.images

        def gated(i: int, y: Tensor, own: Tensor = own, latest: list[int] = latest) -> Tensor:
            block = flamingo.cross_attention[i]
            read = slow_attention(block.attention, slow_norm(block.norm, y), own, lambda q, k: k // 16 == latest[q] - 1)
            y = y + torch.tanh(block.attention_gate) * read
            norm, up, _, down = block.feed_forward
            wide = slow_norm(norm, y) @ up.weight.T
            wide = wide * (1 + torch.erf(wide / 2**0.5)) / 2
            return y + torch.tanh(block.feed_forward_gate) * (wide @ down.weight.T)

        x = words[rows.input_ids[row, :length]]
        expected = slow_language(flamingo.language, x, range(length), causally, gated)
        torch.testing.assert_close(hidden[row, :length], expected, atol=1e-5, rtol=0)


def test_every_so_many_layers_read_images(vision: VisionEncoder, language: LanguageModel) -> None:
    config = replace(at_tiny("objectives", Flamingo), cross_attention_every=2)
    flamingo, of, called = Flamingo(config, vision, language, SPECIAL), make(documents()), []
    (only,) = flamingo.cross_attention  # of three layers the second
    only.register_forward_pre_hook(lambda module, inputs: called.append(inputs[0]))
    language.decoder.layers[0].register_forward_hook(lambda module, inputs, output: called.append(output))
    watch = flamingo(of).watch
    assert [name for name in watch if "gate" in name] == ["attention_gate_01", "feed_forward_gate_01"]
    first_layer, second_reads = called
    assert torch.equal(first_layer[0] if isinstance(first_layer, tuple) else first_layer, second_reads)
    for every, named in ((0, "at least 1, got 0"), (4, "more than the 3 layers")):
        with pytest.raises(ValueError, match=named):
            Flamingo(replace(config, cross_attention_every=every), vision, language, SPECIAL)


def test_text_reads_images_of_its_own_document_only(vision: VisionEncoder, language: LanguageModel) -> None:
    flamingo = Flamingo(
        replace(at_tiny("objectives", Flamingo), text_targets="after_first_image"), vision, language, SPECIAL
    )
    docs = [
        documents()[0],
        documents()[3],
        documents()[1],
    ]  # the second and the third begin with text and with an image
    of = packed(docs, ROWS, 16)
    rows = of[ROWS]
    latents = flamingo.resampler(flamingo.encode(of.images))
    allowed = media_context(rows, latents)[1].unflatten(-1, (-1, 16))  # [b, t, images, latents]
    numbers, opened, current = latest_image(rows)[0], 0, -1
    for q, (kind, document) in enumerate(zip(rows.token_type[0].tolist(), rows.doc_id[0].tolist(), strict=True)):
        opened += kind == TokenType.BOI
        expected = [numbers[q] > 0 and place == opened - 1 for place in range(len(of.images))]
        assert allowed[0, q].tolist() == [[each] * 16 for each in expected], (q, document, current)
    after = sum(number > 0 for number, kind in zip(numbers, rows.token_type[0].tolist(), strict=True) if kind in (1, 3))
    assert flamingo(of).terms["generate"].count == after == (2 + 2 + 1) + 1 + (4 + 1 + 1)


def test_inv_f_3_text_before_the_first_image_is_blind_to_images(flamingo: Flamingo) -> None:
    open_gates(flamingo, 2.0)
    of = make(documents())
    before = (torch.tensor(latest_image(of[ROWS])) == 0) & of[ROWS].attn_mask
    assert before.sum() > 10
    changed = differs(logits(flamingo, of), logits(flamingo, with_images(of, of.images + 1)))
    assert not changed[before].any()
    assert changed[~before & of[ROWS].attn_mask].all()


def test_inv_f_4_an_image_is_read_until_the_next_one_opens(flamingo: Flamingo, monkeypatch: pytest.MonkeyPatch) -> None:
    def itself(valid: Tensor) -> Tensor:
        return torch.eye(valid.shape[1], dtype=torch.bool).expand(len(valid), -1, -1)

    monkeypatch.setattr("objectives.flamingo.causal", itself)  # no self-attention: only the cross-attention is left
    open_gates(flamingo)
    of = make(documents())
    rows, base = of[ROWS], logits(flamingo, of)
    latest = torch.tensor(latest_image(rows))
    for k in range(len(of.images)):
        row = int(rows.img_row[k])
        readers = torch.zeros_like(rows.attn_mask)
        readers[row] = (latest[row] == latest[row, rows.img_boi[k]]) & rows.attn_mask[row]
        assert torch.equal(differs(logits(flamingo, changed_image(of, k)), base) & rows.attn_mask, readers)


def test_inv_f_5_later_images_and_tokens_change_nothing_before(flamingo: Flamingo) -> None:
    open_gates(flamingo)
    of = make(documents())
    rows, base = of[ROWS], logits(flamingo, of)
    for k in range(len(of.images)):
        changed = differs(logits(flamingo, changed_image(of, k)), base)
        row, column = int(rows.img_row[k]), int(rows.img_boi[k])
        assert not changed[row, :column].any()
        assert changed[row, column]
    changed = differs(logits(flamingo, with_ids(of, ROWS, 0, 6, 9)), base)
    assert not changed[0, :6].any()
    assert changed[0, 6]


def test_inv_f_6_attention_is_shared_among_the_latents_of_one_image(
    flamingo: Flamingo, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[Tensor] = []

    def recording(*arguments: Tensor) -> Tensor:
        held.append(attention_weights(*arguments))
        return held[-1]

    monkeypatch.setattr("backbones.attention.attention_weights", recording)
    of = make(documents())
    rows = of[ROWS]
    flamingo(of)
    latest, crossed = latest_image(rows), held[-flamingo.language.depth :]  # the resampler's layers come first
    assert len(held) == flamingo.config.resampler_depth + flamingo.language.depth
    for weights in crossed:
        per_image = weights.unflatten(-1, (-1, 16)).sum(-1)  # [b, h, t, images of the row]
        for row in range(len(latest)):
            for q in range(int(rows.attn_mask[row].sum())):
                expected = torch.zeros(per_image.shape[-1])
                if latest[row][q]:
                    expected[latest[row][q] - 1] = 1
                torch.testing.assert_close(per_image[row, :, q], expected.expand(2, -1), atol=1e-6, rtol=0)


def test_latents_stand_in_the_order_of_the_row(flamingo: Flamingo) -> None:
    rows = make(documents())[ROWS]
    latents = torch.arange(float(len(rows.img_row)))[:, None, None].expand(-1, 2, 3) + 1
    context, _ = media_context(rows, latents)
    assert context[..., 0].tolist() == [
        [1, 1, 2, 2, 3, 3],
        [4, 4, 5, 5, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [6, 6, 0, 0, 0, 0],
    ]


def test_targets_are_text_and_eos(flamingo: Flamingo) -> None:
    of = make(documents())
    types = of[ROWS].token_type
    wanted = (types == TokenType.TEXT) | (types == TokenType.EOS)
    losses = flamingo(of)
    assert losses.terms["generate"].count == wanted.sum()
    states = logits(flamingo, of).log_softmax(-1)
    by_hand = -sum(states[b, q - 1, of[ROWS].input_ids[b, q]] for b, q in wanted.nonzero().tolist())
    torch.testing.assert_close(losses.terms["generate"].sum, by_hand)
    torch.testing.assert_close(losses.watch["text_nll"], losses.terms["generate"].mean())


def test_text_after_the_first_image_only(vision: VisionEncoder, language: LanguageModel) -> None:
    config = Flamingo.Config(latents=4, resampler_depth=1, heads=2, text_targets="after_first_image")
    losses = Flamingo(config, vision, language, SPECIAL)(make(documents()))
    # middle 2 + 2 + </s>, leading 4 + 1 + </s>, all-text none, final </s>
    assert losses.terms["generate"].count == 5 + 6 + 0 + 1


def test_watch_shows_the_gates_of_every_layer(flamingo: Flamingo) -> None:
    open_gates(flamingo, 0.5)
    watch = flamingo(make(documents())).watch
    for layer in range(flamingo.language.depth):
        assert watch[f"attention_gate_{layer:02d}"] == pytest.approx(0.4621, abs=1e-4)
        assert watch[f"feed_forward_gate_{layer:02d}"] == pytest.approx(0.4621, abs=1e-4)
    assert not any(value.requires_grad for value in watch.values())


def test_all_text_batch_leaves_the_encoder_alone_but_not_the_gated_feed_forward(flamingo: Flamingo) -> None:
    open_gates(flamingo)
    of = make([Doc("t", (words("t", length=8),))])
    losses = flamingo(of)
    assert losses.terms["generate"].count == 9
    total(losses).backward()
    images_side = [*flamingo.vision.parameters(), *flamingo.resampler.parameters()]
    assert all(p.grad is not None and (p.grad == 0).all() for p in images_side)
    for layer in flamingo.cross_attention:
        assert layer.attention_gate.grad == 0
        assert layer.feed_forward_gate.grad != 0


def test_image_at_the_end_of_a_cut_document_gets_no_gradient(flamingo: Flamingo) -> None:
    open_gates(flamingo)
    for cut in (True, False):
        flamingo.zero_grad()
        total(flamingo(make([Doc("end", (words("e", length=4), IMAGE), cut=cut)]))).backward()
        assert any((p.grad != 0).any() for p in flamingo.vision.parameters()) == (not cut)  # the EOS target after it


def test_all_objectives_read_the_same_text_whatever_the_latents(flamingo: Flamingo) -> None:
    assert Flamingo.slots(flamingo.config, 16) == 16
    assert int(make(documents())[ROWS].input_ids.max()) < VOCABULARY


def test_register_defaults() -> None:
    config = Flamingo.Config()
    assert (config.latents, config.resampler_depth, config.heads, config.text_targets) == (64, 6, 8, "all")
