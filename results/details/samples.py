"""What heads said of a few test images: results/records/<table>.samples.jsonl.gz, pictures and texts to be looked at.

A line is a picture (`dataset`, `item_id`, `meant`: a reference, `picture`: a data URI), which stands there once however
many rows speak of it, or what one run said of one (`run_id`, `dataset`, `item_id`, `said`, `right`, `score`, `metric`).
Every row has one run a task: that of its smallest seed with samples. The images are the same in every row; they are
chosen by their ids alone (transfer/samples.py).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from results.canonical import canonical_json, plain
from results.details.items import packed, unpacked
from results.record import SAMPLES_FILE, RecordError, decode, read_lines, write_atomic
from results.schema import Publication, Status

SUFFIX = ".samples.jsonl.gz"
PICTURE = re.compile(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")
Image = tuple[str, str]  # dataset and item_id


@dataclass(frozen=True)
class Said:
    """What one run said of one image."""

    said: tuple[str, ...]  # the caption written, or the captions nearest to the image, nearest first
    right: tuple[bool, ...]  # of retrieved captions: whether each is the image's; empty for a written one
    score: float | None  # of this image, × 100
    metric: str


@dataclass(frozen=True)
class Samples:
    """Pictures, and what runs said of them."""

    pictures: dict[Image, tuple[str, str]] = field(default_factory=dict)  # a reference and the picture
    said: dict[str, dict[Image, Said]] = field(default_factory=dict)  # by run


def export(publication: Publication, runs: Path, folder: Path) -> None:
    """Write the samples of the publication's transfers into `folder`, where there are any.

    runs: run folders of this machine. A run's samples are taken from there, else they stay as they were published.
    Raises RecordError for a file that cannot be read, OSError when the disk refuses.
    """
    path = folder / f"{publication.name}{SUFFIX}"
    published = load(path) if path.exists() else Samples()
    kept = Samples()
    filled: set[tuple[str, str]] = set()  # row and stage
    for slot in sorted(publication.slots, key=lambda slot: slot.seed):
        record = publication.records.get(slot.run_id)
        if record is None or record.status is not Status.DONE or (slot.row, slot.stage) in filled:
            continue
        here = runs / slot.run_id / SAMPLES_FILE
        source = _collect(here, slot.run_id) if here.is_file() else published
        if slot.run_id in source.said:
            filled.add((slot.row, slot.stage))
            kept.said[slot.run_id] = source.said[slot.run_id]
            kept.pictures.update({image: source.pictures[image] for image in source.said[slot.run_id]})
    if kept.said or path.exists():
        save(path, kept)


def save(path: Path, samples: Samples) -> None:
    """Write samples, unless the file says the same already: compressed bytes differ between versions of zlib."""
    text = _text(samples)
    if not path.exists() or unpacked(path) != text:
        write_atomic(path, packed(text))


def load(path: Path) -> Samples:
    """Published samples. Raises RecordError naming the file and line that cannot be used."""
    found = Samples()
    # Not splitlines: JSON leaves other line separators, as U+2028 of a caption, as they are.
    for number, line in enumerate(unpacked(path).rstrip("\n").split("\n"), start=1):
        where = f"{path}, line {number}"
        _add(found, decode(line.encode(), where), where)
    return found


def rename(path: Path, names: Mapping[str, str]) -> None:
    """Give published samples the new names of their runs; a file that is not there holds none.

    Raises RecordError for a file that cannot be read, OSError when the disk refuses.
    """
    if path.exists():
        held = load(path)
        said = {names.get(run_id, run_id): each for run_id, each in held.said.items()}
        save(path, Samples(held.pictures, said))


def _collect(path: Path, run_id: str) -> Samples:
    """Samples of one run: its lines hold picture and words together."""
    found = Samples()
    for number, line in enumerate(read_lines(path), start=1):
        where, image = f"{path}, line {number}", {key: line.get(key) for key in ("dataset", "item_id")}
        _add(found, image | {key: line.pop(key, None) for key in ("picture", "meant")}, where)
        _add(found, line | {"run_id": run_id}, where)
    return found


def _add(samples: Samples, line: Mapping[str, Any], where: str) -> None:
    dataset, item = line.get("dataset"), line.get("item_id")
    if not (isinstance(dataset, str) and isinstance(item, str)):
        raise RecordError(f"{where}: names no image of a test set (dataset {dataset!r}, item_id {item!r})")
    if "picture" in line:
        picture, meant = line["picture"], line.get("meant")
        if not (isinstance(picture, str) and PICTURE.fullmatch(picture) and isinstance(meant, str)):
            raise RecordError(f"{where}: the picture of {item} is no PNG or JPEG data URI with a reference")
        samples.pictures[dataset, item] = (meant, picture)
        return
    held: dict[str, Any] = {each.name: line.get(each.name) for each in fields(Said)}
    if not isinstance(line.get("run_id"), str) or not _valid(held):
        raise RecordError(f"{where}: {held} is nothing that was said of an image")
    if (dataset, item) not in samples.pictures:
        raise RecordError(f"{where}: the picture of {item} of {dataset} is missing")
    said = Said(tuple(held["said"]), tuple(held["right"]), held["score"], held["metric"])
    samples.said.setdefault(line["run_id"], {})[dataset, item] = said


def _valid(held: Mapping[str, Any]) -> bool:
    texts, right, score = held["said"], held["right"], held["score"]
    return (
        isinstance(texts, list)
        and all(isinstance(text, str) for text in texts)
        and isinstance(right, list)
        and all(isinstance(each, bool) for each in right)
        and len(right) in (0, len(texts))
        and (score is None or type(score) in (int, float))
        and isinstance(held["metric"], str)
    )


def _text(samples: Samples) -> str:
    used = {image for said in samples.said.values() for image in said}
    lines: list[Mapping[str, Any]] = []
    for image in sorted(used):
        meant, picture = samples.pictures[image]
        lines.append({**_named(image), "meant": meant, "picture": picture})
    for run_id, said in sorted(samples.said.items()):
        lines += [{"run_id": run_id, **_named(image), **plain(each)} for image, each in sorted(said.items())]
    return "".join(f"{canonical_json(line)}\n" for line in lines)


def _named(image: Image) -> dict[str, str]:
    return {"dataset": image[0], "item_id": image[1]}
