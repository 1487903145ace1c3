"""SEED-Bench-I (Li et al. 2023): letter accuracy over the questions on images.

The benchmark ranks the four options by likelihood; LLaVA generates, and takes an answer for right where it is the
letter and nothing else. Here the first character counts, so "A. a dog" is A, and LLaVA's number stands beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.dialogue.scoring.base import Asked, Benchmark, Floats, Release, Verdict
from transfer.dialogue.scoring.files import add, read_json, schema_of, text_of
from transfer.dialogue.scoring.prompts import choice

LETTERS = "ABCD"


@dataclass(frozen=True)
class Letter:
    """A question with its right letter."""

    asked: Asked
    image: str
    answer: str


class SEED(Benchmark[Letter]):
    """Questions whose data_type is image; those on videos are another benchmark."""

    metric = "seed_i_acc"
    files = "SEED-Bench.json"
    pictures = "SEED-Bench-image of the release"
    splits = {"image": Release((14_233,), "here")}

    def read(self, folder: Path, split: str) -> dict[str, Letter]:
        """Questions by id. Raises ValueError for an answer that is no letter."""
        path = folder / "SEED-Bench.json"
        questions: dict[str, Letter] = {}
        with schema_of(path):
            for entry in read_json(path)["questions"]:
                if entry["data_type"] != split:
                    continue
                answer = text_of(entry, "answer")
                if answer not in tuple(LETTERS):
                    raise ValueError(
                        f"{path}: question {entry['question_id']} has answer {answer!r}, not one of {LETTERS}"
                    )
                image = str(entry["data_id"])
                options = {letter: text_of(entry, f"choice_{letter.lower()}") for letter in LETTERS}
                asked = Asked(image, choice(text_of(entry, "question"), options, ""))
                add(questions, str(entry["question_id"]), Letter(asked, image, answer), path)
        return questions

    def judge(self, questions: Mapping[str, Letter], answers: Mapping[str, str]) -> Sequence[Verdict]:
        """Hit or miss."""
        verdicts = []
        for item, question in questions.items():
            first = answers[item].strip()[:1]
            said = first if first in LETTERS else ""
            score, whole = float(said == question.answer), float(answers[item] == question.answer)
            verdicts.append(Verdict(item, question.image, said, score, (score, 1.0, whole, float(not said))))
        return verdicts

    def more(self, totals: Floats) -> Mapping[str, float]:
        """LLaVA's number, and how many answers begin with no letter."""
        return {"whole answer": float(100 * totals[2] / totals[1]), "unparsed": float(totals[3])}
