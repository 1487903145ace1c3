"""ScienceQA, MMBench and SEED-Bench: how a letter is read, and what a question is worth."""

import random

import numpy as np
import pytest

from transfer.dialogue.scoring.base import Asked
from transfer.dialogue.scoring.mmbench import MMBench, Row, option_of
from transfer.dialogue.scoring.scienceqa import Choice, ScienceQA, letter_of
from transfer.dialogue.scoring.seed import SEED, Letter

SEEN, TOLD = Asked("1/image.png", "?"), Asked(None, "?")


def totals(verdicts):
    return np.sum([verdict.sums for verdict in verdicts], axis=0)


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("A", "A"),
        ("B. a dog", "B"),
        ("B.a dog", ""),
        ("B.", ""),
        ("The answer is C.", "C"),
        ("I think. The answer is D, as", "D"),
        ("The answer is C", ""),  # a character has to follow
        ("The answer is A. The answer is B.", ""),
        ("a", ""),
        ("", ""),
    ],
)
def test_scienceqa_reads_a_letter(said, letter):
    assert letter_of(said) == letter


def test_scienceqa_has_two_denominators():
    asked = {
        "1": Choice(SEEN, "A", 2),
        "2": Choice(SEEN, "B", 2),
        "3": Choice(TOLD, "C", 3),
        "4": Choice(TOLD, "A", 2),
    }
    verdicts = ScienceQA().judge(asked, {"1": "A", "2": "A", "3": "C", "4": "C"})
    assert ScienceQA().value(totals(verdicts)) == 50
    more = ScienceQA().more(totals(verdicts))
    assert more["with image"] == 50 and more["questions with image"] == 2
    assert more["unparsed"] == 1 and verdicts[3].parsed == ""  # C is no option of a question with two


def rotated(question: int, options: list[str]) -> dict[str, Row]:
    rows = {}
    for turn in range(len(options)):
        order = options[turn:] + options[:turn]
        known = dict(zip("ABCD", order, strict=False))
        index = str(turn * 1_000_000 + question)
        rows[index] = Row(SEEN, {}, known, next(letter for letter, text in known.items() if text == options[0]))
    return rows


ASKED = rotated(7, ["cat", "dog"]) | rotated(8, ["one", "two", "three"]) | rotated(9, ["w", "x", "y", "z"])


def test_mmbench_counts_a_question_where_every_rotation_is_right():
    perfect = {index: row.answer for index, row in ASKED.items()}
    assert MMBench().value(totals(MMBench().judge(ASKED, perfect))) == 100
    once = perfect | {"2000008": "A"}
    verdicts = MMBench().judge(ASKED, once)
    assert [verdict.score for verdict in verdicts] == [1, 0, 1]
    assert MMBench().more(totals(verdicts))["vanilla"] == 100  # the unrotated rows are all right


def test_mmbench_always_a_is_nothing_and_its_vanilla_is_what_stands_first():
    verdicts = MMBench().judge(ASKED, dict.fromkeys(ASKED, "A"))
    assert MMBench().value(totals(verdicts)) == 0 and MMBench().more(totals(verdicts))["vanilla"] == 100


def test_mmbench_of_a_uniform_guess():
    stream = random.Random(0)
    rows = {key: row for n in range(2000) for key, row in rotated(n, ["cat", "dog"]).items()}
    verdicts = MMBench().judge(rows, {index: stream.choice("AB") for index in rows})
    assert MMBench().value(totals(verdicts)) == pytest.approx(25, abs=3)
    assert MMBench().more(totals(verdicts))["vanilla"] == pytest.approx(50, abs=4)


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        (" B. ", "B"),
        ("(B) a dog", "B"),
        ("B: a dog", "B"),
        ("B a dog and a cat", ""),  # an article in capitals would be read as A, so a mark has to follow
        ("It is the DOG", "B"),
        ("a dog, no cat", ""),
        ("D", ""),  # no option here
        ("", ""),
    ],
)
def test_mmbench_reads_an_option(said, letter):
    assert option_of(said, {"A": "cat", "B": "dog"}) == letter


def test_mmbench_says_how_many_answers_it_could_not_read():
    verdicts = MMBench().judge(rotated(7, ["cat", "dog"]), {"7": "A", "1000007": "who knows"})
    assert MMBench().more(totals(verdicts))["unparsed %"] == 50 and verdicts[0].parsed == "A,"


def test_seed_takes_the_first_letter_and_prints_what_llava_counts_beside_it():
    asked = {n: Letter(SEEN, "i", "A") for n in "abcd"}
    verdicts = SEED().judge(asked, {"a": "A", "b": " A. a dog", "c": "B", "d": "dog"})
    assert [verdict.score for verdict in verdicts] == [1, 1, 0, 0]
    assert SEED().more(totals(verdicts)) == {"whole answer": 25, "unparsed": 1}
