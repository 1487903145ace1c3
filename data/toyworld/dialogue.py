"""The embedded dialogue corpus: LLaVA's two conversation files and two benchmarks, in their releases' layouts.

    align.json, tune.json             records of stage 1 and stage 2; their pictures are below images/
    pope/coco_pope_*.json             yes/no: the three files
    gqa/testdev_balanced_questions.json   what, where, which colour, how many
    pope/pictures/, gqa/pictures/     what both ask about

Everything is a pure function of `ToyDialogueSpec`; the folder appears under its name only when whole.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from filelock import FileLock

from data.seeds import generator
from data.toyworld.corners import Shown, draw, sample
from data.toyworld.questions import KINDS, SHORT, Negatives, ask, describe, pope, rounds
from data.toyworld.spec import ToyDialogueSpec
from data.toyworld.write import encoded

PICTURES = "pictures"  # folder of a benchmark's pictures, beside its files
Part = Literal["align", "tune", "test"]
DESCRIBE = "Describe the picture."  # of stage 1, which throws it away, and of stage 2


def ensure_dialogue(root: Path, spec: ToyDialogueSpec) -> None:
    """Write the corpus of that spec below `root`, unless it is there. Raises OSError when the disk refuses."""
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{spec.folder_name}.lock"):  # two sweeps may begin at once
        if not (root / spec.folder_name).exists():
            write_dialogue(root / spec.folder_name, spec)


def write_dialogue(folder: Path, spec: ToyDialogueSpec) -> None:
    """Write the corpus. Raises FileExistsError where there is something of that name."""
    if folder.exists():
        raise FileExistsError(f"{folder} is there already; name a folder that is not")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _stage(partial, "align", spec)
        _stage(partial, "tune", spec)
        _tests(partial, spec)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _pictures(root: Path, part: Part, spec: ToyDialogueSpec) -> tuple[list[Shown], list[str], np.random.Generator]:
    """What pictures of a part show, the names of their files, which are written, and the stream to go on with."""
    rng = generator(spec.seed, "toyworld", "dialogue", part)
    several = [sample(rng, spec.things) for _ in range(getattr(spec, part))]
    folders = [root / name / PICTURES for name in ("pope", "gqa")] if part == "test" else [root / "images" / part]
    names = [f"{number:06d}.jpg" for number in range(len(several))]
    for folder in folders:
        folder.mkdir(parents=True)
    for name, content in zip(names, encoded(draw(several, rng), "jpg"), strict=True):
        for folder in folders:
            (folder / name).write_bytes(content)
    return several, names, rng


def _stage(root: Path, part: Literal["align", "tune"], spec: ToyDialogueSpec) -> None:
    several, names, rng = _pictures(root, part, spec)
    records = []
    for shown, name in zip(several, names, strict=True):
        if part == "tune":
            first, *others = rounds(shown, rng)  # LLaVA's mix, too, asks for short answers in the first round alone
            talk = [(f"{first.text}\n{SHORT}", first.answer), *((each.text, each.answer) for each in others)]
            records.append(_record(f"{part}/{name}", talk))
        records.append(_record(f"{part}/{name}", [(DESCRIBE, describe(shown))]))
    _put(root / f"{part}.json", json.dumps(records, indent=1))


def _record(image: str, rounds: Sequence[tuple[str, str]]) -> Mapping[str, Any]:
    """LLaVA's record of a conversation about a picture."""
    turns = [{"from": who, "value": text} for each in rounds for who, text in zip(("human", "gpt"), each, strict=True)]
    turns[0]["value"] = f"<image>\n{turns[0]['value']}"
    return {"id": Path(image).stem, "image": image, "conversations": turns}


def _tests(root: Path, spec: ToyDialogueSpec) -> None:
    several, names, rng = _pictures(root, "test", spec)
    for negatives in get_args(Negatives):
        asked = pope(several, negatives, rng)
        entries = [(name, question) for name, each in zip(names, asked, strict=True) for question in each]
        lines = [
            {"question_id": number, "image": name, "text": question.text, "label": question.answer}
            for number, (name, question) in enumerate(entries, start=1)
        ]
        _put(root / "pope" / f"coco_pope_{negatives}.json", "\n".join(map(json.dumps, lines)))
    balanced: dict[str, Any] = {}
    for shown, name in zip(several, names, strict=True):
        for kind in KINDS[spec.things][:-1]:  # but the one that is answered by yes or no
            question = ask(shown, kind, rng)
            balanced[f"{len(balanced):06d}"] = {
                "imageId": name.partition(".")[0],
                "question": question.text,
                "answer": question.answer,
                "isBalanced": True,
                "types": {"semantic": kind},
            }
    _put(root / "gqa" / "testdev_balanced_questions.json", json.dumps(balanced, indent=1))


def _put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
