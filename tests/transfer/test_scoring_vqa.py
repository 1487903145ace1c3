"""VQA's soft accuracy and the three ways to normalise answers, worked out by hand from transfer.md 6.1."""

import pytest

from transfer.dialogue.scoring.base import Asked
from transfer.dialogue.scoring.gqa import GQA, OneAnswer
from transfer.dialogue.scoring.vqa_norm import CONTRACTIONS, normalised, soft_accuracy


@pytest.mark.parametrize(("matches", "accuracy"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (5, 1), (10, 1)])
def test_soft_accuracy_of_m_matches(matches, accuracy):
    answers = ["cup"] * matches + [f"other{n}" for n in range(10 - matches)]
    assert soft_accuracy("cup", answers, "standard") == pytest.approx(accuracy)


def test_an_answer_is_left_out_by_its_place_and_not_with_its_equals():
    assert soft_accuracy("cup", ["cup"] * 10, "standard") == 1  # by value nothing is left to match: 0
    assert soft_accuracy("cup", ["cup"] * 6 + ["a", "b", "c", "d"], "standard") == 1


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("The Red Bus!", "red bus"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("10.", "10"),
        ("u.s.", "us"),
        ("T-shirt", "t shirt"),
        ("yes, no", "yes no"),
        ("ten", "10"),
        ("none", "0"),
        ("dont", "don't"),
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("somebody'd", "somebodyd"),
        ("a\tcup\n", "cup"),
        ("", ""),
    ],
)
def test_standard_normalisation_and_it_is_idempotent(text, meant):
    assert normalised(text, "standard") == meant
    assert normalised(meant, "standard") == meant


def test_the_three_normalisers_disagree_where_the_specification_says():
    agreed, split = ["yes"] * 10, ["yes"] * 9 + ["no"]
    # VQA's script leaves answers alone where all people agree, and only there.
    assert [soft_accuracy("Yes.", agreed, norm) for norm in ("standard", "original", "llava")] == [1, 0, 1]
    assert [soft_accuracy("Yes.", split, norm) for norm in ("standard", "original", "llava")] == [1, 1, 1]
    # LLaVA's processor deletes commas and question marks first and splits 's.
    assert [normalised("red,blue", norm) for norm in ("standard", "llava")] == ["red blue", "redblue"]
    assert [normalised("the dog's", norm) for norm in ("standard", "llava")] == ["dog's", "dog 's"]
    # The script's `re.sub(pattern, text, re.UNICODE)` deletes 32 periods and no more.
    dots = "." * 40 + "a"
    assert [normalised(f"x{dots}", norm) for norm in ("standard", "original")] == ["xa", "x........a"]


def test_contractions_are_those_of_the_script():
    assert len(CONTRACTIONS) == 114 and CONTRACTIONS["y'allll"] == "y'all'll" and CONTRACTIONS["twas"] == "'twas"
    assert "shed" not in CONTRACTIONS and CONTRACTIONS["hed"] == "he'd"


def test_gqa_forgives_case_and_final_periods_and_nothing_else():
    asked = {n: OneAnswer(Asked("i.jpg", "?"), "i", "the table") for n in "abcd"}
    said = {"a": "The table.", "b": "table", "c": "the tables", "d": "the table!"}
    assert [verdict.score for verdict in GQA().judge(asked, said)] == [1, 0, 0, 0]
