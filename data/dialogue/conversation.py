"""LLaVA's conversation JSON (LCS-558k, the 665k mix): one list of records, read whole.

    {"id": "k1", "image": "coco/train2017/000000000001.jpg",
     "conversations": [{"from": "human", "value": "<image>\\nWhat is it?"}, {"from": "gpt", "value": "A cup"}, ...]}

Source: haotian-liu/LLaVA, docs/Finetune_Custom_Data.md and llava/train/train.py. Records without `image` are text
alone. As there, a first turn of gpt is left out, and `<image>` is moved to the front of its turn wherever it stands. A
record that cannot be learned from is counted by its flaw and left out; LLaVA trains on some of them without a label.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from os.path import isfile  # unlike a Path's, False for what no file can be called
from pathlib import Path, PurePosixPath
from typing import Any

from data.document import encodable
from data.errors import CorpusError

MARKER = "<image>"


class Flaw(StrEnum):
    """Why a record is left out; a closed set."""

    SCHEMA = "schema"  # no id, no list of turns, a turn without text
    TURNS = "turns"  # questions and answers do not alternate, or the last question has no answer
    EMPTY_ANSWER = "empty_answer"  # nothing to learn
    MARKER = "marker"  # a picture without one `<image>` in one question
    MISSING_IMAGE = "missing_image"
    UNREADABLE = "unreadable"  # the picture is there and cannot be decoded
    NOT_A_PAIR = "not_a_pair"  # the plain template takes one picture and one answer


@dataclass(frozen=True)
class Round:
    """A question, without its `<image>`, and the answer to it."""

    question: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """What one record says."""

    item_id: str  # not unique: the mix has several records on one picture under its id
    image: str | None  # path below the folder of pictures
    rounds: tuple[Round, ...]
    shown: int | None  # round whose question begins with the picture


@dataclass(frozen=True)
class Flawed:
    """A record that is left out."""

    item_id: str
    flaw: Flaw
    message: str


def read_conversations(path: Path, images: Path) -> Iterator[Conversation | Flawed]:
    """Every record in the order of the file. images: what the records' paths are below.

    Raises CorpusError where the file is no JSON list.
    """
    try:
        records = json.loads(path.read_bytes())
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is no JSON: {error}") from error
    if not isinstance(records, list):
        raise CorpusError(f"{path} holds {type(records).__name__}, expected a list of LLaVA's records")
    for number, record in enumerate(records):
        found = _conversation(record, number)
        if isinstance(found, Conversation) and found.image is not None and not isfile(images / found.image):
            found = Flawed(found.item_id, Flaw.MISSING_IMAGE, f"there is no {images / found.image}")
        yield found


def _conversation(record: Any, number: int) -> Conversation | Flawed:
    """The conversation of a record, or what is wrong with it."""
    item_id = str(record.get("id", f"record {number}")) if isinstance(record, Mapping) else f"record {number}"

    def flawed(flaw: Flaw, message: str) -> Flawed:
        return Flawed(item_id, flaw, message)

    try:
        turns = [(turn["from"], turn["value"]) for turn in record["conversations"]]
        image = record.get("image")
    except (KeyError, TypeError, AttributeError) as error:
        return flawed(Flaw.SCHEMA, f"{type(error).__name__}: {error}")
    if not all(isinstance(text, str) for _, text in turns) or not (image is None or isinstance(image, str)):
        return flawed(Flaw.SCHEMA, "a turn or the name of the picture is no text")
    if not all(map(encodable, (item_id, image or "", *(text for _, text in turns)))):
        item_id = ascii(item_id)
        return flawed(Flaw.SCHEMA, "its id, a turn or the name of the picture holds half a character")
    if turns and turns[0][0] == "gpt":
        turns = turns[1:]
    speakers = [speaker for speaker, _ in turns]
    if not turns or speakers != ["human", "gpt"] * (len(turns) // 2):
        return flawed(Flaw.TURNS, f"speakers are {', '.join(map(str, speakers[:6]))}")
    questions, answers = [text for _, text in turns[::2]], [text for _, text in turns[1::2]]
    if not all(answer.strip() for answer in answers):
        return flawed(Flaw.EMPTY_ANSWER, "an answer is empty")
    shown = None
    if image is not None:
        if PurePosixPath(image).is_absolute() or ".." in PurePosixPath(image).parts:
            return flawed(Flaw.SCHEMA, f"picture {image!r} leads out of the folder of pictures")
        marked = [place for place, text in enumerate(questions) if MARKER in text]
        if sum(text.count(MARKER) for _, text in turns) != 1 or not marked:
            return flawed(Flaw.MARKER, f"{image} needs one {MARKER} in one question")
        shown = marked[0]
        questions[shown] = questions[shown].replace(MARKER, "").strip()
    rounds = tuple(Round(question, answer) for question, answer in zip(questions, answers, strict=True))
    return Conversation(item_id, image, rounds, shown)
