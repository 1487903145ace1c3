"""LLaVA's conversations: what is read, how it is written, which tokens are learned, and which batches are made.

Labels are compared with an implementation that shares nothing with ours: it counts the tokens of growing prefixes.
"""

import json
import random
from collections import Counter
from io import BytesIO

import pytest
from llm_helpers import tokenizer as hub_tokenizer
from PIL import Image

from backbones.llm import LlmTokenizer
from data.batch import TokenType
from data.dialogue.conversation import Conversation, Flaw, Round, read_conversations
from data.dialogue.example import tokenised
from data.dialogue.order import batches
from data.dialogue.template import SYSTEM, as_text, asked, fits, written
from data.dialogue.usable import usable
from data.errors import CorpusError
from data.loading import readable
from data.tokenizer import Tokenizer

TEXTS = [
    "What is it?",
    "A red square on a green one .",
    "USER: no </s> ASSISTANT: yes",
    "élan, naïve 日本",
    " two  spaces\n",
]
SLOTS = 4


@pytest.fixture(scope="module", params=["ours", "transformers"])
def tokens(request):
    """A tokenizer trained on the templates' own words, as every real one has seen them."""
    if request.param == "ours":
        return Tokenizer.train_bpe([f"{SYSTEM} USER: {text} ASSISTANT: {text}" for text in TEXTS], 420)
    return LlmTokenizer(hub_tokenizer())


def record(turns, **more):
    speakers = ("human", "gpt")
    said = [{"from": speakers[at % 2], "value": text} for at, text in enumerate(turns)]
    return {"id": "k1", "conversations": said, **more}


@pytest.fixture
def read(tmp_path):
    (tmp_path / "there.jpg").write_bytes(b"")

    def one(entry):
        path = tmp_path / "records.json"
        path.write_text(json.dumps([entry]))
        return next(iter(read_conversations(path, tmp_path)))

    return one


def test_a_marker_goes_to_the_front_of_its_turn(read):
    for question in ("<image>\nWhat is it?", "What is it?\n<image>", "<image>What is it?"):
        found = read(record([question, "A cup"], image="there.jpg"))
        assert found == Conversation("k1", "there.jpg", (Round("What is it?", "A cup"),), 0)
    text = as_text(written(found, "vicuna_v1"))
    assert text == f"{SYSTEM} USER: <image>\nWhat is it? ASSISTANT: A cup</s>"
    later = read(record(["Hello", "Hi", "<image>", "A cup"], image="there.jpg"))
    assert as_text(written(later, "vicuna_v1")) == (
        f"{SYSTEM} USER: Hello ASSISTANT: Hi</s>USER: <image> ASSISTANT: A cup</s>"
    )


@pytest.mark.parametrize("template", ["vicuna_v1", "turns"])
def test_a_question_is_asked_as_it_was_learned(read, template):
    for image in ("there.jpg", None):
        question = "<image>\nWhat is it?" if image else "What is it?"
        learned = as_text(written(read(record([question, "A cup"], image=image)), template))
        assert learned == f"{as_text(asked('What is it?', image is not None, template))} A cup</s>"
        assert learned.startswith(SYSTEM) == (template == "vicuna_v1")


def test_the_plain_template_throws_the_question_away(read):
    found = read(record(["Describe it.\n<image>", "a cup"], image="there.jpg"))
    assert as_text(written(found, "plain")) == "<image>a cup\n"
    long = read(record(["<image>", "a", "b", "c"], image="there.jpg"))
    assert not fits(long, "plain") and fits(long, "vicuna_v1")
    with pytest.raises(ValueError, match="k1: the plain template takes a picture and one round"):
        written(long, "plain")


def test_a_first_turn_of_gpt_is_left_out_and_text_alone_is_kept(read):
    entry = record(["Hi", "What?", "Nothing"], model="")
    entry["conversations"] = [{"from": "gpt", "value": "Hi"}, *record(["What <image>?", "It"])["conversations"]]
    assert read(entry) == Conversation("k1", None, (Round("What <image>?", "It"),), None)


