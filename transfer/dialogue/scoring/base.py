"""Benchmark: questions of a release, what an answer to one is worth, and the number a table prints.

A number is a function of sums over questions (hits and counts; for POPE and MME those of every part), so the same
function gives the score of the whole set and of every draw of a bootstrap over images.

Shape letters: k sums.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BenchmarkName = Literal["gqa", "mmbench", "mme", "pope", "scienceqa", "seed", "vizwiz", "vqav2"]
NAMES: tuple[BenchmarkName, ...] = get_args(BenchmarkName)


@dataclass(frozen=True)
class Release:
    """A split as its authors published it."""

    sizes: tuple[int, ...]  # questions of the complete split (MMBench: rows); two numbers where it was revised
    scored: Literal["here", "server"]  # where its right answers are


@dataclass(frozen=True)
class Asked:
    """What a model is given of a question."""

    image: str | None  # path below the folder of pictures; None: the question has none
    text: str  # with the sentence that asks for the form of the answer (prompts.py)


class Question(Protocol):
    """What the release says of one question; a benchmark knows more."""

    @property
    def asked(self) -> Asked:
        """What a model is given of it."""
        ...

    @property
    def answer(self) -> str:
        """The right one, as the release writes it; "" where only a server has it."""
        ...


@dataclass(frozen=True)
class Verdict:
    """What was made of the answer to one question."""

    item_id: str
    group_id: str  # the image, or the question where the release names no image: what a bootstrap draws
    parsed: str  # what the answer was taken to say; "" where it says nothing that counts
    score: float  # of this question, in [0, 1]
    sums: tuple[float, ...]  # what it adds to the sums that the benchmark's number is a function of


Q = TypeVar("Q", bound=Question)


class Benchmark(ABC, Generic[Q]):
    """One column of Table 4. Q: what the release says of one question."""

    metric: ClassVar[str]  # the paper's CSV column
    files: ClassVar[str]  # what the folder of the release holds, for messages and --help
    splits: ClassVar[Mapping[str, Release]]  # the first is the default
    pictures: ClassVar[str]  # what the folder of pictures is, for --help
    drawn: ClassVar[Literal["images", "questions"]] = "images"  # what `group_id` is

    @abstractmethod
    def read(self, folder: Path, split: str) -> dict[str, Q]:
        """Questions by id, in the order of the release. Raises ValueError for another layout."""

    def line(self, item: str, question: Q) -> dict[str, Any]:
        """A question as a line of a question file; `key` knows its answer by what models copy of it."""
        return {"question_id": item, "image": question.asked.image, "text": question.asked.text}

    def key(self, entry: Mapping[str, Any]) -> str:
        """The id of the question that a line of an answers file is for. Raises KeyError for a missing field."""
        return str(entry["question_id"])

    @abstractmethod
    def judge(self, questions: Mapping[str, Q], answers: Mapping[str, str]) -> Sequence[Verdict]:
        """Verdicts on the answers of a split that is scored here; both mappings have the same ids."""

    def value(self, totals: Floats) -> Floats:
        """(..., k) -> ...: the number of the table, here the mean of the first of two sums in %."""
        found: Floats = 100 * totals[..., 0] / totals[..., 1]
        return found

    def kept(self, verdict: Verdict) -> dict[str, float | list[float]]:
        """What a record keeps of a question, by name: a score whose mean is the number, or what that is of."""
        return {self.metric: 100 * verdict.score}

    def more(self, totals: Floats) -> Mapping[str, float]:
        """(k,): further numbers by name, in %, points or counts as the name says."""
        return {}


class Submitted(Benchmark[Q]):
    """A benchmark with a split whose answers only its server has."""

    submits: ClassVar[str]  # the file's suffix

    @abstractmethod
    def submission(self, folder: Path, split: str, answers: Mapping[str, str]) -> bytes:
        """The file that the server takes, for answers to every question of the split."""
