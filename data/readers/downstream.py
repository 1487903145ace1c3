"""Readers of the downstream sets (LCL paper A.2 and Table 8): folders and JSON files become a `Split`.

No image is ever left out of an evaluation set (see data/readers/splits.py). Captions are kept as written, line ends
included.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os.path import isfile  # unlike a Path's, False for what no file can be called
from pathlib import Path, PurePosixPath
from typing import Any

from data.batch import Split
from data.errors import CorpusError
from data.readers.splits import Expected, checked, file_split

KARPATHY_SPLITS = {"train": ("train", "restval"), "val": ("val",), "test": ("test",)}


COCO_TEST = Expected(images=5000, captions=25_010)
FLICKR30K_TEST = Expected(images=1000, captions=5000)
NOCAPS_VAL = Expected(images=4500, captions=45_000)


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


def captioned(folder: Path, name: str, split: str) -> Split:
    """A split of COCO or Flickr30k from its folder, by whichever of the usual lists lies there.

        root/dataset_<name>.json                          Karpathy's, with all splits
        root/<name>_karpathy_test.json, <name>_test.json  of BLIP and LAVIS, one split each
        root/images/ or root/                             the pictures, under the paths in the list

    Raises CorpusError as the readers of these lists do, and when there is none.
    """
    karpathys = folder / f"dataset_{name}.json"
    if karpathys.is_file():
        return karpathy(karpathys, folder / "images", split)
    lists = [folder / f"{name}_karpathy_{split}.json", folder / f"{name}_{split}.json"]
    for path in lists:
        if path.is_file():
            return blip(path, folder, f"{name}/{split}")
    raise CorpusError(
        f"{folder} holds none of {karpathys.name}, {lists[0].name} and {lists[1].name}; put one of them there, and the "
        "images in images/"
    )


def blip(json_path: Path, folder: Path, name: str) -> Split:
    """A list of BLIP or LAVIS: [{"image": "val2014/COCO_val2014_000000000001.jpg", "caption": ["...", ...]}, ...].

    The first folder of each path may be missing on disk, as Flickr30k is unpacked with and without it.

    Raises:
        CorpusError: the file has another schema, or an image is missing.
    """
    content = _read_json(json_path, list)
    captions: dict[str, list[str]] = {}
    with _schema_of(json_path):
        for entry in content:
            said = entry["caption"]
            if not isinstance(entry["image"], str) or not isinstance(said, str | list):
                raise TypeError(f"image is {entry['image']!r:.60} and caption {said!r:.60}")
            captions.setdefault(entry["image"], []).extend([said] if isinstance(said, str) else said)
    names = list(captions)
    if not names:
        raise CorpusError(f"{json_path} lists no images")
    short = [each.partition("/")[2] or each for each in names]
    places = [(folder / "images", names), (folder, names), (folder / "images", short), (folder, short)]
    root, ids = next(((root, ids) for root, ids in places if isfile(root / ids[0])), places[0])
    return file_split(name, root, ids, captions=[tuple(captions[each]) for each in names])


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
        times = Counter(entry["id"] for entry in content["images"])
        if twice := [each for each, number in times.items() if number > 1]:
            raise CorpusError(
                f"{json_path}: {times[twice[0]]} images have the id {twice[0]!r}, and would share captions"
            )
        captions: dict[object, list[str]] = {each: [] for each in times}
        for annotation in content["annotations"]:
            if annotation["image_id"] not in captions:
                raise CorpusError(f"{json_path}: a caption names image {annotation['image_id']!r}, which is not listed")
            captions[annotation["image_id"]].append(annotation["caption"])
        names = [entry["file_name"] for entry in content["images"]]
        if strange := [name for name in names if not isinstance(name, str)]:
            raise TypeError(f"file_name is {strange[0]!r:.60}")
        references = [tuple(captions[entry["id"]]) for entry in content["images"]]
    return checked(file_split("nocaps/val", image_root, names, captions=references), expect)


def _read_json(path: Path, kind: type = dict) -> Any:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, kind):
        expected = "an object with 'images'" if kind is dict else "a list"
        raise CorpusError(f"{path} holds {type(content).__name__}, expected {expected}")
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
