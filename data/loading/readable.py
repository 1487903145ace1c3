"""Pictures of downstream sets, each decoded once before anything is trained: what cannot be is remembered.

A training set is a download like any other: what cannot be used is counted by its cause and left out, under the rule
of pre-training corpora (progress.py). Of a test set every picture must be there, or every score would change.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.batch import Split
from data.document import Bad, Cause, ImageRef, RawDocument
from data.errors import BadImage, CorpusError
from data.files import PathBytes
from data.images import HARD_MAX_PIXELS, open_image
from data.loading.progress import Progress
from data.readers.imagenet import imagenet
from data.readers.index import Shard, list_shards
from data.readers.laion import LaionCorpus
from data.readers.splits import PairImages, make_split
from data.readers.tars import tar_paths

AT_ONCE = 256  # pictures decoded together
Sample = Callable[[int], RawDocument | Bad]


@runtime_checkable
class Referable(Protocol):
    """What loads pictures and can say where they lie."""

    def ref(self, index: int) -> ImageRef:
        """The i-th image, unread."""
        ...


Unreadable = Mapping[int, tuple[str, str]]  # index of a picture -> cause and message


def training_pairs(
    folder: Path, name: str, caption_key: str | None, *, max_broken: float, cache: Path | None = None
) -> Split:
    """The usable samples of tar shards as img2dataset writes them (CC3M, CC12M, SBU, LAION-COCO), as a captioned split.

    Args:
        folder: holds the .tar files, or folders that do.
        name: of the split: "cc12m/train".
        caption_key: take the caption from this field of the .json ("top_caption" for LAION-COCO) instead of .txt.
        max_broken: share of the samples that may be unusable.
        cache: folder for the index of the shards and for what cannot be decoded.

    Raises:
        CorpusError: no shards, or too much is broken; the message counts it by cause and names shards.
    """
    shards = _shards(folder)
    corpus = LaionCorpus(shards, name, caption_key, cache)
    key = _key(name, (f"{shard.name} {shard.size} {shard.modified}" for shard in shards))
    unreadable = _unreadable(corpus.__getitem__, len(corpus), name, key, cache)
    progress, kept, ids, captions = Progress(), [], [], []
    for index, sample in _usable(corpus.__getitem__, len(corpus), unreadable, name, max_broken, progress):
        kept.append(index)
        ids.append(sample.doc_id)
        captions.append(sample.segments)
    images = PairImages(name, corpus, np.array(kept, dtype=np.int64))
    return replace(make_split(name, ids, images, captions=captions), coverage=dict(progress.coverage))


def count_pairs(folder: Path, name: str, caption_key: str | None, cache: Path | None = None) -> int:
    """Samples of such shards, usable or not, from the index. Raises CorpusError where there are no shards."""
    return len(LaionCorpus(_shards(folder), name, caption_key, cache))


def _shards(folder: Path) -> tuple[Shard, ...]:
    paths = tar_paths(folder)
    if not paths:
        raise CorpusError(f"{folder} holds no .tar files; give the folder that img2dataset wrote")
    return list_shards(folder, paths)


def training_classes(root: Path, *, max_broken: float, cache: Path | None = None) -> Split:
    """The usable images of ImageNet's training split, or of any other in one of its layouts, labelled by their class.

    Raises CorpusError as `data.readers.imagenet.imagenet` does, and where too much is broken.
    """
    split, progress = imagenet(root, "train", cache=cache), Progress()
    sample = _as_samples(split)
    unreadable = _unreadable(
        sample, len(split), split.name, _key(f"{split.name} {split.digest}", _stamps(sample, len(split))), cache
    )
    kept = [index for index, _ in _usable(sample, len(split), unreadable, split.name, max_broken, progress)]
    labels = split.labels
    assert labels is not None
    ids, loads = [split.item_ids[index] for index in kept], _Chosen(split.load, tuple(kept))
    made = make_split(split.name, ids, loads, [labels[index] for index in kept], split.classes)
    return replace(made, coverage=dict(progress.coverage))


def refuse_unreadable(split: Split, cache: Path | None = None) -> None:
    """Decode every picture of a test set. Raises CorpusError with their number and the first that cannot be decoded."""
    sample = _as_samples(split)
    unreadable = _unreadable(
        sample, len(split), split.name, _key(f"{split.name} {split.digest}", _stamps(sample, len(split))), cache
    )
    if unreadable:
        first, (cause, message) = min(unreadable.items())
        raise CorpusError(
            f"{split.name}: {len(unreadable)} of {len(split)} images cannot be used, the first is "
            f"{split.item_ids[first]} ({cause}: {message}). A test set is read whole or not at all; restore the files"
        )


def unreadable_files(folder: Path, names: Sequence[str], called: str, cache: Path | None = None) -> Mapping[str, str]:
    """Of pictures below a folder those that are not there or cannot be decoded, by name, and why.

    called: for the progress bar. cache: folder in which they are remembered while the files stay as they are.
    """

    def sample(index: int) -> RawDocument:
        ref = ImageRef(PathBytes(folder / names[index]), names[index])
        return RawDocument(f"{called}/{names[index]}", (), (ref,), (None,), (None,))

    key = _key(f"{called} {len(names)}", chain(names, _stamps(sample, len(names))))
    found = _unreadable(sample, len(names), called, key, cache)
    return {names[index]: f"{cause}: {message}" for index, (cause, message) in found.items()}


@dataclass(frozen=True)
class _Chosen:
    """Loads the i-th picture of those kept; picklable."""

    load: Callable[[int], Image.Image]
    kept: tuple[int, ...]

    def __call__(self, index: int) -> Image.Image:
        """RGB; CorpusError when it cannot be had."""
        return self.load(self.kept[index])


def _as_samples(split: Split) -> Sample:
    """A set of pictures as a corpus of documents with one image each."""
    images = split.load
    if not isinstance(images, Referable):
        raise TypeError(f"{split.name} loads by a {type(images).__name__}, which cannot say where its pictures lie")
    ref = images.ref
    return lambda index: RawDocument(f"{split.name}/{split.item_ids[index]}", (), (ref(index),), (None,), (None,))


def _usable(
    sample: Sample, count: int, unreadable: Unreadable, name: str, max_broken: float, progress: Progress
) -> Iterator[tuple[int, RawDocument]]:
    """Samples that can be used, in order; the others are counted. Raises CorpusError as `Progress.advance` does."""
    for index in range(count):
        found = sample(index)
        if isinstance(found, RawDocument) and index in unreadable:
            cause, message = unreadable[index]
            found = Bad(found.doc_id, Cause(cause), message)
        if isinstance(found, Bad):
            progress.skip(found)
        else:
            progress.use()
            yield index, found
        progress.advance(name, count, max_broken)


def _unreadable(sample: Sample, count: int, name: str, key: str, cache: Path | None) -> Unreadable:
    """Pictures that cannot be decoded, from the cache where these very files were looked at before."""
    path = cache / f"unreadable-{key}.json" if cache is not None else None
    if path is not None and path.exists():
        return {int(index): (cause, message) for index, (cause, message) in json.loads(path.read_text()).items()}
    found: dict[int, tuple[str, str]] = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for start in tqdm(range(0, count, AT_ONCE), desc=f"looking at pictures of {name}", leave=False, disable=None):
            some = range(start, min(start + AT_ONCE, count))
            answers = zip(some, pool.map(lambda index: _why_not(sample(index)), some), strict=True)
            found |= {index: why for index, why in answers if why is not None}
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(found))
        partial.replace(path)
    return found


def _why_not(sample: RawDocument | Bad) -> tuple[str, str] | None:
    if isinstance(sample, Bad):
        return None  # counted under its own cause
    try:
        open_image(sample.images[0], HARD_MAX_PIXELS)
    except BadImage as error:
        return error.cause.value, error.message
    return None


def _stamps(sample: Sample, count: int) -> Iterator[str]:
    """Name, size and time of every file behind the pictures: a file that was restored is looked at again."""
    last: Path | None = None
    for index in range(count):
        found = sample(index)
        path = getattr(found.images[0].read, "path", None) if isinstance(found, RawDocument) else None
        if path is not None and path != last:  # pictures in a tar lie side by side
            last = path
            if not path.exists():
                yield f"{path.name} missing"
                continue
            about = path.stat()
            yield f"{path.name} {about.st_size} {about.st_mtime_ns}"


def _key(name: str, stamps: Iterator[str]) -> str:
    digest = hashlib.sha256(name.encode())
    for stamp in stamps:
        digest.update(f"\n{stamp}".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:16]
