"""Making a `Split` out of what a downstream reader found: containment, existence, counts, digest, loading.

Evaluation has zero tolerance: a missing image stops the run when the split is opened, one that cannot be decoded when
it is loaded.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import isfile  # unlike a Path's, False for what no file can be called
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from data.batch import Split
from data.document import Bad, ImageRef
from data.errors import BadImage, CorpusError
from data.files import PathBytes
from data.images import HARD_MAX_PIXELS, open_image
from data.readers.laion import LaionCorpus


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the real, complete set has; None where nothing is prescribed."""

    images: int
    captions: int | None = None
    classes: int | None = None
    per_class: int | None = None
    first_class: str | None = None
    last_class: str | None = None


@dataclass(frozen=True)
class FileImages:
    """Loads the i-th of named files; picklable, so that loader workers can."""

    split: str
    folder: Path
    names: tuple[str, ...]

    def __call__(self, index: int) -> Image.Image:
        """RGB; CorpusError when it cannot be had."""
        return open_item(self.split, index, self.ref(index))

    def ref(self, index: int) -> ImageRef:
        """The i-th image, unread."""
        name = self.names[index]
        return ImageRef(PathBytes(self.folder / name), name)


@dataclass(frozen=True)
class PairImages:
    """Loads the image of the i-th usable pair."""

    split: str
    corpus: LaionCorpus
    kept: np.ndarray

    def __call__(self, index: int) -> Image.Image:
        """RGB; CorpusError when it cannot be had."""
        sample = self.corpus[int(self.kept[index])]
        if isinstance(sample, Bad):
            raise CorpusError(
                f"{self.split}: {sample.doc_id} has become unusable since it was opened: {sample.message}"
            )
        return open_item(self.split, index, sample.images[0])


def open_item(split: str, index: int, ref: ImageRef) -> Image.Image:
    """RGB. Raises CorpusError naming the image, never skips it."""
    try:
        return open_image(ref, HARD_MAX_PIXELS)  # no item of a split may be dropped for its size
    except BadImage as error:
        raise CorpusError(
            f"{split}: image {index}, {ref.name}, cannot be used ({error.cause}: {error.message}). A split is read "
            "whole or not at all, since a missing image changes every score; restore the file"
        ) from error


def file_split(
    name: str,
    folder: Path,
    names: Sequence[str],
    labels: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    captions: Sequence[tuple[str, ...]] | None = None,
) -> Split:
    """A split of files below `folder`. Raises CorpusError for a name that leads out of it and for missing files."""
    missing: list[str] = []
    for each in names:
        path = PurePosixPath(each)
        if path.is_absolute() or ".." in path.parts or not path.parts or any(c in each for c in "\\:\0"):
            raise CorpusError(f"{name}: image name {each!r} does not stay inside {folder}")
        if not isfile(folder / path):
            missing.append(each)
    if missing:
        raise CorpusError(
            f"{name}: {len(missing)} of {len(names)} images are missing in {folder}, the first is {missing[0]}. "
            "A split is read whole or not at all; complete the download, or give the folder that holds the images"
        )
    return make_split(name, names, FileImages(name, folder, tuple(names)), labels, classes, captions)


def make_split(
    name: str,
    ids: Sequence[str],
    load: Callable[[int], Image.Image],
    labels: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    captions: Sequence[tuple[str, ...]] | None = None,
) -> Split:
    """Check ids and captions, hash everything in order."""
    twice = [item for item, times in Counter(ids).items() if times > 1]
    if twice:
        raise CorpusError(f"{name}: {twice[0]!r} is listed more than once; scores are kept by image")
    for item, texts in zip(ids, captions or (), strict=captions is not None):
        if isinstance(texts, str):
            raise TypeError(f"{name}: captions of {item} are one string, {texts!r:.60}; give a tuple of captions")
        if not texts or not all(isinstance(text, str) for text in texts):
            raise CorpusError(f"{name}: {item} has no caption, or one that is not text; every image needs at least one")
    digest = hashlib.sha256()
    for k, item in enumerate(ids):
        row = (item, labels[k] if labels is not None else None, captions[k] if captions is not None else None)
        digest.update(json.dumps(row).encode() + b"\n")
    return Split(
        name=name,
        digest=digest.hexdigest(),
        item_ids=tuple(ids),
        load=load,
        labels=None if labels is None else tuple(labels),
        classes=None if classes is None else tuple(classes),
        captions=None if captions is None else tuple(captions),
    )


def checked(split: Split, expect: Expected | None) -> Split:
    """The split, if its counts are those of the real set. Raises CorpusError with both numbers of all differences."""
    if expect is None:
        return split
    per_class = set(Counter(split.labels or ()).values())
    classes = split.classes or ("",)
    numbered = all(name.isdecimal() for name in classes)  # read from a list of numbers: there are no names to compare
    found = {
        "images": (len(split), expect.images),
        "captions": (sum(map(len, split.captions or ())), expect.captions),
        "classes": (len(split.classes or ()), expect.classes),
        "images per class": (min(per_class) if len(per_class) == 1 else sorted(per_class), expect.per_class),
        "first class": (classes[0], None if numbered else expect.first_class),
        "last class": (classes[-1], None if numbered else expect.last_class),
    }
    wrong = [f"{what} {is_} instead of {should}" for what, (is_, should) in found.items() if should not in (None, is_)]
    if wrong:
        raise CorpusError(
            f"{split.name} is not the complete published set: {'; '.join(wrong)}. Scores would not compare"
        )
    return split