@pytest.mark.parametrize(
    ("entry", "flaw"),
    [
        ({"id": "k1"}, Flaw.SCHEMA),
        ("text", Flaw.SCHEMA),
        (record(["a", 3]), Flaw.SCHEMA),
        (record([]), Flaw.TURNS),
        (record(["a", "b", "c"]), Flaw.TURNS),
        ({"id": "k1", "conversations": [{"from": "human", "value": "a"}] * 2}, Flaw.TURNS),
        (record(["a", " \n"]), Flaw.EMPTY_ANSWER),
        (record(["a", "b"], image="there.jpg"), Flaw.MARKER),
        (record(["<image><image>", "b"], image="there.jpg"), Flaw.MARKER),
        (record(["a", "<image>"], image="there.jpg"), Flaw.MARKER),
        (record(["<image>", "b"], image="gone.jpg"), Flaw.MISSING_IMAGE),
        (record(["<image>", "b"], image="n" * 300 + ".jpg"), Flaw.MISSING_IMAGE),
        (record(["a", "half \ud800"]), Flaw.SCHEMA),
        (record(["<image>", "b"], image="\ud800.jpg"), Flaw.SCHEMA),
        (record(["a", "b"]) | {"id": "\ud800"}, Flaw.SCHEMA),
    ],
)
def test_flaws(read, entry, flaw):
    assert read(entry).flaw is flaw


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.jpg", "a/../../secret.jpg"])
def test_no_picture_lies_outside_the_folder_of_pictures(read, name):
    assert read(record(["<image>", "A cup"], image=name)).flaw is Flaw.SCHEMA


def pictured(folder, bad):
    """Eight records with a picture each, of which those in `bad` have such bytes instead."""
    fine = BytesIO()
    Image.new("RGB", (20, 20), "red").save(fine, "JPEG")
    for at in range(8):
        (folder / f"{at}.jpg").write_bytes(bad.get(at, fine.getvalue()))
    records = [record(["<image>\nWhat?", "A cup"], image=f"{at}.jpg") | {"id": f"k{at}"} for at in range(8)]
    (folder / "tune.json").write_text(json.dumps(records))
    return folder / "tune.json"


def test_pictures_that_cannot_be_decoded_are_counted_and_left_out_up_to_the_limit(tmp_path, monkeypatch):
    path = pictured(tmp_path, {2: b"<html>404</html>", 5: b""})
    (tmp_path / "7.jpg").unlink()

    def look(limit):
        return usable(path, tmp_path, "vicuna_v1", max_broken=limit, cache=tmp_path / "cache")

    found = look(0.5)
    assert [each.item_id for each in found.conversations] == ["k0", "k1", "k3", "k4", "k6"]
    assert found.left_out == {Flaw.UNREADABLE: 2, Flaw.MISSING_IMAGE: 1}
    assert found.coverage == {"documents": 5, "skipped": 3, "unreadable": 2, "missing_image": 1}
    with pytest.raises(
        CorpusError, match=r"3 of 8 records cannot.* 38%; .*max_broken=0.3\. .*as k2: 2.jpg: decode_err"
    ):
        look(0.3)
    monkeypatch.setattr(readable, "open_image", None)  # looked at once, while the files stay as they are
    assert look(0.5) == found
    monkeypatch.undo()
    (tmp_path / "5.jpg").write_bytes((tmp_path / "0.jpg").read_bytes())
    assert "k5" in {each.item_id for each in look(0.5).conversations}


def test_nothing_to_learn_from_is_refused(tmp_path):
    (tmp_path / "tune.json").write_text("[]")
    with pytest.raises(CorpusError, match="holds no conversation that can be learned from .it is empty"):
        usable(tmp_path / "tune.json", tmp_path, "turns", max_broken=1.0)


def test_a_file_that_is_no_list_is_refused(tmp_path):
    for content, words in (("{}", "holds dict"), ("[", "is no JSON")):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(CorpusError, match=words):
            list(read_conversations(tmp_path / "x.json", tmp_path))


def random_conversation(stream: random.Random, number: int) -> Conversation:
    rounds = tuple(Round(stream.choice(TEXTS), stream.choice(TEXTS)) for _ in range(stream.randint(1, 4)))
    shown = stream.choice([None, *range(len(rounds))])
    return Conversation(f"k{number}", None if shown is None else "x.jpg", rounds, shown)


def by_counting(conversation: Conversation, tokenizer) -> tuple[list[int], list[bool]]:
    """Ids and labels from lengths of prefixes: what an answer adds to the tokens of all that stands before it."""
    special = tokenizer.special
    ids, learned, chunk = [special.bos], [False], SYSTEM + " "
    for number, each in enumerate(conversation.rounds):
        chunk += "USER: "
        if number == conversation.shown:
            before = tokenizer.encode(chunk)
            ids += [*before, *[special.img] * SLOTS]
            learned += [False] * (len(before) + SLOTS)
            chunk = "\n"
        whole = f"{chunk}{each.question} ASSISTANT: {each.answer}"
        asked, both = (tokenizer.encode(text) for text in (f"{chunk}{each.question} ASSISTANT:", whole))
        assert both[: len(asked)] == asked  # a prompt is how training goes on from it
        ids += [*both, special.eos]
        learned += [False] * len(asked) + [True] * (len(both) - len(asked) + 1)
        chunk = ""
    return ids, learned


