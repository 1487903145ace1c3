"""MMC4 documents in tars, their images inside as base64 text (mlfoundations/open_flamingo, convert_mmc4_to_wds.py).

    root/000000000.tar    <uuid>.json: an MMC4 record, each entry of image_info with its JPEG as `image_base64`

Nothing is unpacked: documents are read where they lie, and images again from there when they are decoded, so that no
document in memory holds its pictures.
"""

from base64 import b64decode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from data.document import Bad, Cause, RawDocument
from data.errors import BadImage
from data.files import read_span
from data.readers.index import NOTE_FIELDS, Scan, Shard, build_index, digest_shards, window_of
from data.readers.laion import IMAGE_SUFFIXES
from data.readers.mmc4_record import parse_line, read_document
from data.readers.tars import cut_tar, read_headers
from data.readers.zips import Unusable

MAX_RECORD = 256 * 2**20  # bytes of one document with its pictures
PEEKED = 8  # members of a tar that tell what it holds
_ROW = np.dtype([*NOTE_FIELDS, ("start", np.int64), ("size", np.int64)])


@lru_cache(maxsize=4)
def _record(path: Path, start: int, size: int) -> dict[str, Any]:
    """The record there; the images of a document are read one after the other."""
    if size > MAX_RECORD:
        raise Unusable(Cause.OVERSIZE, f"a document of {size} bytes; the limit is {MAX_RECORD}")
    try:
        return parse_line(read_span(path, start, size))
    except FileNotFoundError as error:
        raise Unusable(Cause.MISSING_SHARD, f"{path.name} is gone since it was indexed") from error
    except (EOFError, OSError) as error:
        raise Unusable(Cause.BAD_TAR, str(error)) from error


@dataclass(frozen=True)
class InlineBytes:
    """An image inside the record of its document."""

    path: Path
    start: int
    size: int
    number: int  # of its entry in image_info
    name: str

    def __call__(self) -> bytes:
        """The bytes. Raises BadImage: missing_image without any, decode_error for what is no base64."""
        try:
            text = _record(self.path, self.start, self.size)["image_info"][self.number].get("image_base64")
        except Unusable as error:
            raise BadImage(error.cause, str(error)) from error
        if not isinstance(text, str) or not text:
            raise BadImage(Cause.MISSING_IMAGE, f"{self.name}: no image_base64 in the document")
        try:
            return b64decode(text, validate=True)
        except ValueError as error:
            raise BadImage(Cause.DECODE_ERROR, f"{self.name}: image_base64 is no base64: {error}") from error


class Mmc4TarCorpus:
    """Random access to the documents of a folder of such tars, in shard order and then tar order."""

    def __init__(
        self, shards: Sequence[Shard], name: str = "mmc4", cache: Path | None = None, processes: int = 1
    ) -> None:
        """Index the shards.

        Args:
            shards: the tar files.
            name: prefix of every doc_id.
            cache: folder for the index; without it every start reads all tar headers again.
            processes: how many processes read tar headers.
        """
        self.name = name
        self.digest = digest_shards(shards)
        self._shards = tuple(shards)
        self._index = build_index(shards, _ROW, scan_documents, cache, processes)
        self.shard_sizes = self._index.shard_sizes

    def __len__(self) -> int:
        return len(self._index.rows)

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The document at `index`, its images still unread; Bad when the record or the shard cannot be used."""
        row = self._index.rows[index]
        shard = self._shards[row["shard"]]
        doc_id = f"{self.name}/{shard.name.removesuffix('.tar')}/{self._index.note(row)}"
        start, size = int(row["start"]), int(row["size"])
        if size < 0:
            return cut_tar(doc_id, shard, self.shard_sizes[row["shard"]] - 1, self._index.typical)
        try:
            record = _record(shard.path, start, size)
            entries = record.get("image_info")
            number = {id(entry): at for at, entry in enumerate(entries if isinstance(entries, list) else ())}

            def locate(entry: Mapping[str, Any]) -> InlineBytes:
                return InlineBytes(shard.path, start, size, number[id(entry)], entry["image_name"])

            return read_document(doc_id, record, locate)
        except Unusable as error:
            return Bad(doc_id, error.cause, str(error))

    @property
    def window(self) -> int | None:
        """How many shards are read together; None where any order is cheap."""
        return window_of(len(self), len(self._shards))

    def lost_shards(self) -> list[Bad]:
        """Shards that are cut or cannot be read, each with what is lost with it."""
        found = (self[index] for index in self._index.lost)
        return [bad for bad in found if isinstance(bad, Bad)]


def scan_documents(path: Path) -> Scan:
    """Index the .json members of one tar; a cut or damaged tar ends with a row of size -1."""
    headers = read_headers(path)
    found = [
        (member.key.encode("utf-8", "backslashreplace"), member.start, member.size)
        for member in headers.members
        if _is_json(member.suffix)
    ]
    whole = headers.whole(path, len(found))
    if not whole:
        found.append((b"end", 0, -1))
    rows = np.zeros(len(found), _ROW)
    rows["start"], rows["size"] = ([each[part] for each in found] for part in (1, 2))
    rows["note_size"] = [len(key) for key, _, _ in found]
    rows["note_start"] = np.cumsum(rows["note_size"]) - rows["note_size"]
    return Scan(rows, b"".join(key for key, _, _ in found), whole)


def _is_json(suffix: str) -> bool:
    return suffix.rpartition(".")[2] == "json"


def holds_documents(path: Path) -> bool:
    """Whether a tar holds such documents: one of its first members is a .json with a text_list, and none a picture."""
    members = read_headers(path, PEEKED).members
    if any(member.suffix in IMAGE_SUFFIXES for member in members):
        return False
    for member in members:
        if _is_json(member.suffix) and member.size <= MAX_RECORD:
            try:
                return isinstance(_record(path, member.start, member.size).get("text_list"), list)
            except Unusable:
                continue
    return False
