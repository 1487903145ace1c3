"""Readers of the downstream sets (LCL paper A.2 and Table 8): folders and JSON files become a `Split`.

No image is ever left out of an evaluation set (see data/readers/splits.py). Captions are kept as written, line ends
included.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from data.batch import Split
from data.document import Bad
from data.errors import CorpusError
from data.readers.index import list_shards
from data.readers.laion import LaionCorpus
from data.readers.splits import Expected, PairImages, checked, file_split, make_split
from data.readers.tars import tar_paths

IMAGE_SUFFIXES = frozenset((".jpeg", ".jpg", ".png", ".webp"))
KARPATHY_SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}


IMAGENET_TRAIN = Expected(images=1_281_167, classes=1000, first_class="n01440764", last_class="n15075141")
IMAGENET_VAL = Expected(images=50_000, classes=1000, per_class=50, first_class="n01440764", last_class="n15075141")
COCO_VAL = Expected(images=5000)
COCO_TEST = Expected(images=5000, captions=25_010)
FLICKR30K_TRAIN = Expected(images=29_000, captions=145_000)
FLICKR30K_TEST = Expected(images=1000, captions=5000)
NOCAPS_VAL = Expected(images=4500, captions=45_000)


def imagenet(root: Path, split: str, expect: Expected | None = None) -> Split:
    """A folder of classes: root/<split>/<class>/<image>, classes numbered in sorted order, images sorted by name.

    Args:
        root: the folder that holds `train` and `val`; when both are there, their classes must be the same.
        split: "train" or "val".
        expect: IMAGENET_TRAIN or IMAGENET_VAL for the real set.

    Raises:
        CorpusError: no such folder, images outside class folders, an empty class, files that are no images, other
            classes in the other split, or counts that differ from `expect`.
    """
    if split not in ("train", "val"):
        raise CorpusError(f"ImageNet-style folders have the splits 'train' and 'val', not {split!r}")
    folder = root / split
    classes = _class_names(folder)
    other = root / {"train": "val", "val": "train"}[split]
    if other.is_dir() and (others := _class_names(other)) != classes:
        differing = sorted(set(classes) ^ set(others))
        raise CorpusError(
            f"{folder} has {len(classes)} classes and {other} has {len(others)}; first that is in one only: "
            f"{differing[0]!r}. Class numbers would not agree; both need the same class folders"
        )
    items: list[tuple[str, int]] = []
    for number, name in enumerate(classes):
        files = sorted(path.name for path in (folder / name).iterdir() if not path.name.startswith("."))
        strange = [file for file in files if PurePosixPath(file).suffix.lower() not in IMAGE_SUFFIXES]
        if strange:
            raise CorpusError(f"{folder / name / strange[0]} is not an image file; move it out of the class folder")
        if not files:
            raise CorpusError(f"{folder / name} holds no images; each class needs some")
        items += [(f"{name}/{file}", number) for file in files]
    labels = tuple(label for _, label in items)
    made = file_split(f"imagenet/{split}", folder, [name for name, _ in items], labels=labels, classes=classes)
    return checked(made, expect)


def karpathy(json_path: Path, image_root: Path, split: str, expect: Expected | None = None) -> Split:
    """A split of dataset_coco.json or dataset_flickr30k.json, with every sentence of every image.

    Args:
        json_path: the file by Karpathy; its "dataset" field names the split ("coco/test").
        image_root: holds the images, below their "filepath" folder when the file gives one.
        split: "train" (with restval), "val" or "test".
        expect: COCO_TEST, FLICKR30K_TEST, ... for the real set.

    Raises:
        CorpusError: the file has another schema, has no such split, or an image is missing.
    """
    if split not in KARPATHY_SPLITS:
        raise CorpusError(f"Karpathy's files have the splits {', '.join(KARPATHY_SPLITS)}, not {split!r}")
    content = _read_json(json_path)
    names: list[str] = []
    captions: list[tuple[str, ...]] = []
    held: Counter[str] = Counter()
    with _schema_of(json_path):
        for entry in content["images"]:
            held[entry["split"]] += 1
            if entry["split"] in KARPATHY_SPLITS[split]:
                names.append((PurePosixPath(entry.get("filepath", "")) / entry["filename"]).as_posix())
                captions.append(tuple(sentence["raw"] for sentence in entry["sentences"]))
    if not names:
        raise CorpusError(f"{json_path} has no images of split {split!r}; it has {_listed(held)}")
    dataset = content.get("dataset", json_path.stem)
    return checked(file_split(f"{dataset}/{split}", image_root, names, captions=captions), expect)


def nocaps_file(folder: Path) -> Path:
    """The one nocaps_val*.json of a folder that holds captions; the list of images beside it is no rival.

    Raises CorpusError when there is none or more than one, naming them.
    """
    found = sorted(path for path in folder.glob("nocaps_val*.json") if path.is_file())
    captioned = [path for path in found if _read_json(path).get("annotations")]
    if len(captioned) == 1:
        return captioned[0]
    names = ", ".join(path.name for path in captioned or found)
    if captioned:
        raise CorpusError(
            f"{folder} holds {len(captioned)} files with NoCaps captions ({names}); keep one of them there"
        )
    if found:
        raise CorpusError(
            f"{folder} holds {names}, which lists images and no captions; put nocaps_val_4500_captions.json beside it"
        )
    raise CorpusError(f"{folder} holds no nocaps_val*.json; put nocaps_val_4500_captions.json there, images in val/")


def nocaps(json_path: Path, image_root: Path, expect: Expected | None = None) -> Split:
    """NoCaps val, or any file of COCO style: images{id, file_name} and annotations{image_id, caption}.

    Raises:
        CorpusError: the file has another schema, an image has no caption, or an image is missing.
    """
    content = _read_json(json_path)
    with _schema_of(json_path):
        captions: dict[object, list[str]] = {entry["id"]: [] for entry in content["images"]}
        for annotation in content["annotations"]:
            if annotation["image_id"] not in captions:
                raise CorpusError(f"{json_path}: a caption names image {annotation['image_id']!r}, which is not listed")
            captions[annotation["image_id"]].append(annotation["caption"])
        names = [entry["file_name"] for entry in content["images"]]
        references = [tuple(captions[entry["id"]]) for entry in content["images"]]
    return checked(file_split("nocaps/val", image_root, names, captions=references), expect)


def pairs(
    folder: Path, name: str, caption_key: str | None = None, max_bad: int = 0, cache: Path | None = None
) -> Split:
    """Tar shards as img2dataset writes them (CC3M, CC12M, SBU, LAION-COCO) as a captioned split.

    Args:
        folder: holds the .tar files, or folders that do.
        name: of the split: "cc12m/train".
        caption_key: take the caption from this field of the .json ("top_caption" for LAION-COCO) instead of .txt.
        max_bad: how many samples without image or caption may be left out; downloads from the web always have some.
        cache: folder for the index of the shards.

    Raises:
        CorpusError: no shards, or more than `max_bad` samples cannot be used; the message counts them by cause.
    """
    paths = tar_paths(folder)
    if not paths:
        raise CorpusError(f"{folder} holds no .tar files; give the folder that img2dataset wrote")
    corpus = LaionCorpus(list_shards(folder, paths), name, caption_key, cache)
    ids: list[str] = []
    kept: list[int] = []
    captions: list[tuple[str, ...]] = []
    causes: Counter[str] = Counter()
    examples: list[Bad] = []
    for index in range(len(corpus)):
        sample = corpus[index]
        if isinstance(sample, Bad):
            causes[sample.cause] += 1
            examples = examples or [sample]
        else:
            ids.append(sample.doc_id)
            kept.append(index)
            captions.append(sample.segments)
    if causes.total() > max_bad:
        raise CorpusError(
            f"{folder}: {causes.total()} of {len(corpus)} samples cannot be used and max_bad is {max_bad}: "
            f"{_listed(causes)}; the first is {examples[0].doc_id}: {examples[0].message}"
        )
    return make_split(name, ids, PairImages(name, corpus, np.array(kept)), captions=captions)


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder; expected {folder.name}/<class>/<image>")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    loose = [path for path in entries if not path.is_dir()]
    if loose:
        raise CorpusError(f"{loose[0]} lies outside the class folders; sort the images into {folder.name}/<class>/")
    if not entries:
        raise CorpusError(f"{folder} is empty; expected {folder.name}/<class>/<image>")
    return tuple(path.name for path in entries)


def _read_json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise CorpusError(f"{path} holds {type(content).__name__}, expected an object with 'images'")
    return content


@contextmanager
def _schema_of(path: Path) -> Iterator[None]:
    """Turn a missing or mistyped field into a message that names the file."""
    try:
        yield
    except KeyError as error:
        raise CorpusError(f"{path}: field {error} is missing; is this the file the reader is for?") from error
    except (TypeError, AttributeError) as error:
        raise CorpusError(f"{path} has another structure than expected: {error}") from error


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items()))
