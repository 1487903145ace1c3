"""POPE and MME: how yes and no are read, and how parts become one number."""

import random

import numpy as np
import pytest

from results.statistics.resampling import metrics_of
from transfer.dialogue.scoring.base import Asked
from transfer.dialogue.scoring.mme import COGNITION, MME, PERCEPTION, TASKS, YesNo, bare, read_answer
from transfer.dialogue.scoring.pope import POPE, SAMPLINGS, Object, says_yes

ASKED = Asked("i.jpg", "?")
POPE_ASKED = {f"{s}/{n}": Object(ASKED, f"i{n // 6}", s, n % 2 == 0) for s in SAMPLINGS for n in range(12)}
MME_ASKED = {
    f"{task}/{image}/{answer}": YesNo(ASKED, task, f"{task}/{image}", answer)
    for task in TASKS
    for image in range(4)
    for answer in ("yes", "no")
}


def totals(verdicts):
    return np.sum([verdict.sums for verdict in verdicts], axis=0)


def pope(said):
    sums = totals(POPE().judge(POPE_ASKED, said))
    return float(POPE().value(sums)), POPE().more(sums)


@pytest.mark.parametrize(
    ("said", "yes"),
    [
        ("Yes", True),
        ("No", False),
        ("no, there is", False),
        ("There is not a dog.", False),
        ("Yes. It is not big.", True),  # only what stands before the first period
        ("Nothing here", True),
        ("", True),
        ("no\n", True),  # words are parted by spaces only
    ],
)
def test_pope_reads_no_where_a_word_is(said, yes):
    assert says_yes(said) is yes


def test_pope_of_constant_and_perfect_answers():
    f1, more = pope(dict.fromkeys(POPE_ASKED, "yes"))
    assert f1 == pytest.approx(200 / 3) and more["accuracy"] == 50 and more["yes"] == 100
    f1, more = pope(dict.fromkeys(POPE_ASKED, "no"))
    assert f1 == 0 and more["accuracy"] == 50 and more["yes"] == 0
    right = {item: "yes" if question.there else "no" for item, question in POPE_ASKED.items()}
    assert pope(right)[0] == 100
    assert pope(dict(reversed(right.items())))[0] == 100


def test_pope_is_the_mean_of_three_f1_and_not_their_pool():
    said = {item: "yes" if question.there else "no" for item, question in POPE_ASKED.items()}
    said |= {item: "no" for item in POPE_ASKED if item.startswith("random")}
    f1, more = pope(said)
    assert f1 == pytest.approx(200 / 3)  # pooled: 2 * 12 / (2 * 12 + 6) = 80
    assert (more["F1 random"], more["F1 popular"], more["F1 adversarial"]) == (0, 100, 100)


def test_pope_is_counted_from_what_is_kept_of_each_question():
    said = {item: "yes" if int(item[-1]) % 3 else "no" for item in POPE_ASKED}
    verdicts = POPE().judge(POPE_ASKED, said)
    scores = {
        ("pope", f"{name}_{place}", each.group_id, each.item_id): str(count)
        for each in verdicts
        for name, counts in POPE().kept(each).items()
        for place, count in enumerate(counts, start=1)
    }
    (found,) = metrics_of(scores)
    assert found.metric == "pope/pope" and len(found.groups) == 2
    assert float(found.of(found.sums.sum(axis=0))) == pytest.approx(pope(said)[0])
    assert MME().kept(MME().judge(MME_ASKED, dict.fromkeys(MME_ASKED, "yes"))[0]) == {"mme_right": 100.0}


def mme(said):
    sums = totals(MME().judge(MME_ASKED, said))
    return float(MME().value(sums)), MME().more(sums)


def test_mme_of_perfect_and_constant_answers():
    perfect, more = mme({item: question.answer for item, question in MME_ASKED.items()})
    assert perfect == 2000 and more["cognition"] == 800 and set(more) == {*PERCEPTION, *COGNITION, "cognition"}
    always, more = mme(dict.fromkeys(MME_ASKED, "Yes"))
    assert always == 500 and more["existence"] == 50


def test_mme_adds_accuracy_over_images():
    said = {item: question.answer for item, question in MME_ASKED.items()}
    said |= {"count/0/yes": "no"}
    value, more = mme(said)
    assert more["count"] == 100 * 7 / 8 + 100 * 3 / 4 and value == 1800 + more["count"]


def test_mme_of_a_coin():
    stream, asked = random.Random(0), {}
    for n in range(100):
        asked |= {f"{t}/{n}/{a}": YesNo(ASKED, t, f"{t}/{n}", a) for t in PERCEPTION for a in ("yes", "no")}
    sums = totals(MME().judge(asked, {item: stream.choice(("yes", "no")) for item in asked}))
    assert float(MME().value(sums)) == pytest.approx(750, abs=80)


@pytest.mark.parametrize(
    ("said", "read"),
    [("Yes", "yes"), ("no.", "no"), ("a yes", ""), ("Not", "no"), ("noyes", "no"), ("yno", "no"), ("", ""), ("12", "")],
)
def test_mme_reads_the_first_four_characters(said, read):
    assert read_answer(said) == read


def test_mme_knows_a_question_with_either_ending():
    asked = "Is it  there?  Please answer yes or no."
    assert bare(asked) == bare("Is it there?\nAnswer the question using a single word or phrase.") == "Is it there?"
