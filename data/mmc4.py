"""MMC4 documents: JSON lines and loose images (fields of the allenai/mmc4 README).

    root/docs_shard_12_v2.jsonl.zip  or  docs_shard_12.jsonl, docs_shard_12_v3.jsonl
    root/images/<image_name>         or  images/<k>/<image_name>, k the shard number or the shard's place in a list

Every image and sentence is kept; thresholds, choice and placement belong to sampling. Names inside the JSON are not
trusted, zip members are capped in size and ratio, and a broken line costs that line only.
"""

import hashlib
import json
import math
import re
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from data.document import Bad, Cause, Corpus, ImageRef, RawDocument
from data.errors import CorpusError
from data.files import FileBytes, read_span
from data.index import NOTE_FIELDS, Scan, Shard, build_index, digest_shards

SHARD_NAME = re.compile(r"docs_shard_(\d+)(?:_v\d+)?\.jsonl(?:\.zip)?")
# Numbers that were never published: a downloader's list position is the number less those missing below it.
NEVER_PUBLISHED = (3218, 3267, 5064, 5146, 7119, 8991, 9750, 11899, 15127, 15252, 16996, 17369, 17499, 17818)
MAX_ZIP_MEMBER = 1 << 30  # bytes after decompression; a published shard is some ten megabytes
MAX_ZIP_RATIO = 200
PROBED_NAMES = 1000
MIN_HIT_RATE = 0.01

# What zipfile raises on damaged archives; RuntimeError stands for an encrypted member.
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError, OverflowError, struct.error, zlib.error)
_ROW = np.dtype([*NOTE_FIELDS, ("line", np.int32), ("start", np.int64), ("size", np.int64)])


class _Unusable(Exception):
    """A document or shard that becomes a Bad of this cause."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


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
        except _Unusable as error:
            return Bad(doc_id, error.cause, str(error))

    def _record(self, index: int) -> dict[str, Any]:
        row = self._index.rows[index]
        if row["size"] < 0:
            cause, _, message = self._index.note(row).partition(" ")
            raise _Unusable(Cause(cause), message)
        shard = self._shards[row["shard"]]
        start, size = int(row["start"]), int(row["size"])
        try:
            if shard.path.suffix == ".zip":
                line = _unzip(shard.path, shard.modified)[start : start + size]
            else:
                line = read_span(shard.path, start, size)
            record = json.loads(line.decode())
        except FileNotFoundError as error:
            raise _Unusable(Cause.MISSING_SHARD, f"{shard.name} is gone since it was indexed") from error
        except (EOFError, OSError) as error:
            raise _Unusable(Cause.BAD_JSON, str(error)) from error
        except UnicodeDecodeError as error:
            raise _Unusable(Cause.BAD_UTF8, str(error)) from error
        except (ValueError, RecursionError) as error:
            raise _Unusable(Cause.BAD_JSON, str(error)) from error
        if not isinstance(record, dict):
            raise _Unusable(Cause.SCHEMA, f"the line holds {type(record).__name__}, not an object")
        return record

    def _document(self, doc_id: str, record: Mapping[str, Any], folder: Path) -> RawDocument:
        texts = _typed(record, "text_list", list)
        if not all(isinstance(text, str) for text in texts):
            raise _Unusable(Cause.SCHEMA, "text_list holds something that is not text")
        try:
            for text in texts:
                text.encode()  # JSON can escape lone surrogates, which no tokenizer takes
        except UnicodeEncodeError as error:
            raise _Unusable(Cause.BAD_UTF8, str(error)) from error
        if not any(text.strip() for text in texts):
            raise _Unusable(Cause.EMPTY_TEXT, f"none of the {len(texts)} sentences has text")
        parsed = [_image(entry, folder, len(texts)) for entry in _typed(record, "image_info", list)]
        order = record.get("dom_order")
        if order is not None and not (
            isinstance(order, list) and len(order) == len(parsed) and all(type(at) is int for at in order)
        ):
            raise _Unusable(Cause.SCHEMA, f"dom_order must list one position for each of the {len(parsed)} images")
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
            except _Unusable:
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
        with BytesIO(_unzip(path, path.stat().st_mtime_ns)) if zipped else path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    rows.append((0, 0, 0, number, start, len(line)))
                    number += 1
                start += len(line)
    except _Unusable as error:
        note = f"{error.cause} {error}".encode()
        rows = [(0, 0, len(note), 0, 0, -1)]
    return Scan(np.array(rows, _ROW), note)


class _Unzipped:
    """Contents of zipped shards, the least recently read dropped first when they exceed `budget` bytes."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._held: OrderedDict[tuple[Path, int], bytes] = OrderedDict()

    def __call__(self, path: Path, modified: int) -> bytes:
        """The one jsonl of a shard last changed at `modified`."""
        key = path, modified
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        content = _read_zip(path)
        self._left -= len(content)
        while self._left < 0 and self._held:
            self._left += len(self._held.popitem(last=False)[1])
        self._held[key] = content
        return content


_unzip = _Unzipped(512 * 2**20)


