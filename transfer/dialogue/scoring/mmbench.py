"""MMBench (Liu et al. 2023): a question counts only where it is answered right under every rotation of its options.

Source: transfer.md 6.1. A letter is read where the answer is one, or begins with one and `.`, `)` or `:`; else the one
option whose text the answer contains; else it is wrong. The benchmark's own tool asks a language model for the rest and
guesses at random where that fails: that number cannot be computed twice, and how many answers it would concern is
printed instead. dev is scored here, test by the server.
"""

import base64
import csv
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from transfer.dialogue.scoring.base import Asked, Floats, Release, Submitted, Verdict
from transfer.dialogue.scoring.files import add, found, schema_of
from transfer.dialogue.scoring.prompts import choice
from transfer.dialogue.scoring.xlsx import workbook

LETTERS = "ABCD"
ROTATION = 1_000_000  # index of the n-th rotation: n millions + that of the question
ABSENT = frozenset({"", "nan", "none"})  # cells that hold no option
LEADING = re.compile(r"\(?([A-D])(?:[.):]|$)")
LEFT_OUT = frozenset({"hint", "category", "source", "image", "comment", "l2-category"})  # of the submission, as LLaVA's


@dataclass(frozen=True)
class Row:
    """A question under one order of its options."""

    asked: Asked
    cells: Mapping[str, str]  # the row of the TSV without its picture
    options: Mapping[str, str]  # by letter
    answer: str  # the right letter; "" where only the server has it


class MMBench(Submitted[Row]):
    """The TSV of a split."""

    metric = "mmb_acc"
    files = "mmbench_SPLIT.tsv"
    splits = {"dev_20230712": Release((4377, 4329), "here"), "test_20230712": Release((6718, 6666), "server")}
    pictures = "inside the TSV: --unpack writes them"
    drawn = "questions"
    submits = ".xlsx"

    def read(self, folder: Path, split: str) -> dict[str, Row]:
        """Rows by index. Raises ValueError where a question has not as many rotations as options."""
        path = tsv_of(folder, split)
        here = self.splits[split].scored == "here"
        rows: dict[str, Row] = {}
        with schema_of(path):
            for cells in _cells(path):
                options = {letter: cells[letter] for letter in LETTERS if cells[letter].lower() not in ABSENT}
                answer = cells["answer"] if here else ""
                if here and answer not in options:
                    raise ValueError(
                        f"{path}: row {cells['index']} has answer {answer!r} of options {', '.join(options)}"
                    )
                hint = "" if cells["hint"].lower() in ABSENT else cells["hint"]
                asked = Asked(picture_of(cells["index"]), choice(cells["question"], options, hint))
                kept = {name: value for name, value in cells.items() if name not in LEFT_OUT}
                add(rows, str(int(cells["index"])), Row(asked, kept, options, answer), path)
        for question, rotations in _by_question(rows).items():
            if len(rotations) != len(rows[rotations[0]].options):
                raise ValueError(
                    f"{path}: question {question} has {len(rows[rotations[0]].options)} options and {len(rotations)} "
                    "rows; circular accuracy needs a row for every rotation"
                )
        return rows

    def judge(self, questions: Mapping[str, Row], answers: Mapping[str, str]) -> Sequence[Verdict]:
        """One verdict a question: right under all its rotations or wrong."""
        verdicts = []
        for question, rotations in _by_question(questions).items():
            said = [option_of(answers[index], questions[index].options) for index in rotations]
            right = [letter == questions[index].answer for letter, index in zip(said, rotations, strict=True)]
            score, unparsed = float(all(right)), float(said.count(""))
            sums = (score, 1.0, float(right[0]), unparsed, float(len(said)))
            verdicts.append(Verdict(question, question, ",".join(said), score, sums))
        return verdicts

    def more(self, totals: Floats) -> Mapping[str, float]:
        """Accuracy without rotations ("VanillaEval"), and the share of answers that name no option."""
        return {"vanilla": float(100 * totals[2] / totals[1]), "unparsed %": float(100 * totals[3] / totals[4])}

    def submission(self, folder: Path, split: str, answers: Mapping[str, str]) -> bytes:
        """A workbook: the release's columns but picture, hint and categories, and `prediction` behind the options."""
        rows = self.read(folder, split)
        names = list(next(iter(rows.values())).cells)
        names.insert(names.index(LETTERS[-1]) + 1, "prediction")
        table = [[{**row.cells, "prediction": answers[index]}[name] for name in names] for index, row in rows.items()]
        return workbook([names, *table])


def option_of(said: str, options: Mapping[str, str]) -> str:
    """The letter of the option that an answer names; "" where it names none, or several."""
    leading = LEADING.match(said.strip())
    if leading and leading[1] in options:
        return leading[1]
    contained = [letter for letter, text in options.items() if text.lower() in said.lower()]
    return contained[0] if len(contained) == 1 else ""


def tsv_of(folder: Path, split: str) -> Path:
    """The file of a split."""
    return folder / f"mmbench_{split}.tsv"


def picture_of(index: str) -> str:
    """The name of the picture of a row: rotations of a question share it."""
    return f"{int(index) % ROTATION}.jpg"


def unpacked(path: Path) -> Iterator[tuple[str, bytes]]:
    """The pictures inside a TSV by name, one a question. Raises ValueError for a cell that holds none."""
    for cells in _cells(path):
        if int(cells["index"]) < ROTATION:
            try:
                yield picture_of(cells["index"]), base64.b64decode(cells["image"], validate=True)
            except ValueError as error:
                raise ValueError(f"{path}: row {cells['index']} holds no picture in base64: {error}") from error


def _cells(path: Path) -> Iterator[dict[str, str]]:
    csv.field_size_limit(sys.maxsize)  # a cell holds a picture in base64
    with found(path).open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file, delimiter="\t")


def _by_question(rows: Mapping[str, Row]) -> dict[str, list[str]]:
    """Indices of the rows of each question, unrotated first."""
    groups: dict[str, list[str]] = {}
    for index in sorted(rows, key=int):
        groups.setdefault(str(int(index) % ROTATION), []).append(index)
    return groups
