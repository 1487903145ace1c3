"""ScienceQA (Lu et al. 2022): letter accuracy over all questions of test, and over those with an image.

Source: how an answer is read is ScienceQA's and LLaVA's (eval_science_qa.py): a letter; a letter, period and space
before anything; or one "The answer is X" with a character after it, be it a period or not ("The answer is Apple" is A).
The paper does not say which of the two numbers it prints; transfer.md 6.1 has the reasons to take the one over all.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.dialogue.scoring.base import Asked, Benchmark, Floats, Release, Verdict
from transfer.dialogue.scoring.files import add, found, read_json, schema_of, text_of
from transfer.dialogue.scoring.prompts import choice

LETTERS = "ABCDE"
SENTENCE = re.compile(r"The answer is ([A-Z]).")


@dataclass(frozen=True)
class Choice:
    """A question with its options."""

    asked: Asked
    answer: str  # the right letter
    options: int

    @property
    def pictured(self) -> bool:
        """Whether it is about a picture."""
        return self.asked.image is not None


class ScienceQA(Benchmark[Choice]):
    """Questions of a split, in the order of pid_splits.json."""

    metric = "sqa_acc"
    files = "problems.json and pid_splits.json"
    pictures = "images/test or images/val of the release"
    drawn = "questions"
    splits = {"test": Release((4241,), "here"), "val": Release((4241,), "here")}

    def read(self, folder: Path, split: str) -> dict[str, Choice]:
        """Questions by id. Raises ValueError where the two files do not belong together."""
        places, path = folder / "pid_splits.json", folder / "problems.json"
        problems = read_json(path)
        with schema_of(places):
            ids = read_json(places)[split]
        questions: dict[str, Choice] = {}
        with schema_of(found(path)):
            for item in map(str, ids):
                entry = problems[item]
                options = dict(zip(LETTERS, entry["choices"], strict=False))
                picture = f"{item}/{entry['image']}" if entry["image"] else None
                asked = Asked(picture, choice(text_of(entry, "question"), options, text_of(entry, "hint")))
                add(questions, item, Choice(asked, LETTERS[entry["answer"]], len(options)), places)
        return questions

    def judge(self, questions: Mapping[str, Choice], answers: Mapping[str, str]) -> Sequence[Verdict]:
        """Hit or miss; a letter that is no option of the question is no answer."""
        verdicts = []
        for item, question in questions.items():
            letter = letter_of(answers[item])
            said = letter if letter in LETTERS[: question.options] else ""
            score, seen = float(said == question.answer), float(question.pictured)
            verdicts.append(Verdict(item, item, said, score, (score, 1.0, score * seen, seen, float(not said))))
        return verdicts

    def more(self, totals: Floats) -> Mapping[str, float]:
        """The other denominator, which LLaVA prints, and how many answers name no option."""
        pictured = {"with image": float(100 * totals[2] / totals[3])} if totals[3] else {}
        return {**pictured, "questions with image": float(totals[3]), "unparsed": float(totals[4])}


def letter_of(said: str) -> str:
    """The letter an answer gives; "" where it gives none."""
    if said and said[0] in LETTERS and (len(said) == 1 or said[1:3] == ". "):
        return said[0]
    named = SENTENCE.findall(said)
    return str(named[0]) if len(named) == 1 else ""
