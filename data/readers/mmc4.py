"""MMC4 documents: JSON lines and loose images (fields of the allenai/mmc4 README).

    root/docs_shard_12_v2.jsonl.zip  or  docs_shard_12.jsonl, docs_shard_12_v3.jsonl, docs_no_face_shard_12_v2.jsonl.zip
    root/images/                     the pictures, loose or in tars (mmc4_images.py)

Every image and sentence is kept; thresholds, choice and placement belong to sampling. Names inside the JSON are not
trusted, zip members are capped in size and ratio, a broken line costs that line only, and a shard that cannot be read
counts for as many documents as a shard usually holds.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from data.document import Bad, Cause, RawDocument
from data.errors import CorpusError
from data.files import read_span
from data.readers.index import NOTE_FIELDS, Scan, Shard, build_index, digest_shards, window_of
from data.readers.mmc4_images import find_images
from data.readers.mmc4_record import image_name, parse_line, read_document
from data.readers.zips import UNPACKED_BYTES, Unusable, read_zip, unzip

SHARD_NAME = re.compile(r"docs_(?:no_face_)?shard_(\d+)(?:_v\d+)?\.jsonl(?:\.zip)?")
PROBED_NAMES = 1000
MAX_LINE = 256 * 2**20  # bytes of one document
_ROW = np.dtype([*NOTE_FIELDS, ("line", np.int32), ("start", np.int64), ("size", np.int64)])


class Mmc4Corpus:
    """Random access to the documents of a folder of MMC4 shards, by shard number and then line.

    Zipped shards are decompressed whole and the last few kept: shuffle within shards (`shard_sizes`), not across.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        images: Path,
        name: str = "mmc4",
        positions: Sequence[int] | None = None,
        cache: Path | None = None,
        processes: int = 1,
    ) -> None:
        """Index the lines of every shard and find the layout of the image folder.

        Args:
            shards: the jsonl or zip files, see `data.corpora.mmc4_shards`.
            images: the image folder, in any layout of mmc4_images.py.
            name: prefix of every doc_id.
            positions: place of each shard in its folder, where only some of them are opened.
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
        numbers = [shard_number(shard.path) for shard in shards]
        places = range(len(shards)) if positions is None else positions
        self.layout = find_images(images, numbers, places, self._probed(), cache, processes)

    def __len__(self) -> int:
        return len(self._index.rows)

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The document at `index`, its images still unread; Bad when the line or the shard cannot be used."""
        row = self._index.rows[index]
        shard = self._shards[row["shard"]]
        doc_id = f"{self.name}/{shard.name.split('.')[0]}/{row['line']}"
        try:
            return read_document(doc_id, self._record(index), partial(self.layout.locate, int(row["shard"])))
        except Unusable as error:
            return Bad(doc_id, error.cause, *self._weighed(row, str(error)))

    @cached_property
    def window(self) -> int | None:
        """How many shards are read together; None where any order is cheap. Zipped ones are held unpacked."""
        last = self._index.rows[self._index.last[[size > 0 for size in self.shard_sizes]]]
        zipped = np.array([shard.path.suffix == ".zip" for shard in self._shards])
        unpacked = (last["start"] + np.maximum(last["size"], 0))[zipped[last["shard"]]]
        return window_of(len(self), len(self._shards), int(unpacked.sum()), UNPACKED_BYTES)

    def lost_shards(self) -> list[Bad]:
        """Shards that are cut or cannot be read, each with what is lost with it."""
        found = (self[index] for index in self._index.lost)
        return [bad for bad in found if isinstance(bad, Bad)]

    def _weighed(self, row: np.void, message: str) -> tuple[str, int]:
        """The message of a Bad, and how many documents are lost with it."""
        if row["size"] >= 0:
            return message, 1
        if self._index.typical is None:
            return f"{message}; nothing says how many documents it held", 1
        lost = max(1, self._index.typical - int(row["line"]))
        return f"{message}; about {lost} documents are lost, as other shards hold {self._index.typical}", lost

    def _record(self, index: int) -> dict[str, Any]:
        row = self._index.rows[index]
        if row["size"] < 0:
            cause, _, message = self._index.note(row).partition(" ")
            raise Unusable(Cause(cause), message)
        shard = self._shards[row["shard"]]
        start, size = int(row["start"]), int(row["size"])
        try:
            if shard.path.suffix == ".zip":
                return parse_line(unzip((shard.path, shard.modified))[start : start + size])
            if size > MAX_LINE:
                raise Unusable(Cause.OVERSIZE, f"a line of {size} bytes; at most {MAX_LINE} are read")
            return parse_line(read_span(shard.path, start, size))
        except FileNotFoundError as error:
            raise Unusable(Cause.MISSING_SHARD, f"{shard.name} is gone since it was indexed") from error
        except (EOFError, OSError) as error:
            raise Unusable(Cause.BAD_JSON, str(error)) from error

    def _probed(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Up to PROBED_NAMES (shard, entry of image_info), evenly from about a hundred documents in file order."""
        probed: list[tuple[int, Mapping[str, Any]]] = []
        for index in np.unique(np.linspace(0, max(0, len(self) - 1), 128).astype(int)) if len(self) else ():
            try:
                listed = self._record(int(index)).get("image_info")
            except Unusable:
                continue  # counted when the document is read
            entries = listed if isinstance(listed, list) else []
            for entry in entries:
                try:
                    image_name(entry)
                    probed.append((int(self._index.rows[index]["shard"]), entry))
                except Unusable:
                    continue  # likewise
        return probed[:: max(1, len(probed) // PROBED_NAMES)][:PROBED_NAMES]


def shard_number(path: Path) -> int:
    """12 for docs_shard_12_v2.jsonl.zip. Raises CorpusError for any other name."""
    match = SHARD_NAME.fullmatch(path.name)
    if match is None:
        raise CorpusError(
            f"{path.name} is no MMC4 shard name; expected docs[_no_face]_shard_<number>[_v<version>].jsonl[.zip]"
        )
    return int(match[1])


def scan_lines(path: Path) -> Scan:
    """Index the non-blank lines of one shard.

    A shard that cannot be opened or holds nothing is one row of size -1 with cause and reason as its note. So is the
    last line of a shard that was cut inside it: `line` is how many documents come before.
    """
    rows: list[tuple[int, int, int, int, int, int]] = []
    note = b""
    start = number = 0
    last = b""
    try:
        zipped = path.suffix == ".zip"
        with BytesIO(read_zip(path)) if zipped else path.open("rb") as lines:
            for line in lines:
                if line.strip():
                    rows.append((0, 0, 0, number, start, len(line)))
                    number += 1
                    last = line
                start += len(line)
        if not rows:
            raise Unusable(Cause.SCHEMA, f"{path.name} holds no document")
        if not last.endswith(b"\n"):
            try:
                parse_line(last)
            except Unusable as error:
                rows.pop()
                raise Unusable(Cause.BAD_JSON, f"{path.name} is cut in its last line; lines before are used") from error
    except Unusable as error:
        note = f"{error.cause} {error}".encode()
        rows.append((0, 0, len(note), len(rows), start, -1))
    return Scan(np.array(rows, _ROW), note, not note)