def _read_zip(path: Path) -> bytes:
    """The one jsonl of a zipped shard."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".jsonl")]
            if len(members) != 1:
                raise _Unusable(Cause.SCHEMA, f"{path.name} holds {len(members)} .jsonl members, expected one")
            (member,) = members
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise _Unusable(Cause.BAD_TAR, f"{path.name} uses compression {member.compress_type}, expected deflate")
            ratio = member.file_size / max(1, member.compress_size)
            if member.file_size > MAX_ZIP_MEMBER or ratio > MAX_ZIP_RATIO:
                raise _Unusable(
                    Cause.OVERSIZE,
                    f"{path.name} unpacks to {member.file_size} bytes, {ratio:.0f} times its size; the limits are "
                    f"{MAX_ZIP_MEMBER} bytes and {MAX_ZIP_RATIO} times",
                )
            return archive.read(member)  # never more than file_size, whatever the stream holds
    except (FileNotFoundError, PermissionError):
        raise
    except _ZIP_ERRORS as error:
        raise _Unusable(Cause.BAD_TAR, f"{path.name} is no readable zip: {error}") from error


def _typed(record: Mapping[str, Any], field: str, kind: type) -> Any:
    value = record.get(field)
    if not isinstance(value, kind):
        raise _Unusable(Cause.SCHEMA, f"{field} is {type(value).__name__}, expected {kind.__name__}")
    return value


def _image(entry: Any, folder: Path, sentences: int | None) -> tuple[ImageRef, int | None, float | None]:
    """Image, anchor and score of one image_info entry; anchors are not checked when `sentences` is None."""
    if not isinstance(entry, dict):
        raise _Unusable(Cause.SCHEMA, f"image_info holds {type(entry).__name__}, expected objects")
    name: str = _typed(entry, "image_name", str)
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or any(c in name for c in "\\:\0"):
        raise _Unusable(Cause.SCHEMA, f"image_name {name!r} does not stay inside the image folder")
    anchor, score, label = (entry.get(field) for field in ("matched_text_index", "matched_sim", "label"))
    if sentences is not None and not (type(anchor) is int and 0 <= anchor < sentences):
        raise _Unusable(Cause.SCHEMA, f"matched_text_index of {name} is {anchor!r}; there are {sentences} sentences")
    if score is not None and not (type(score) in (int, float) and math.isfinite(score)):
        raise _Unusable(Cause.SCHEMA, f"matched_sim of {name} is {score!r}, expected a number or null")
    if label is not None and type(label) is not int:
        raise _Unusable(Cause.SCHEMA, f"label of {name} is {label!r}, expected an integer")
    return ImageRef(FileBytes(folder, name), name, label), anchor, None if score is None else float(score)


def _has_shape(matrix: Any, rows: int, columns: int) -> bool:
    if not isinstance(matrix, list) or len(matrix) != rows:
        return False
    return all(isinstance(row, list) and len(row) == columns for row in matrix)


class Mmc4Pairs:
    """MMC4-Pair: each selected image with its matched sentence, as one-image one-sentence documents.

    `select` is the rule that interleaved sampling uses (threshold, one per sentence, at most six), keyed by doc_id, so
    that both corpora expose the same images. Documents that cannot be read stay in the list and give their Bad.
    """

    def __init__(self, corpus: Corpus, select: Callable[[RawDocument], Sequence[int]], name: str = "mmc4-pair") -> None:
        """One pass over the documents; only (document, image) numbers are kept."""
        self.name = name
        self._corpus = corpus
        pairs: list[tuple[int, int]] = []
        self.documents_without_pairs = 0
        for at in range(len(corpus)):
            raw = corpus[at]
            kept = [-1] if isinstance(raw, Bad) else list(select(raw))
            self.documents_without_pairs += not kept
            pairs += [(at, image) for image in kept]
        self._pairs = np.array(pairs, "<i4").reshape(-1, 2)
        self.digest = hashlib.sha256(corpus.digest.encode() + self._pairs.tobytes()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def documents(self) -> int:
        """How many documents the pairs come from, those without pairs included."""
        return len(self._corpus)

    @property
    def document(self) -> np.ndarray:
        """Index of each pair's document, [pairs], ascending."""
        return self._pairs[:, 0]

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The pair at `index`, with doc_id "<doc>#<image_name>"."""
        document, image = self._pairs[index].tolist()
        raw = self._corpus[document]
        if isinstance(raw, Bad):
            return raw
        ref, anchor = raw.images[image], raw.anchors[image]
        twins = sum(earlier.name == ref.name for earlier in raw.images[:image])
        doc_id = f"{raw.doc_id}#{ref.name}" + (f"#{twins + 1}" if twins else "")
        if anchor is None:
            return Bad(doc_id, Cause.SCHEMA, "the image has no matched sentence, so it makes no pair")
        text = raw.segments[anchor].strip()
        if not text:
            return Bad(doc_id, Cause.EMPTY_TEXT, f"matched sentence {anchor} is empty")
        meta = {"url": raw.meta.get("url")}
        return RawDocument(doc_id, (text,), (ref,), (0,), (raw.scores[image],), meta=meta)
