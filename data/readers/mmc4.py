"""MMC4 documents: JSON lines and loose images (fields of the allenai/mmc4 README).

    root/docs_shard_12_v2.jsonl.zip  or  docs_shard_12.jsonl, docs_shard_12_v3.jsonl
    root/images/<image_name>         or  images/<k>/<image_name>, k the shard number or the shard's place in a list

Every image and sentence is kept; thresholds, choice and placement belong to sampling. Names inside the JSON are not
trusted, zip members are capped in size and ratio, and a broken line costs that line only.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from data.document import Bad, Cause, ImageRef, RawDocument
from data.errors import CorpusError
from data.files import FileBytes, read_span
from data.readers.index import NOTE_FIELDS, Scan, Shard, build_index, digest_shards
from data.readers.zips import Unusable, unzip

SHARD_NAME = re.compile(r"docs_shard_(\d+)(?:_v\d+)?\.jsonl(?:\.zip)?")
# Numbers that were never published: a downloader's list position is the number less those missing below it.
NEVER_PUBLISHED = (3218, 3267, 5064, 5146, 7119, 8991, 9750, 11899, 15127, 15252, 16996, 17369, 17499, 17818)
PROBED_NAMES = 1000
MIN_HIT_RATE = 0.01

_ROW = np.dtype([*NOTE_FIELDS, ("line", np.int32), ("start", np.int64), ("size", np.int64)])


class ImageLayout(NamedTuple):
    """Where the images of each shard lie, and how many of the probed names were found there."""

    name: str
    folders: tuple[Path, ...]  # per shard
    hit_rate: float


class Mmc4Corpus:
    """Random access to the documents of a folder of MMC4 shards, by shard number and then line.

    Zipped shards are decompressed whole and the last few kept: shuffle within shards (`shard_sizes`), not across.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        images: Path,
        name: str = "mmc4",
        cache: Path | None = None,
        processes: int = 1,
    ) -> None:
        """Index the lines of every shard and find the layout of the image folder.

        Args:
            shards: the jsonl or zip files, see `list_mmc4`.
            images: the image folder, in any of the three layouts.
            name: prefix of every doc_id.
            cache: folder for the index; without it every start reads all shards again.
            processes: how many processes read shards.

        Raises:
            CorpusError: (almost) none of the images that the documents name is there.
        """
        self.name = name
        self.digest = digest_shards(shards)
        self._shards = tuple(shards)
        self._index = build_index(shards, _ROW, scan_lines, cache, processes)
        self.shard_sizes = self._index.shard_sizes
        self.layout = self._find_images(images)

    def __len__(self) -> int:
        return len(self._index.rows)

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The document at `index`, its images still unread; Bad when the line or the shard cannot be used."""
        row = self._index.rows[index]
        shard = self._shards[row["shard"]]
        doc_id = f"{self.name}/{shard.name.split('.')[0]}/{row['line']}"
        try:
            return self._document(doc_id, self._record(index), self.layout.folders[row["shard"]])
        except Unusable as error:
            return Bad(doc_id, error.cause, str(error))

    def _record(self, index: int) -> dict[str, Any]:
        row = self._index.rows[index]
        if row["size"] < 0:
            cause, _, message = self._index.note(row).partition(" ")
            raise Unusable(Cause(cause), message)
        shard = self._shards[row["shard"]]
        start, size = int(row["start"]), int(row["size"])
        try:
            if shard.path.suffix == ".zip":
                line = unzip(shard.path, shard.modified)[start : start + size]
            else:
                line = read_span(shard.path, start, size)
            record = json.loads(line.decode())
        except FileNotFoundError as error:
            raise Unusable(Cause.MISSING_SHARD, f"{shard.name} is gone since it was indexed") from error
        except (EOFError, OSError) as error:
            raise Unusable(Cause.BAD_JSON, str(error)) from error
        except UnicodeDecodeError as error:
            raise Unusable(Cause.BAD_UTF8, str(error)) from error
        except (ValueError, RecursionError) as error:
            raise Unusable(Cause.BAD_JSON, str(error)) from error
        if not isinstance(record, dict):
            raise Unusable(Cause.SCHEMA, f"the line holds {type(record).__name__}, not an object")
        return record

    def _document(self, doc_id: str, record: Mapping[str, Any], folder: Path) -> RawDocument:
        texts = _typed(record, "text_list", list)
        if not all(isinstance(text, str) for text in texts):
            raise Unusable(Cause.SCHEMA, "text_list holds something that is not text")
        try:
            for text in texts:
                text.encode()  # JSON can escape lone surrogates, which no tokenizer takes
        except UnicodeEncodeError as error:
            raise Unusable(Cause.BAD_UTF8, str(error)) from error
        if not any(text.strip() for text in texts):
            raise Unusable(Cause.EMPTY_TEXT, f"none of the {len(texts)} sentences has text")
        parsed = [_image(entry, folder, len(texts)) for entry in _typed(record, "image_info", list)]
        order = record.get("dom_order")
        if order is not None and not (
            isinstance(order, list) and len(order) == len(parsed) and all(type(at) is int for at in order)
        ):
            raise Unusable(Cause.SCHEMA, f"dom_order must list one position for each of the {len(parsed)} images")
        matrix = record.get("similarity_matrix")
        meta = {
            "url": record.get("url"),
            "dom_order": None if order is None else tuple(order),
            # users filter image_info and leave the matrix: then its rows no longer say which image they are
            "similarity_matrix": matrix if _has_shape(matrix, len(parsed), len(texts)) else None,
        }
        images = tuple(image for image, _, _ in parsed)
        anchors = tuple(anchor for _, anchor, _ in parsed)
        return RawDocument(doc_id, tuple(texts), images, anchors, tuple(score for _, _, score in parsed), meta=meta)

    def _find_images(self, images: Path) -> ImageLayout:
        numbers = [shard_number(shard.path) for shard in self._shards]
        published = [n - sum(gone < n for gone in NEVER_PUBLISHED) for n in numbers]
        candidates = {
            "images/<shard number>": tuple(images / str(number) for number in numbers),
            "images/<position of the shard in this folder>": tuple(images / str(at) for at in range(len(numbers))),
            "images/<position of the shard in the published list>": tuple(images / str(at) for at in published),
            "images, flat": (images,) * len(numbers),
        }
        names = self._probe_names()
        hits = {
            name: sum((folders[shard] / image).is_file() for shard, image in names) / max(1, len(names))
            for name, folders in candidates.items()
        }
        best = max(hits, key=lambda name: hits[name])  # the first of equals
        if names and hits[best] < MIN_HIT_RATE:
            shard, image = names[0]
            tried = ", ".join(str(folders[shard].relative_to(images.parent) / image) for folders in candidates.values())
            raise CorpusError(
                f"{images}: of {len(names)} image names probed, {hits[best]:.1%} exist (at least {MIN_HIT_RATE:.0%} is "
                f"needed). For the first I tried {tried}. Download the images, or pass the folder that holds them"
            )
        return ImageLayout(best, candidates[best], hits[best])

    def _probe_names(self) -> list[tuple[int, str]]:
        """Up to PROBED_NAMES (shard, image name), evenly from about a hundred documents in file order."""
        names: list[tuple[int, str]] = []
        for index in np.unique(np.linspace(0, max(0, len(self) - 1), 128).astype(int)) if len(self) else ():
            try:
                entries = _typed(self._record(int(index)), "image_info", list)
                here = [_image(entry, Path(), None)[0].name for entry in entries]
            except Unusable:
                continue  # counted when the document is read
            names += [(int(self._index.rows[index]["shard"]), name) for name in here]
        return names[:: max(1, len(names) // PROBED_NAMES)][:PROBED_NAMES]


def shard_number(path: Path) -> int:
    """12 for docs_shard_12_v2.jsonl.zip. Raises CorpusError for any other name."""
    match = SHARD_NAME.fullmatch(path.name)
    if match is None:
        raise CorpusError(f"{path.name} is no MMC4 shard name; expected docs_shard_<number>[_v<version>].jsonl[.zip]")
    return int(match[1])


def scan_lines(path: Path) -> Scan:
    """Index the non-blank lines of one shard; a shard that cannot be opened is one row with the reason as its note."""
    rows: list[tuple[int, int, int, int, int, int]] = []
    note = b""
    start = number = 0
    try:
        zipped = path.suffix == ".zip"
        with BytesIO(unzip(path, path.stat().st_mtime_ns)) if zipped else path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    rows.append((0, 0, 0, number, start, len(line)))
                    number += 1
                start += len(line)
    except Unusable as error:
        note = f"{error.cause} {error}".encode()
        rows = [(0, 0, len(note), 0, 0, -1)]
    return Scan(np.array(rows, _ROW), note)


def _typed(record: Mapping[str, Any], field: str, kind: type) -> Any:
    value = record.get(field)
    if not isinstance(value, kind):
        raise Unusable(Cause.SCHEMA, f"{field} is {type(value).__name__}, expected {kind.__name__}")
    return value


def _image(entry: Any, folder: Path, sentences: int | None) -> tuple[ImageRef, int | None, float | None]:
    """Image, anchor and score of one image_info entry; anchors are not checked when `sentences` is None."""
    if not isinstance(entry, dict):
        raise Unusable(Cause.SCHEMA, f"image_info holds {type(entry).__name__}, expected objects")
    name: str = _typed(entry, "image_name", str)
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or any(c in name for c in "\\:\0"):
        raise Unusable(Cause.SCHEMA, f"image_name {name!r} does not stay inside the image folder")
    anchor, score, label = (entry.get(field) for field in ("matched_text_index", "matched_sim", "label"))
    if sentences is not None and not (type(anchor) is int and 0 <= anchor < sentences):
        raise Unusable(Cause.SCHEMA, f"matched_text_index of {name} is {anchor!r}; there are {sentences} sentences")
    if score is not None and not (type(score) in (int, float) and math.isfinite(score)):
        raise Unusable(Cause.SCHEMA, f"matched_sim of {name} is {score!r}, expected a number or null")
    if label is not None and type(label) is not int:
        raise Unusable(Cause.SCHEMA, f"label of {name} is {label!r}, expected an integer")
    return ImageRef(FileBytes(folder, name), name, label), anchor, None if score is None else float(score)


def _has_shape(matrix: Any, rows: int, columns: int) -> bool:
    if not isinstance(matrix, list) or len(matrix) != rows:
        return False
    return all(isinstance(row, list) and len(row) == columns for row in matrix)
