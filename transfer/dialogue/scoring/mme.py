"""MME (Fu et al. 2023): two yes/no questions for each image; per sub-task accuracy + accuracy over images, summed.

The paper prints the sum over the ten sub-tasks of perception, at most 2000. Source: calculation.py of MME's eval_tool
for how an answer is read and what a sub-task scores.

Release: a folder a sub-task, with 0001.png and 0001.txt beside it or in images/ and questions_answers_YN/; each line of
a text is `question<TAB>Yes` or `No`. A question has no id: an answer's `question_id` is LLaVA's, "existence/0001.png",
and its `prompt` holds the question, with or without "Please answer yes or no." and LLaVA's short-answer sentence.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from transfer.dialogue.scoring.base import Asked, Benchmark, Floats, Release, Verdict
from transfer.dialogue.scoring.files import add
from transfer.dialogue.scoring.prompts import SHORT, short

PERCEPTION = tuple("existence count position color posters celebrity scene landmark artwork OCR".split())
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
TASKS = (*PERCEPTION, *COGNITION)
COUNTS = ("right", "questions", "both", "images")  # of one sub-task
LABELS = {"Yes": "yes", "No": "no"}
ENDINGS = ("Please answer yes or no.", SHORT)
SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class YesNo:
    """One of the two questions for an image."""

    asked: Asked
    task: str
    image: str  # "existence/0001"
    answer: str  # "yes" or "no"


class MME(Benchmark[YesNo]):
    """Sub-tasks by folder: all ten of perception, and the four of cognition where they are there."""

    metric = "mme_perception"
    files = f"a folder for each of {', '.join(PERCEPTION)}"
    pictures = "the release itself"
    splits = {"release": Release((2374, 2114), "here")}

    def read(self, folder: Path, split: str) -> dict[str, YesNo]:
        """Questions by "task/image/question". Raises ValueError where an image has not two."""
        missing = [task for task in PERCEPTION if not (folder / task).is_dir()]
        if missing:
            raise ValueError(f"{folder} has no folder {', '.join(missing)}; MME's perception is the sum over all ten")
        questions: dict[str, YesNo] = {}
        for task in (task for task in TASKS if (folder / task).is_dir()):
            inside = folder / task / "questions_answers_YN"
            for path in sorted((inside if inside.is_dir() else folder / task).glob("*.txt")):
                image, picture = f"{task}/{path.stem}", _picture(folder, task, path.stem)
                for question, answer in _pair(path):
                    asked = Asked(picture, short(bare(question)))
                    add(questions, f"{image}/{bare(question)}", YesNo(asked, task, image, answer), path)
        return questions

    def line(self, item: str, question: YesNo) -> dict[str, Any]:
        """LLaVA's id, which two questions share; the text tells them apart."""
        suffix = PurePosixPath(str(question.asked.image)).suffix
        return {**super().line(item, question), "question_id": f"{question.image}{suffix}"}

    def key(self, entry: Mapping[str, Any]) -> str:
        """Sub-task, image without suffix, and the bare question."""
        image = PurePosixPath(str(entry["question_id"]))
        return f"{image.parts[0]}/{image.stem}/{bare(str(entry['prompt']))}"

    def judge(self, questions: Mapping[str, YesNo], answers: Mapping[str, str]) -> Sequence[Verdict]:
        """Hit or miss; what both questions of an image are worth is counted with the second."""
        verdicts, seen = [], defaultdict[str, list[bool]](list)
        for item, question in questions.items():
            said = read_answer(answers[item])
            right = said == question.answer
            pair = seen[question.image]
            pair.append(right)
            sums = np.zeros((len(TASKS), len(COUNTS)))
            second = len(pair) == 2
            sums[TASKS.index(question.task)] = (right, 1, second and all(pair), second)
            verdicts.append(Verdict(item, question.image, said, float(right), tuple(sums.ravel().tolist())))
        return verdicts

    def value(self, totals: Floats) -> Floats:
        """Sum over perception."""
        total: Floats = _scores(totals)[..., : len(PERCEPTION)].sum(axis=-1)
        return total

    def kept(self, verdict: Verdict) -> dict[str, float | list[float]]:
        """Hit or miss: the number is a sum over sub-tasks of two shares each."""
        return {"mme_right": 100 * verdict.score}

    def more(self, totals: Floats) -> Mapping[str, float]:
        """Every sub-task out of 200; the sum over cognition where it was asked."""
        scores = dict(zip(TASKS, _scores(totals).tolist(), strict=True))
        asked = _tasks(totals)[:, COUNTS.index("questions")] > 0
        shown = {task: scores[task] for task, there in zip(TASKS, asked, strict=True) if there}
        cognition = {"cognition": sum(scores[task] for task in COGNITION)} if set(COGNITION) <= shown.keys() else {}
        return {**shown, **cognition}


def read_answer(said: str) -> str:
    """ "yes" or "no" where it stands within the first four characters, "yes" before "no"; else ""."""
    start = said.lower()[:4]
    return next((word for word in ("yes", "no") if word in start), "")


def bare(question: str) -> str:
    """A question without the sentences that ask for its form."""
    for ending in ENDINGS:
        question = question.replace(ending, " ")
    return re.sub(r"\s+", " ", question).strip()


def _picture(folder: Path, task: str, stem: str) -> str:
    """Path below the release. Raises ValueError where there is none of the known kinds."""
    inside = folder / task / "images"
    for suffix in SUFFIXES:
        path = (inside if inside.is_dir() else folder / task) / f"{stem}{suffix}"
        if path.is_file():
            return path.relative_to(folder).as_posix()
    raise ValueError(f"{folder / task} has questions about {stem} and no {stem} with one of {', '.join(SUFFIXES)}")


def _pair(path: Path) -> list[tuple[str, str]]:
    lines = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(lines) != 2 or any(len(line) != 2 or line[1].strip() not in LABELS for line in lines):
        raise ValueError(f"{path} has not two lines of a question, a tab, and Yes or No")
    return [(question, LABELS[answer.strip()]) for question, answer in lines]


def _tasks(totals: Floats) -> Floats:
    return totals.reshape(*totals.shape[:-1], len(TASKS), len(COUNTS))


def _scores(totals: Floats) -> Floats:
    """(..., k) -> (..., 14): accuracy + accuracy over images of every sub-task, each x100; 0 where it was not asked."""
    right, questions, both, images = np.moveaxis(_tasks(totals), -1, 0)
    zero = np.zeros_like(right)
    shares = (np.divide(a, b, out=zero.copy(), where=b > 0) for a, b in ((right, questions), (both, images)))
    total: Floats = 100 * sum(shares)
    return total