def test_labels_of_200_random_conversations_are_the_answers_and_nothing_else(tokens):
    stream = random.Random(0)
    for number in range(200):
        conversation = random_conversation(stream, number)
        example = tokenised(conversation.item_id, written(conversation, "vicuna_v1"), tokens, SLOTS, 4096)
        ids, learned = by_counting(conversation, tokens)
        assert list(example.ids) == ids and list(example.learned) == learned
        assert Counter(example.kinds)[TokenType.EOS] == len(conversation.rounds)
        said = tokens.decode([token for token, own in zip(ids, example.learned, strict=True) if own])
        assert "".join(said.split()) == "".join("".join(each.answer for each in conversation.rounds).split())
        assert not any(own for own, kind in zip(example.learned, example.kinds, strict=True) if kind is TokenType.IMG)


def test_stage_1_learns_the_caption_and_the_newline(tokens):
    pair = Conversation("k1", "x.jpg", (Round("Describe it.", "a red square"),), 0)
    example = tokenised("k1", written(pair, "plain"), tokens, SLOTS, 64)
    assert list(example.ids) == [tokens.special.bos, *[tokens.special.img] * SLOTS, *tokens.encode("a red square\n")]
    assert list(example.learned) == [False] * (1 + SLOTS) + [True] * (len(example) - 1 - SLOTS)


def test_text_is_cut_and_counted_and_a_picture_never_is(tokens):
    rounds = (Round("What is it?", "A red square on a green one ."), Round("And?", "A cup"))
    first, second = (Conversation("k1", "x.jpg", rounds, shown) for shown in (0, 1))
    whole = tokenised("k1", written(first, "vicuna_v1"), tokens, SLOTS, 4096)
    at = whole.kinds.index(TokenType.IMG) + SLOTS
    cut = tokenised("k1", written(first, "vicuna_v1"), tokens, SLOTS, at + 3)
    assert cut.ids == whole.ids[: at + 3] and cut.cut == len(whole) - at - 3
    for conversation, longest in ((first, at - 1), (second, at)):
        with pytest.raises(CorpusError, match=r"k1: its picture takes 4 tokens from number \d+ on, but"):
            tokenised("k1", written(conversation, "vicuna_v1"), tokens, SLOTS, longest)


def test_a_question_that_is_asked_is_never_cut(tokens):
    pieces = asked("What is it? " * 50, True, "vicuna_v1")
    whole, cut = (tokenised("q", pieces, tokens, SLOTS, longest) for longest in (None, 200))
    assert whole.cut == 0 and whole.ids[: len(cut)] == cut.ids and cut.cut == len(whole) - 200 > 0
    assert tokens.decode(list(whole.ids)[-30:]).endswith("ASSISTANT:")


def test_batches_hold_one_modality_once_each_and_the_longest_first():
    stream = random.Random(0)
    lengths, pictured = [stream.randint(1, 99) for _ in range(101)], [stream.random() < 0.8 for _ in range(101)]
    made = batches(lengths, pictured, 8, seed=1, epoch=0)
    assert sorted(place for batch in made for place in batch) == list(range(101))
    assert all(len({pictured[place] for place in batch}) == 1 for batch in made)
    assert all(
        [lengths[place] for place in batch] == sorted((lengths[p] for p in batch), reverse=True) for batch in made
    )
    assert made == batches(lengths, pictured, 8, seed=1, epoch=0)
    assert made != batches(lengths, pictured, 8, seed=1, epoch=1) != batches(lengths, pictured, 8, seed=2, epoch=1)
    with pytest.raises(ValueError, match="at least 1 conversation"):
        batches(lengths, pictured, 0, seed=1, epoch=0)


def test_an_epoch_of_the_mix_has_the_steps_of_table_8():
    pictured = [True] * 624_610 + [False] * 40_688
    assert len(batches([1] * len(pictured), pictured, 128, seed=0, epoch=0)) == 5198
    assert len(batches([1] * 558_128, [True] * 558_128, 512, seed=0, epoch=0)) == 1091
