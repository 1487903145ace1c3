"""VQAv2 (Goyal et al. 2017): soft accuracy; val is scored here, test-dev and test by the server.

The server takes an answer for every question of test2015. Who answered test-dev sends blanks for the others, as LLaVA.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from transfer.dialogue.scoring.base import Asked, Release
from transfer.dialogue.scoring.files import add, read_json, schema_of, text_of
from transfer.dialogue.scoring.prompts import short
from transfer.dialogue.scoring.vqa import Answered, SoftAccuracy, as_json, people

WHOLE_TEST = "test2015"
_FOLDER = {"val2014": "val2014", "test-dev2015": WHOLE_TEST, WHOLE_TEST: WHOLE_TEST}  # of COCO's pictures


class VQAv2(SoftAccuracy):
    """Questions and annotations of one split of the release."""

    metric = "vqav2_acc"
    files = "v2_OpenEnded_mscoco_SPLIT_questions.json, for val2014 v2_mscoco_val2014_annotations.json"
    pictures = "COCO's val2014 or test2015"
    splits = {
        "val2014": Release((214_354,), "here"),
        "test-dev2015": Release((107_394,), "server"),
        WHOLE_TEST: Release((447_793,), "server"),
    }

    def read(self, folder: Path, split: str) -> dict[str, Answered]:
        """Questions by id. Raises ValueError where questions and annotations are not of the same split."""
        path = folder / f"v2_OpenEnded_mscoco_{split}_questions.json"
        questions: dict[str, Answered] = {}
        with schema_of(path):
            for entry in read_json(path)["questions"]:
                picture = f"COCO_{_FOLDER[split]}_{entry['image_id']:012}.jpg"
                asked = Asked(picture, short(text_of(entry, "question")))
                add(questions, str(entry["question_id"]), Answered(asked, str(entry["image_id"]), ()), path)
        if self.splits[split].scored == "server":
            return questions
        notes = folder / f"v2_mscoco_{split}_annotations.json"
        with schema_of(notes):
            answers = {str(entry["question_id"]): people(entry) for entry in read_json(notes)["annotations"]}
        if answers.keys() != questions.keys():
            only = [item for item in (*questions, *answers) if (item in questions) != (item in answers)]
            raise ValueError(
                f"{path.name} has {len(questions)} questions and {notes.name} answers {len(answers)}; {only[0]!r} is "
                f"in one of them only: take both files of {split} from one release"
            )
        return {item: replace(question, answers=answers[item]) for item, question in questions.items()}

    def submission(self, folder: Path, split: str, answers: Mapping[str, str]) -> bytes:
        """[{"question_id": 1, "answer": "yes"}, ...] over test2015. Raises ValueError for a question it has not."""
        whole = self.read(folder, WHOLE_TEST)
        if outside := [item for item in answers if item not in whole]:
            raise ValueError(
                f"{split} has question {outside[0]!r}, which {WHOLE_TEST} has not; take both from one release"
            )
        return as_json([{"question_id": int(item), "answer": self.submitted(answers.get(item, ""))} for item in whole])
