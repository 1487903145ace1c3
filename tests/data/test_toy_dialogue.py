"""The embedded dialogue corpus: answers agree with what is drawn, and every file is read as its release would be."""

import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data.dialogue.conversation import Conversation, read_conversations
from data.seeds import generator
from data.toyworld.__main__ import main
from data.toyworld.corners import CORNERS, THINGS, draw, sample
from data.toyworld.patterns import COLOURS, PLAIN, render
from data.toyworld.questions import KINDS, Negatives, ask, describe, is_there, pope
from data.toyworld.spec import ToyDialogueSpec
from results import publish
from transfer.dialogue.scoring.gqa import GQA
from transfer.dialogue.scoring.pope import POPE, SAMPLINGS


@pytest.fixture(scope="module")
def quartets():
    rng = generator(0, "test", "quartets")
    return [sample(rng, 4) for _ in range(400)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("toy") / "dialogue"
    assert main([str(where), "--align", "6", "--tune", "8", "--test", "20"]) == 0
    return where


def test_no_thing_stands_in_two_corners_and_no_colour_is_the_ground_s(quartets):
    for quartet in quartets:
        assert len(set(quartet.things)) == len(CORNERS) == len(quartet.scenes)
        assert all(scene.foreground != scene.background for scene in quartet.scenes)
        assert len({scene.background for scene in quartet.scenes}) == 1


def test_a_corner_shows_its_own_thing(quartets):
    """The colour that most of a corner's pixels are nearest to, its ground aside, is that of its thing."""
    few = quartets[:60]
    pictures = draw(few, generator(0, "test", "render")).astype(float) / 255
    palette, right = np.array(list(COLOURS.values())), 0
    for quartet, picture in zip(few, pictures, strict=True):
        for place, scene in enumerate(quartet.scenes):
            corner = picture[place // 2 * 16 : place // 2 * 16 + 16, place % 2 * 16 : place % 2 * 16 + 16]
            nearest = ((corner[:, :, None] - palette) ** 2).sum(-1).argmin(-1)
            counts = np.bincount(nearest.ravel(), minlength=len(palette))
            counts[scene.background] = -1
            right += int(counts.argmax() == scene.foreground)
    assert right > 0.75 * 4 * len(few)  # noise and rectangles leave the rest


def test_answers_are_what_the_picture_shows(quartets):
    rng = generator(0, "test", "ask")
    for quartet in quartets[:50]:
        where = dict(zip(CORNERS, zip(quartet.things, quartet.colours, strict=True), strict=True))
        for kind in KINDS[4]:
            question = ask(quartet, kind, rng)
            match kind:
                case "what":
                    corner = next(each for each in CORNERS if each in question.text)
                    assert question.answer == where[corner][0]
                case "where":
                    assert where[question.answer][0] in question.text
                case "colour":
                    corner = next(each for each in CORNERS if each in question.text)
                    assert question.answer == where[corner][1]
                case "count":
                    asked = question.text.removeprefix("How many patterns are ").removesuffix("?")
                    assert int(question.answer) == [colour for _, colour in where.values()].count(asked)
                case "there":
                    named = next(thing for thing in THINGS if thing in question.text)
                    assert question == is_there(named, named in quartet.things)
        assert all(
            f"{thing} in {colour} at the {corner}" in describe(quartet) for corner, (thing, colour) in where.items()
        )


def test_negatives_are_absent_and_chosen_as_pope_chooses_them(quartets):
    shown = Counter(thing for quartet in quartets for thing in quartet.things)
    mean_shown = {}
    for negatives in Negatives.__args__:
        asked = pope(quartets, negatives, generator(0, "test", negatives))
        assert all([each.answer for each in questions] == ["yes", "no"] * 3 for questions in asked)
        absent = []
        for quartet, questions in zip(quartets, asked, strict=True):
            for question in questions:
                thing = next(each for each in THINGS if each in question.text)
                assert (thing in quartet.things) == (question.answer == "yes")
                absent += [] if thing in quartet.things else [thing]
            assert len({question.text for question in questions}) == len(questions)
        mean_shown[negatives] = np.mean([shown[thing] for thing in absent])
        if negatives == "adversarial":  # what usually goes with what is there: mostly its family
            again = pope(quartets, "popular", generator(0, "test", negatives))
            assert asked != again
    assert mean_shown["random"] < mean_shown["adversarial"] < mean_shown["popular"]


def test_every_file_is_read_as_the_release_it_stands_in_for(folder):
    for name, count in (("align", 6), ("tune", 16)):
        found = list(read_conversations(folder / f"{name}.json", folder / "images"))
        assert len(found) == count and all(isinstance(each, Conversation) for each in found)
        assert len({each.image for each in found}) == (6 if name == "align" else 8)
        assert all(each.shown == 0 for each in found)
    questions = POPE().read(folder / "pope", "coco")
    assert Counter((each.sampling, each.there) for each in questions.values()) == {
        (sampling, there): 60 for sampling in SAMPLINGS for there in (True, False)
    }
    asked = GQA().read(folder / "gqa", "testdev_balanced")
    assert len(asked) == 20 * (len(KINDS[4]) - 1)
    for image in {each.image for each in questions.values()} | {f"{each.image}.jpg" for each in asked.values()}:
        for name in ("pope", "gqa"):
            assert Image.open(folder / name / "pictures" / image).size == (32, 32)


def test_equal_specs_write_equal_bytes_and_nothing_is_overwritten(folder, tmp_path, capsys):
    again = tmp_path / "again"
    assert main([str(again), "--align", "6", "--tune", "8", "--test", "20"]) == 0
    paths = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    assert paths and all((folder / path).read_bytes() == (again / path).read_bytes() for path in paths)
    assert main([str(again)]) == 2 and "is there already" in capsys.readouterr().err
    assert main([str(tmp_path / "x"), "--test", "0"]) == 2 and "--test is at least 1, got 0" in capsys.readouterr().err
    other = tmp_path / "other"
    assert main([str(other), "--align", "6", "--tune", "8", "--test", "20", "--seed", "1"]) == 0
    assert json.loads((other / "tune.json").read_text()) != json.loads((folder / "tune.json").read_text())


def test_one_thing_alone_is_asked_what_and_which_colour_it_is(tmp_path):
    folder = tmp_path / "one"
    assert main([str(folder), "--align", "6", "--tune", "8", "--test", "20", "--things", "1"]) == 0
    records = json.loads((folder / "align.json").read_text())
    thing, _, colour = records[0]["conversations"][1]["value"].partition(" in ")
    assert thing in THINGS and colour in COLOURS
    asked = GQA().read(folder / "gqa", "testdev_balanced")
    assert Counter(each.asked.text.partition("\n")[0] for each in asked.values()) == {
        "What is in the picture?": 20, "Which colour is in the picture?": 20,
    }  # fmt: skip
    assert len(POPE().read(folder / "pope", "coco")) == 3 * 20 * 2
    shown = [sample(generator(0, "test", "one"), 1) for _ in range(4)]
    scenes = [scene for each in shown for scene in each.scenes]
    plain = render(scenes, PLAIN, generator(0, "test", "render"))
    assert np.array_equal(draw(shown, generator(0, "test", "render")), plain)


def test_the_name_of_the_corpus_with_four_things_is_what_records_hold():
    name = ToyDialogueSpec().folder_name
    assert f'"data":"{name}/tune"' in (publish.ROOT / "records" / "table4.jsonl").read_text()
    assert ToyDialogueSpec(things=1).folder_name != name
