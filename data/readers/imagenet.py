"""ImageNet-1k (LCL paper A.2) as people have it: folders of classes, a flat val with its list, or webdataset tars.

root/train/<class>/<image>, root/val/<class>/<image>     classes numbered in sorted order
root/val/<image>, root/val.txt or LOC_val_solution.csv   "<image> <number>" a line, or Kaggle's list with classes
root/train/*.tar, root/val/*.tar                         <key>.jpg and <key>.cls, the number as text
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from PIL import Image

from data.batch import Split
from data.document import ImageRef
from data.errors import CorpusError
from data.files import SpanBytes, read_span
from data.readers.index import build_index, list_shards
from data.readers.laion import IMAGE_SUFFIXES as TAR_SUFFIXES
from data.readers.laion import ROW, scan_tar
from data.readers.splits import Expected, checked, file_split, make_split, open_item

IMAGE_SUFFIXES = frozenset((".jpeg", ".jpg", ".png", ".webp"))
IMAGENET_TRAIN = Expected(images=1_281_167, classes=1000, first_class="n01440764", last_class="n15075141")
IMAGENET_VAL = Expected(images=50_000, classes=1000, per_class=50, first_class="n01440764", last_class="n15075141")

MOST_CLASSES = 1_000_000  # of which only the numbers are known


def imagenet(root: Path, split: str, expect: Expected | None = None, cache: Path | None = None) -> Split:
    """A split in whichever of the three layouts lies there; images sorted by name, those in tars as they lie.

    Args:
        root: the folder that holds `train` and `val`; when both are there, their classes must be the same.
        split: "train" or "val".
        expect: IMAGENET_TRAIN or IMAGENET_VAL for the real set.
        cache: folder for the index of tars.

    Raises:
        CorpusError: no such folder, images outside class folders, an empty class, files that are no images, other
            classes in the other split, or counts that differ from `expect`.
    """
    if split not in ("train", "val"):
        raise CorpusError(f"ImageNet-style folders have the splits 'train' and 'val', not {split!r}")
    folder = root / split
    if tars := _tars(folder):
        return checked(_from_tars(folder, tars, split, cache), expect)
    if split == "val" and (listed := _official_list(root)) is not None:
        return checked(_from_list(root, *listed), expect)
    classes = _class_names(folder)
    other = root / {"train": "val", "val": "train"}[split]
    sorted_too = other.is_dir() and not _tars(other) and (other.name != "val" or _official_list(root) is None)
    if sorted_too and (others := _class_names(other)) != classes:
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


def _tars(folder: Path) -> list[Path]:
    """The tars at the top of a folder; those in class folders are none of ImageNet's, and there are a million files."""
    return sorted(folder.glob("[!.]*.tar")) if folder.is_dir() else []


def _class_names(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise CorpusError(f"{folder} is not a folder; expected {folder.name}/<class>/<image>")
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    loose = [path for path in entries if not path.is_dir()]
    if loose:
        raise CorpusError(
            f"{loose[0]} lies outside the class folders; sort the images into {folder.name}/<class>/, or put val.txt "
            "or LOC_val_solution.csv beside val/"
        )
    if not entries:
        raise CorpusError(f"{folder} is empty; expected {folder.name}/<class>/<image>")
    return tuple(path.name for path in entries)


def _official_list(root: Path) -> tuple[Path, dict[str, str]] | None:
    """The list of a flat val/: which class each image has, by file name; None where val/ is sorted, or has no list."""
    folder = root / "val"
    if not folder.is_dir() or not any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir()):
        return None
    for name in ("val.txt", "LOC_val_solution.csv"):
        path = root / name
        if path.is_file():
            try:
                lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
                if name == "val.txt":
                    return path, {line.split()[0]: line.split()[1] for line in lines}
                rows = csv.DictReader(lines)
                return path, {f"{row['ImageId']}.JPEG": row["PredictionString"].split()[0] for row in rows}
            except (KeyError, IndexError, AttributeError, UnicodeDecodeError, csv.Error) as error:
                raise CorpusError(
                    f"{path} is no list of images and classes ({type(error).__name__}: {error})"
                ) from error
    return None


def _numbered(labels: Sequence[int], where: Path, train: Path) -> tuple[str, ...]:
    """The classes of which only numbers are known. Raises CorpusError for a number that no class of `train` has."""
    most = max(labels)
    folders = sum(path.is_dir() for path in train.iterdir()) if train.is_dir() and not _tars(train) else 0
    if most >= (folders or MOST_CLASSES):
        beside = f"{train} has {folders} classes, 0 to {folders - 1}" if folders else f"there are up to {MOST_CLASSES}"
        raise CorpusError(
            f"{where} has class numbers from {min(labels)} to {most}, but {beside}. Numbers begin at 0, in the sorted "
            "order of the classes' names; write them so"
        )
    return tuple(map(str, range(most + 1)))


def _from_list(root: Path, path: Path, listed: Mapping[str, str]) -> Split:
    names = sorted(listed)
    if all(value.isdecimal() for value in listed.values()):
        labels = [int(listed[name]) for name in names]
        classes = _numbered(labels, path, root / "train")
    else:
        found = tuple(sorted(set(listed.values())))
        train = root / "train"  # in tars it has numbers only, which are those of all classes in sorted order
        classes = _class_names(train) if train.is_dir() and not _tars(train) else found
        if unknown := set(found) - set(classes):
            raise CorpusError(f"{path} names class {min(unknown)!r}, for which {root / 'train'} has no folder")
        labels = [classes.index(listed[name]) for name in names]
    return file_split("imagenet/val", root / "val", names, labels=labels, classes=classes)


@dataclass(frozen=True)
class _SpanImages:
    """Loads the i-th of pictures in tars; picklable."""

    split: str
    refs: tuple[ImageRef, ...]

    def __call__(self, index: int) -> Image.Image:
        """RGB; CorpusError when it cannot be had."""
        return open_item(self.split, index, self.ref(index))

    def ref(self, index: int) -> ImageRef:
        """The i-th image, unread."""
        return self.refs[index]


def _from_tars(folder: Path, tars: Sequence[Path], split: str, cache: Path | None) -> Split:
    shards = list_shards(folder, tars)
    index = build_index(shards, ROW, scan_tar, cache)
    ids, labels, refs = [], [], []
    for row in index.rows:
        shard, key = shards[row["shard"]], index.note(row)
        if row["fault"] or row["image_size"] < 0 or row["cls_size"] < 0:
            raise CorpusError(
                f"{shard.path}: {key!r} is no picture with a .cls, or the tar is cut there. A split is read whole or "
                "not at all; restore the shard"
            )
        number = read_span(shard.path, int(row["cls_start"]), int(row["cls_size"]))
        if not number.strip().isdigit():
            raise CorpusError(f"{shard.path}: .cls of {key!r} holds {number[:20]!r}, not the number of a class")
        ids.append(f"{shard.name.removesuffix('.tar')}/{key}")
        labels.append(int(number))
        span = SpanBytes(shard.path, int(row["image_start"]), int(row["image_size"]))
        refs.append(ImageRef(span, f"{key}.{TAR_SUFFIXES[row['suffix']]}"))
    if not ids:
        raise CorpusError(f"{folder} holds {len(tars)} tars and no picture in them")
    classes = _numbered(labels, folder, folder.parent / "train")
    name = f"imagenet/{split}"
    return make_split(name, ids, _SpanImages(name, tuple(refs)), labels=labels, classes=classes)
