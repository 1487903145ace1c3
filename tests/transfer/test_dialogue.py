"""LLaVA's model: pictures in rows, the loss on answers, what trains in each stage and mode, answers resumed."""

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from transfer_helpers import Words, encoder, language

from backbones import masks
from data.batch import TokenType
from data.dialogue.example import Example
from data.dialogue.order import batches
from experiments.running.stages.dialogue import by_algorithm
from objectives.functional import total
from transfer.dialogue import stream as stream_module
from transfer.dialogue.answer import answered, answers
from transfer.dialogue.head import AlignHead, TuneHead
from transfer.dialogue.recipe import STAGES
from transfer.dialogue.stream import Pictures, TalkStream, rows, squared
from transfer.encoder import fingerprint
from transfer.freeze import frozen_transfer, full_transfer, unchanged
from transfer.pictures import BehindFrozen, PictureBatch, Tuned, gradient_norm

PATCHES = 4  # of the test encoder
TEXT, IMG, EOS = TokenType.TEXT, TokenType.IMG, TokenType.EOS
ALIGN, TUNE = STAGES.values()
STAGE = replace(TUNE, batch=3, epochs=2.0)


def example(shown: bool, question: int, answer: list[int]) -> Example:
    slots = PATCHES if shown else 0
    ids = [1, *[7] * slots, question, question, *answer, 2]
    kinds = [TokenType.BOS, *[IMG] * slots, TEXT, TEXT, *[TEXT] * len(answer), EOS]
    return Example(tuple(ids), tuple(kinds), (*[False] * (3 + slots), *[True] * (len(answer) + 1)), 0)


EXAMPLES = [example(True, 9, [10]), example(True, 11, [12, 13, 14]), example(False, 15, [16, 17])]


def talk(examples=EXAMPLES, tokens=None):
    made = rows(examples, fill=0)
    if tokens is None:
        tokens = torch.randn(len(examples), PATCHES, 64, generator=torch.Generator().manual_seed(1))
    return replace(made, tokens=tokens, patches=slice(0, PATCHES))


@pytest.fixture
def tune():
    torch.manual_seed(0)
    return TuneHead(64, language())


def pictures():
    made = encoder()

    def load(name):
        return Image.new("RGB", (16, 12), tuple(int(part) for part in name.split(",")))

    return made, Pictures(load, made.transform, pads=True)


def test_a_picture_fills_the_slots_of_its_own_row_in_order(tune):
    batch = talk()
    x = tune.embedded(batch.tokens, batch.ids, batch.kinds)
    images, words = tune.projector(batch.tokens), tune.language.embed(batch.ids)
    for row in (0, 1):
        torch.testing.assert_close(x[row, 1 : 1 + PATCHES], images[row])
        torch.testing.assert_close(x[row, 1 + PATCHES :], words[row, 1 + PATCHES :])
    torch.testing.assert_close(x[2], words[2])
    with pytest.raises(ValueError, match=r"rows have \[0, 4\] slots, a picture has 5 patches"):
        tune.embedded(torch.zeros(3, 5, 64), batch.ids, batch.kinds)


def test_the_loss_is_that_of_each_answer_written_out(tune):
    batch, nll, count = talk(), 0.0, 0
    for row, each in enumerate(EXAMPLES):
        alone = talk([each], batch.tokens[row : row + 1])
        x = tune.embedded(alone.tokens, alone.ids, alone.kinds)
        valid = torch.ones(1, len(each), dtype=torch.bool)
        hidden = tune.language(x, masks.causal(valid), torch.arange(len(each))[None])[0]
        for place in [at for at, own in enumerate(each.learned) if own]:
            logits = tune.language.logits(hidden[place - 1 : place])
            nll += F.cross_entropy(logits, torch.tensor([each.ids[place]])).item()
            count += 1
    term = tune(batch).terms["generate"]
    assert term.count == count == 2 + 4 + 3
    assert term.sum.item() == pytest.approx(nll, rel=1e-5)


def test_text_alone_gives_the_projector_no_gradient(tune):
    total(tune(talk(EXAMPLES[2:]))).backward()
    assert gradient_norm(tune.projector) == 0 and gradient_norm(tune.language) > 0


def test_stage_1_trains_the_projector_alone_and_through_the_language_model():
    base = language()
    before = fingerprint(base)
    head = AlignHead(64, base)
    assert {name.partition(".")[0] for name, _ in head.named_parameters()} == {"projector"}
    groups = frozen_transfer(head, encoder().module, STAGE)
    optimiser = torch.optim.AdamW([{"params": list(group.parameters.values()), "lr": 0.1} for group in groups])
    total(head(talk())).backward()
    assert gradient_norm(head.projector) > 0 and gradient_norm(head.decoder) == 0
    optimiser.step()
    assert fingerprint(head.decoder) == fingerprint(base) == before and not head.decoder.training


@pytest.mark.parametrize("kind", [AlignHead, TuneHead])
def test_the_language_model_goes_where_the_projector_goes(kind):
    head = kind(64, language()).to("meta", torch.float64)
    assert {(each.device.type, each.dtype) for each in head.decoder.parameters()} == {("meta", torch.float64)}
    assert head.projector[0].weight.device.type == "meta"


def test_stage_2_trains_both_and_full_every_block_of_the_encoder(tune):
    made, held = pictures()
    images = held.read(["9,200,3", "250,0,0", None], 1)
    frozen = BehindFrozen(tune, made)
    frozen_transfer(frozen, made.module, STAGE)
    with unchanged(made.module):
        total(frozen(PictureBatch(images, rows(EXAMPLES, 0)))).backward()
    assert all(gradient_norm(block) == 0 for block in made.module.blocks)
    assert gradient_norm(tune.projector) > 0 and gradient_norm(tune.language) > 0
    tuned = Tuned(tune, made)
    groups = full_transfer(tuned, STAGE)
    total(tuned(PictureBatch(images, rows(EXAMPLES, 0)))).backward()
    assert all(gradient_norm(block) > 0 for block in made.module.blocks)
    assert {group.lr for group in groups if group.name.startswith("vision")} == {STAGE.vision.lr}


