"""VizWiz-VQA (Gurari et al. 2018): soft accuracy; val is scored here, test by the server.

A question is known by its image, of which there is one.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from transfer.dialogue.scoring.base import Asked, Release
from transfer.dialogue.scoring.files import add, read_json, schema_of, text_of
from transfer.dialogue.scoring.prompts import UNSURE, short
from transfer.dialogue.scoring.vqa import Answered, SoftAccuracy, as_json, people


class VizWiz(SoftAccuracy):
    """The list of one split of the release."""

    metric = "vizwiz_acc"
    files = "val.json or test.json"
    pictures = "VizWiz's val or test"
    splits = {"val": Release((4319,), "here"), "test": Release((8000,), "server")}

    def read(self, folder: Path, split: str) -> dict[str, Answered]:
        """Questions by the name of their image without its suffix."""
        path = folder / f"{split}.json"
        here = self.splits[split].scored == "here"
        questions: dict[str, Answered] = {}
        with schema_of(path):
            for entry in read_json(path):
                image = text_of(entry, "image")
                asked = Asked(image, short(f"{text_of(entry, 'question')}\n{UNSURE}"))
                add(questions, _stem(image), Answered(asked, image, people(entry) if here else ()), path)
        return questions

    def key(self, entry: Mapping[str, Any]) -> str:
        """The image of the line, or else its question_id, which is taken to be one."""
        return _stem(str(entry.get("image", entry["question_id"])))

    def submission(self, folder: Path, split: str, answers: Mapping[str, str]) -> bytes:
        """[{"image": "VizWiz_test_00000000.jpg", "answer": "unanswerable"}, ...] in the order of the release."""
        questions = self.read(folder, split)
        return as_json(
            [{"image": question.image, "answer": self.submitted(answers[item])} for item, question in questions.items()]
        )


def _stem(image: str) -> str:
    return PurePosixPath(image).stem
