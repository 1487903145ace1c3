"""The releases of eight dialogue benchmarks, a handful of invented questions each, in their authors' own layouts.

`write(folder)` makes one folder a benchmark; `RIGHT` holds a right answer to every question, by the id it is known by.
"""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PEOPLE = {
    "1": ["yes"] * 10,
    "2": ["red"] * 6 + ["dark red"] * 3 + ["blue"],
    "3": ["two"] * 2 + ["2"] * 3 + ["3"] * 4 + ["many"],
}
TASKS = tuple("existence count position color posters celebrity scene landmark artwork OCR".split())
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")


def write(folder: Path) -> Path:
    for name, writer in WRITERS.items():
        (folder / name).mkdir(parents=True)
        writer(folder / name)
    return folder


def put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def lines(path: Path, entries: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def vqav2(folder: Path) -> None:
    for split, ids in {"val2014": PEOPLE, "test2015": ("1", "2", "3"), "test-dev2015": ("1", "3")}.items():
        asked = [{"question_id": int(n), "image_id": int(n) // 2, "question": "What is it?"} for n in ids]
        put(folder / f"v2_OpenEnded_mscoco_{split}_questions.json", {"questions": asked})
    notes = [
        {
            "question_id": int(n),
            "image_id": int(n) // 2,
            "question_type": "what",
            "answer_type": "other",
            "answers": [{"answer": a, "answer_confidence": "yes", "answer_id": k} for k, a in enumerate(said, 1)],
        }
        for n, said in PEOPLE.items()
    ]
    put(folder / "v2_mscoco_val2014_annotations.json", {"annotations": notes})


def vizwiz(folder: Path) -> None:
    val = [
        {
            "image": f"VizWiz_val_{n:0>8}.jpg",
            "question": "What is it?",
            "answers": [{"answer": a, "answer_confidence": "yes"} for a in said],
            "answerable": 1,
        }
        for n, said in PEOPLE.items()
    ]
    put(folder / "val.json", val)
    put(folder / "test.json", [{"image": f"VizWiz_test_{n:08}.jpg", "question": "What is it?"} for n in range(2)])


def gqa(folder: Path) -> None:
    asked = {
        "201": {"imageId": "n1", "question": "Is it red?", "answer": "yes", "isBalanced": True},
        "202": {"imageId": "n1", "question": "What is it?", "answer": "the table", "isBalanced": True},
        "203": {"imageId": "n2", "question": "What is it?", "answer": "cup", "isBalanced": False},
    }
    put(folder / "testdev_balanced_questions.json", asked)


def scienceqa(folder: Path) -> None:
    problems = {
        "4": {"question": "?", "choices": ["x", "y"], "answer": 1, "hint": "", "image": "image.png", "split": "test"},
        "5": {"question": "?", "choices": ["x", "y", "z"], "answer": 2, "hint": "", "image": None, "split": "test"},
        "6": {"question": "?", "choices": ["x", "y"], "answer": 0, "hint": "", "image": None, "split": "test"},
        "7": {"question": "?", "choices": ["x", "y"], "answer": 0, "hint": "", "image": None, "split": "train"},
    }
    put(folder / "problems.json", problems)
    put(folder / "pid_splits.json", {"train": ["7"], "test": ["4", "5", "6"], "val": []})


def pope(folder: Path) -> None:
    for sampling in ("random", "popular", "adversarial"):
        entries = [
            {"question_id": n, "image": f"COCO_val2014_{n // 3}.jpg", "text": "Is there a cup?", "label": label}
            for n, label in enumerate(("yes", "no", "yes", "no"), start=1)
        ]
        lines(folder / "coco" / f"coco_pope_{sampling}.json", entries)


def mme(folder: Path) -> None:
    for task in (*TASKS, *COGNITION):
        nested = task in ("posters", "celebrity")  # some sub-tasks of the release lie one folder deeper
        for image in ("0001", "0002"):
            path = folder / task / ("questions_answers_YN" if nested else "") / f"{image}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture = folder / task / ("images" if nested else "") / f"{image}.{'jpg' if nested else 'png'}"
            picture.parent.mkdir(exist_ok=True)
            picture.write_bytes(b"")
            path.write_text(
                "Is it there? Please answer yes or no.\tYes\nIs it not?  Please answer yes or no.\tNo\n", newline=""
            )


def mmbench(folder: Path) -> None:
    header = "index question hint A B C D answer category image source l2-category comment split".split()
    for split in ("dev_20230712", "test_20230712"):
        with (folder / f"mmbench_{split}.tsv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t")
            writer.writerow(header)
            for index, cells, answer in MMB_ROWS:
                options = [*cells, *["nan"] * (4 - len(cells))]
                known = answer if split.startswith("dev") else ""
                writer.writerow(
                    [index, "What is it?", "nan", *options, known, "c", "A" * 200_000, "s", "l2", "nan", split[:4]]
                )


MMB_ROWS = (
    ("7", ["cat", "dog"], "A"),
    ("1000007", ["dog", "cat"], "B"),
    ("8", ["1", "2", "3"], "C"),
    ("1000008", ["2", "3", "1"], "B"),
    ("2000008", ["3", "1", "2"], "A"),
)


def seed(folder: Path) -> None:
    common = {"question": "?", "choice_a": "w", "choice_b": "x", "choice_c": "y", "choice_d": "z"}
    asked = [
        {**common, "question_id": "101669", "answer": "A", "data_id": "1.jpg", "data_type": "image"},
        {**common, "question_id": 101670, "answer": "D", "data_id": "1.jpg", "data_type": "image"},
        {**common, "question_id": "v1", "answer": "B", "data_id": "1.mp4", "data_type": "video"},
    ]
    put(folder / "SEED-Bench.json", {"questions": asked, "question_type": {"Scene Understanding": 1}})


WRITERS: Mapping[str, Callable[[Path], None]] = {
    "vqav2": vqav2,
    "gqa": gqa,
    "vizwiz": vizwiz,
    "scienceqa": scienceqa,
    "pope": pope,
    "mme": mme,
    "mmbench": mmbench,
    "seed": seed,
}
RIGHT: Mapping[str, Mapping[str, str]] = {
    "vqav2": {"1": "yes", "2": "Red.", "3": "2"},
    "gqa": {"201": "Yes.", "202": "the table"},
    "vizwiz": {f"VizWiz_val_{n:0>8}": said for n, said in {"1": "yes", "2": "red", "3": "two"}.items()},
    "scienceqa": {"4": "B", "5": "C. z", "6": "The answer is A."},
    "pope": {
        f"{sampling}/{n}": said
        for sampling in ("random", "popular", "adversarial")
        for n, said in {1: "Yes", 2: "No, there is not.", 3: "Yes.", 4: "no"}.items()
    },
    "mme": {
        f"{task}/{image}/{question}": said
        for task in (*TASKS, *COGNITION)
        for image in ("0001", "0002")
        for question, said in {"Is it there?": "Yes", "Is it not?": "no"}.items()
    },
    "mmbench": {index: answer for index, _, answer in MMB_ROWS},
    "seed": {"101669": "A", "101670": "D"},
}


def answers(name: str, path: Path, said: Mapping[str, str] | None = None) -> Path:
    """An answers file as LLaVA writes it."""
    entries = []
    for item, text in (said or RIGHT[name]).items():
        if name == "mme":
            task, image, question = item.split("/")
            prompt = f"{question}\nAnswer the question using a single word or phrase."
            entries.append({"question_id": f"{task}/{image}.png", "prompt": prompt, "text": text})
        elif name == "pope":
            sampling, number = item.split("/")
            entries.append({"question_id": int(number), "category": sampling, "text": text})
        else:
            entries.append({"question_id": int(item) if item.isdigit() else item, "text": text, "model_id": "m"})
    return lines(path, entries)
