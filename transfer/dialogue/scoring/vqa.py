"""What VQAv2 and VizWiz share: ten people answered each question, and an answer is worth how many of them gave it."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transfer.dialogue.scoring.base import Asked, Floats, Submitted, Verdict
from transfer.dialogue.scoring.files import text_of
from transfer.dialogue.scoring.vqa_norm import Normalisation, normalised, soft_accuracy

PEOPLE = 10


@dataclass(frozen=True)
class Answered:
    """A question with the answers of ten people; none where only the server has them."""

    asked: Asked
    image: str
    answers: tuple[str, ...]

    @property
    def answer(self) -> str:
        """What most of them say, the first of equals; "" where only the server has answers."""
        return Counter(self.answers).most_common(1)[0][0] if self.answers else ""


def people(entry: Mapping[str, Any]) -> tuple[str, ...]:
    """The ten answers of an annotation, empty ones included. Raises TypeError for another number."""
    answers = tuple(text_of(each, "answer") for each in entry["answers"])
    if len(answers) != PEOPLE:
        raise TypeError(f"a question has {len(answers)} answers, expected {PEOPLE}")
    return answers


@dataclass(frozen=True)
class SoftAccuracy(Submitted[Answered]):
    """Mean soft accuracy. norm: how answers are normalised, part of the number's meaning."""

    norm: Normalisation = "standard"
    submits = ".json"

    def judge(self, questions: Mapping[str, Answered], answers: Mapping[str, str]) -> Sequence[Verdict]:
        """Soft accuracy of every answer."""
        verdicts = []
        for item, question in questions.items():
            said = normalised(answers[item], self.norm)
            score = soft_accuracy(answers[item], question.answers, self.norm)
            verdicts.append(Verdict(item, question.image, said, score, (score, 1.0, float(not said))))
        return verdicts

    def more(self, totals: Floats) -> Mapping[str, float]:
        """How many answers say nothing."""
        return {"empty answers": float(totals[2])}

    def submitted(self, said: str) -> str:
        """An answer as it is sent. Normalised: the server's script leaves answers alone where all people agree."""
        return normalised(said, self.norm)


def as_json(entries: Sequence[Mapping[str, object]]) -> bytes:
    """A results file of a server."""
    return json.dumps(entries).encode()
