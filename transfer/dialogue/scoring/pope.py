"""POPE (Li et al. 2023): is there a ... in the image? The mean of three F1 of "yes", as LLaVA prints it.

The three files ask about the same images; what is not there is drawn at random, from what is popular, or from what
usually goes with what is there. Their question ids are equal, so an answer needs its file: the id "random/1", or a
field `category` beside `question_id`. A join by line, as in LLaVA's script, goes wrong silently where the random file
of 2910 lines, which LLaVA-1.5 used, meets answers to that of 3000.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from transfer.dialogue.scoring.base import Asked, Benchmark, Floats, Release, Verdict
from transfer.dialogue.scoring.files import add, read_lines, schema_of, text_of
from transfer.dialogue.scoring.prompts import short

Negatives = Literal["random", "popular", "adversarial"]
SAMPLINGS: tuple[Negatives, ...] = get_args(Negatives)
COUNTS = ("tp", "fp", "fn", "right", "yes", "n")  # of one file


@dataclass(frozen=True)
class Object:
    """A question for an object."""

    asked: Asked
    image: str
    sampling: Negatives
    there: bool

    @property
    def answer(self) -> str:
        """ "yes" or "no"."""
        return "yes" if self.there else "no"


class POPE(Benchmark[Object]):
    """The three files on COCO."""

    metric = "pope"
    files = "coco_pope_random.json, coco_pope_popular.json and coco_pope_adversarial.json, or coco/ with them"
    pictures = "COCO's val2014"
    splits = {"coco": Release((9000, 8910), "here")}

    def read(self, folder: Path, split: str) -> dict[str, Object]:
        """Questions by "file/id". Raises ValueError for a label that is neither yes nor no."""
        folder = folder / split if (folder / split).is_dir() else folder
        questions: dict[str, Object] = {}
        for sampling in SAMPLINGS:
            path = folder / f"{split}_pope_{sampling}.json"
            with schema_of(path):
                for entry in read_lines(path):
                    label = text_of(entry, "label")
                    if label not in ("yes", "no"):
                        raise ValueError(f"{path}: question {entry['question_id']} has label {label!r}, not yes or no")
                    image = text_of(entry, "image")
                    question = Object(Asked(image, short(text_of(entry, "text"))), image, sampling, label == "yes")
                    add(questions, f"{sampling}/{entry['question_id']}", question, path)
        return questions

    def key(self, entry: Mapping[str, Any]) -> str:
        """ "random/1", whole in `question_id` or in two fields. Raises KeyError where the file is not said."""
        item = str(entry["question_id"])
        return item if "/" in item else f"{entry['category']}/{item}"

    def judge(self, questions: Mapping[str, Object], answers: Mapping[str, str]) -> Sequence[Verdict]:
        """Hit or miss."""
        verdicts = []
        for item, question in questions.items():
            yes, there = says_yes(answers[item]), question.there
            right = yes == there
            counts = (yes and there, yes and not there, there and not yes, right, yes, True)
            sums = np.zeros((len(SAMPLINGS), len(COUNTS)))
            sums[SAMPLINGS.index(question.sampling)] = counts
            verdicts.append(
                Verdict(item, question.image, "yes" if yes else "no", float(right), tuple(sums.ravel().tolist()))
            )
        return verdicts

    def value(self, totals: Floats) -> Floats:
        """The mean of the F1 of the files, x100."""
        mean: Floats = 100 * _f1(totals).mean(axis=-1)
        return mean

    def kept(self, verdict: Verdict) -> dict[str, float | list[float]]:
        """Whether it is one of the three counts of F1, file by file: F1 is no mean of questions."""
        counts = _files(np.asarray(verdict.sums))
        return {f"pope_{name}": counts[:, COUNTS.index(name)].tolist() for name in COUNTS[:3]}

    def more(self, totals: Floats) -> Mapping[str, float]:
        """F1 of each file, accuracy and the share of "yes" over all of them."""
        f1 = dict(zip(SAMPLINGS, (100 * _f1(totals)).tolist(), strict=True))
        all_files = dict(zip(COUNTS, _files(totals).sum(axis=0).tolist(), strict=True))
        shares = {name: 100 * all_files[key] / all_files["n"] for name, key in (("accuracy", "right"), ("yes", "yes"))}
        return {**{f"F1 {name}": value for name, value in f1.items()}, **shares}


def says_yes(said: str) -> bool:
    """Whether an answer is taken for yes: no "No", "no" or "not" is a word before its first period."""
    words = said.partition(".")[0].replace(",", "").split(" ")
    return not {"No", "no", "not"} & set(words)


def _files(totals: Floats) -> Floats:
    return totals.reshape(*totals.shape[:-1], len(SAMPLINGS), len(COUNTS))


def _f1(totals: Floats) -> Floats:
    """(..., k) -> (..., 3): 2 tp / (2 tp + fp + fn) of every file, 0 where nothing is there or said to be."""
    tp, fp, fn = np.moveaxis(_files(totals)[..., :3], -1, 0)
    below = 2 * tp + fp + fn
    return np.divide(2 * tp, below, out=np.zeros_like(tp), where=below > 0)