def test_the_stages_of_table_8():
    told = {(stage.batch, stage.lr, stage.weight_decay, stage.betas, stage.epochs) for stage in (ALIGN, TUNE)}
    assert told == {(512, 1e-3, 1e-4, (0.9, 0.95), 1.0), (128, 2e-5, 1e-4, (0.9, 0.95), 1.0)}
    assert round(ALIGN.warmup * 1091) == 30 and round(TUNE.warmup * 5198) == 156
    assert TUNE.lr_pretrained == TUNE.vision.lr == 2e-5 and TUNE.vision.layer_decay == 1


def test_the_order_of_an_epoch_is_made_once(monkeypatch):
    made = []
    monkeypatch.setattr(stream_module, "batches", lambda *given: made.append(given[-1]) or batches(*given))
    stream = TalkStream(EXAMPLES * 2, [None] * 6, STAGE, seed=0, fill=0, pictures=None, workers=1)
    assert len(list(stream.batches())) == stream.steps == 4
    assert made == [0, 1]


def test_a_picture_is_padded_with_the_mean_colour_in_the_middle():
    wide = squared(Image.new("RGB", (10, 4), "red"), (0.5, 0.25, 0.0))
    assert wide.size == (10, 10) and wide.getpixel((5, 5)) == (255, 0, 0)
    assert wide.getpixel((5, 2)) == wide.getpixel((5, 8)) == (127, 63, 0)
    tall = squared(Image.new("RGB", (3, 9), "red"), (0.5, 0.25, 0.0))
    assert tall.getpixel((2, 4)) == (127, 63, 0) and tall.getpixel((4, 4)) == (255, 0, 0)


def test_batches_are_a_function_of_the_step():
    _, held = pictures()
    stream = TalkStream(EXAMPLES * 2, ["1,2,3", "4,5,6", None] * 2, STAGE, seed=0, fill=0, pictures=held, workers=1)
    whole = list(stream.batches())
    assert stream.steps == len(whole) == 2 * 3  # an epoch: two batches with pictures, of 3 and 1, and one of text alone
    for one, other in zip(stream.batches(4), whole[4:], strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.learned.ids, other.learned.ids)
    assert stream.images == sum(int((batch.learned.kinds == IMG).any(dim=1).sum()) for batch in whole) == 2 * 4
    blind = TalkStream(EXAMPLES * 2, [None] * 6, STAGE, seed=0, fill=0, pictures=None, workers=1)
    assert blind.images == 0
    for batch in whole:
        shown = (batch.learned.kinds == IMG).any(dim=1)
        assert shown.all() or not shown.any()


def test_answers_do_not_depend_on_how_many_are_asked_at_once(tune):
    made, held = pictures()
    prompts = [Example(each.ids[:-2], each.kinds[:-2], each.learned[:-2], 0) for each in EXAMPLES]
    names = ["9,200,3", "250,0,0", None]

    def tokens(asked):
        return made.module.tokens(held.read(asked, 1))[:, made.patches]

    together = answers(tune, Words(), prompts, names, tokens, 5)
    alone = [answers(tune, Words(), [p], [n], tokens, 5)[0] for p, n in zip(prompts, names, strict=True)]
    assert together == alone and tune.training


def test_answering_goes_on_where_it_was_killed(tmp_path):
    lines = [{"question_id": "a/1.png", "text": f"q{n}"} for n in range(5)]
    path, seen = tmp_path / "answers.jsonl", []

    def answer(some):
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.extend(line["text"] for line in some)
        return [f"to {line['text']}" for line in some]

    with pytest.raises(KeyboardInterrupt):
        answered(path, lines, answer, 2)
    path.write_text(path.read_text() + '{"question_id": "a/1.png", "prom')  # what a kill leaves
    seen.append("more")
    answered(path, lines, answer, 2)
    assert seen == ["q0", "q1", "more", "q2", "q3", "q4"]
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(each["prompt"], each["text"]) for each in found] == [(f"q{n}", f"to q{n}") for n in range(5)]
    before = path.read_bytes()
    answered(path, lines, answer, 2)
    assert path.read_bytes() == before


def test_muon_trains_the_weights_of_linear_layers_and_of_nothing_else(tune):
    made, _ = pictures()
    tuned = Tuned(tune, made)
    groups = full_transfer(tuned, STAGE)
    found = by_algorithm(groups, tuned, "muon")
    names = {id(parameter): name for name, parameter in tuned.named_parameters()}
    by = {
        kind: {names[id(p)] for g in found if g["algorithm"] == kind for p in g["params"]} for kind in ("muon", "adamw")
    }
    assert by["muon"] | by["adamw"] == set(names.values()) and not by["muon"] & by["adamw"]
    assert {"head.projector.0.weight", "head.language.decoder.layers.0.fc1.weight"} <= by["muon"]
    assert not [name for name in by["muon"] if "embed" in name or name.endswith("bias") or "norm" in name]
    assert {g["algorithm"] for g in by_algorithm(groups, tuned, "adamw")} == {"adamw"}
    rates = {names[id(p)]: (g.lr, g.weight_decay) for g in groups for p in g.parameters.values()}
    assert rates == {names[id(p)]: (g["peak"], g["weight_decay"]) for g in found for p in g["params"]}
