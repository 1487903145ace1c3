"""Answers to the questions of a benchmark, in one of three layouts, and their join with the questions.

    {"question_id": 1, "text": "yes", ...}                LLaVA's JSON lines, and what the suite writes
    [{"question_id": 1, "answer": "yes"}, ...]            VQA's results, as submitted to its server
    [{"questionId": "1", "prediction": "yes"}, ...]       GQA's predictions

Every question must have one answer, and every answer a question: scoring what the two have in common would flatter
whoever left out what is hard.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transfer.dialogue.scoring.files import read_json, read_lines

LAYOUTS = (("question_id", "text"), ("question_id", "answer"), ("questionId", "prediction"))
SHOWN = 5  # ids in a message


def read_answers(path: Path, key: Callable[[Mapping[str, Any]], str]) -> dict[str, str]:
    """Answers by the id that `key` finds in an entry. Raises ValueError for another layout or two answers of one id."""
    entries = _entries(path)
    answers: dict[str, str] = {}
    first: dict[str, int] = {}
    for number, entry in enumerate(entries, start=1):
        names = next((pair for pair in LAYOUTS if set(pair) <= entry.keys()), None)
        if names is None or not isinstance(entry[names[1]], str):
            known = ", ".join(f"{a} and {b}" for a, b in LAYOUTS)
            raise ValueError(
                f"{path}, answer {number} has the fields {', '.join(entry)}; one of {known} (text) is read"
            )
        try:
            item = key({**entry, "question_id": entry[names[0]]})
        except KeyError as error:
            raise ValueError(f"{path}, answer {number}: field {error} is missing, which says what it answers") from None
        if item in answers:
            raise ValueError(f"{path} answers {item!r} twice, as answers {first[item]} and {number}; keep one")
        answers[item], first[item] = entry[names[1]], number
    return answers


def check_join(questions: Mapping[str, object], answers: Mapping[str, str], asked: Path, answered: Path) -> None:
    """Raises ValueError that names what either side lacks."""
    missing = [item for item in questions if item not in answers]
    unknown = [item for item in answers if item not in questions]
    said = []
    if missing:
        said.append(
            f"{answered} has no answer to {len(missing)} of {len(questions)} questions of {asked}: {_shown(missing)}"
        )
    if unknown:
        said.append(
            f"{asked} has no question for {len(unknown)} of {len(answers)} answers of {answered}: {_shown(unknown)}"
        )
    if said:
        raise ValueError(f"{'; '.join(said)}. A benchmark is scored whole: answer every question of this split once")


def _entries(path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file:
        listed = file.read(1024).lstrip()[:1] == b"["
    entries = read_json(path) if listed else read_lines(path)
    if not entries or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path} holds no answers; expected a list of objects, or an object on every line")
    return list(entries)


def _shown(items: list[str]) -> str:
    return ", ".join(map(repr, items[:SHOWN])) + (", ..." if len(items) > SHOWN else "")
