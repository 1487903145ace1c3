"""GQA (Hudson and Manning 2019): share of answers that equal the one answer, after lower-casing and final periods.

Source: eval.py of the release compares texts as they are; LLaVA lower-cases and strips periods before it
(convert_gqa_for_eval.py). Neither drops articles, plurals or other punctuation, and neither is it done here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.dialogue.scoring.base import Asked, Benchmark, Release, Verdict
from transfer.dialogue.scoring.files import add, read_json, schema_of, text_of
from transfer.dialogue.scoring.prompts import short


@dataclass(frozen=True)
class OneAnswer:
    """A question with its answer."""

    asked: Asked
    image: str
    answer: str


class GQA(Benchmark[OneAnswer]):
    """The balanced questions of testdev."""

    metric = "gqa_acc"
    files = "testdev_balanced_questions.json"
    pictures = "GQA's images"
    splits = {"testdev_balanced": Release((12_578,), "here")}

    def read(self, folder: Path, split: str) -> dict[str, OneAnswer]:
        """Questions by id; those that are not balanced are not scored, as in eval.py."""
        path = folder / f"{split}_questions.json"
        questions: dict[str, OneAnswer] = {}
        with schema_of(path):
            for item, entry in read_json(path).items():
                if entry["isBalanced"]:
                    image = str(entry["imageId"])
                    asked = Asked(f"{image}.jpg", short(text_of(entry, "question")))
                    add(questions, item, OneAnswer(asked, image, text_of(entry, "answer")), path)
        return questions

    def judge(self, questions: Mapping[str, OneAnswer], answers: Mapping[str, str]) -> Sequence[Verdict]:
        """Hit or miss."""
        verdicts = []
        for item, question in questions.items():
            said = answers[item].rstrip(".").lower()
            score = float(said == question.answer)
            verdicts.append(Verdict(item, question.image, said, score, (score, 1.0)))
        return verdicts
