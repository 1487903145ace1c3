"""OBELICS as it is published (HuggingFaceM4/OBELICS on the Hugging Face hub): parquet with documents, images beside it.

    root/train-00000-of-01335.parquet  or  root/data/...    columns images, texts, metadata, general_metadata
    root/images/                                            see obelics_images.py

`images` and `texts` are lists of equal length: at each place of a page one of them holds an address or a text, and the
other null. The order of the page is kept; images have no similarity and are not placed. A text is paragraphs with blank
lines between them. A paragraph that is the sentinel below stands where the extraction met the end of an article, so
another document begins there.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from data.document import Bad, Cause, ImageRef, RawDocument
from data.readers.index import Shard, build_index, digest_shards, window_of
from data.readers.obelics_images import Locate, find_images
from data.readers.parquet import GROUP, has_columns, recent_groups, scan_parquet, value
from data.readers.zips import UNPACKED_BYTES, Unusable, beside

COLUMNS = ("images", "texts")
# huggingface/OBELICS, configs/config_extract_web_documents.yaml: put in the place of "read more" and the like
END_OF_DOCUMENT = "END_OF_DOCUMENT_TOKEN_TO_BE_REPLACED"
PROBED = 128  # documents whose images are looked for
PROBED_IMAGES = 1000
_read = recent_groups(COLUMNS, ("general_metadata",))


def obelics_paths(folder: Path) -> list[Path]:
    """The files of a corpus in OBELICS's columns in a folder, or in one of the folders in it; hidden files are none."""
    for pattern in ("*.parquet", "*/*.parquet"):
        by_folder: dict[Path, list[Path]] = {}
        for path in sorted(folder.glob(pattern)):
            if not beside(path.relative_to(folder).as_posix()):
                by_folder.setdefault(path.parent, []).append(path)
        for paths in by_folder.values():
            # One damaged file among the first must not hide the others.
            if any(has_columns(path, COLUMNS) for path in paths[:3]):
                return paths
    return []


class ObelicsCorpus:
    """Random access to the documents of a folder of such files, in file and row order.

    A row group is unpacked whole and the last few are kept: shuffle within windows (`shard_sizes`: documents of each
    row group), not across.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        images: Path,
        name: str = "obelics",
        cache: Path | None = None,
        processes: int = 1,
    ) -> None:
        """Index the row groups of every file and find how the images lie.

        Args:
            shards: the parquet files.
            images: the folder of the images.
            name: prefix of every doc_id.
            cache: folder for the indexes; without it every start reads all footers again.
            processes: how many processes read footers, and tars of images.

        Raises:
            CorpusError: (almost) none of the images that the documents name is there.
        """
        self.name = name
        self.digest = digest_shards(shards)
        self._shards = tuple(shards)
        self._index = build_index(shards, GROUP, scan_parquet, cache, processes)
        self.shard_sizes = tuple(self._index.rows["rows"].tolist())
        self._ends = np.cumsum(self._index.rows["rows"])
        self.place = find_images(images, self._probed(), cache, processes)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The document at `index`, its images still unread; Bad when the row or the file cannot be used."""
        group = int(np.searchsorted(self._ends, index, side="right"))
        row = self._index.rows[group]
        within = index - int(self._ends[group] - row["rows"])
        shard = self._shards[row["shard"]]
        doc_id = f"{self.name}/{shard.name.removesuffix('.parquet')}/{int(row['first']) + within}"
        if row["size"] < 0:
            cause, _, message = self._index.note(row).partition(" ")
            return Bad(doc_id, Cause(cause), *self._weighed(message))
        try:
            return self._document(doc_id, row, within, self.place.locate)
        except Unusable as error:
            return Bad(doc_id, error.cause, str(error))

    @cached_property
    def window(self) -> int | None:
        """How many row groups are read together; None where any order is cheap."""
        unpacked = int(np.maximum(self._index.rows["size"], 0).sum())
        return window_of(len(self), len(self.shard_sizes), unpacked, UNPACKED_BYTES)

    def lost_shards(self) -> list[Bad]:
        """Files that cannot be read, each with what is lost with it."""
        found = (self[int(self._ends[group]) - 1] for group in self._index.lost)
        return [bad for bad in found if isinstance(bad, Bad)]

    def _weighed(self, message: str) -> tuple[str, int]:
        """The message of a file that cannot be read, and how many documents are lost with it: as others hold."""
        rows = self._index.rows[self._index.rows["size"] >= 0]
        held = np.bincount(rows["shard"], rows["rows"])
        if not (held := held[held > 0]).size:
            return f"{message}; nothing says how many documents it held", 1
        lost = int(np.median(held))
        return f"{message}; about {lost} documents are lost, as other files hold {lost}", lost

    def _document(self, doc_id: str, row: np.void, within: int, locate: Locate) -> RawDocument:
        shard = self._shards[row["shard"]]
        columns = _read((shard.path, shard.modified, int(row["number"])))
        images, texts = (value(columns[name], within) for name in COLUMNS)
        about = value(columns["general_metadata"], within) if "general_metadata" in columns else None
        return read_row(doc_id, images, texts, {"url": _url(about)}, locate)

    def _probed(self) -> list[str]:
        """Up to PROBED_IMAGES addresses, evenly from about a hundred documents in file order."""
        urls: list[str] = []
        for at in np.unique(np.linspace(0, max(0, len(self) - 1), PROBED).astype(int)) if len(self) else ():
            group = int(np.searchsorted(self._ends, at, side="right"))
            row = self._index.rows[group]
            if row["size"] < 0:
                continue  # counted when it is read
            try:
                raw = self._document("", row, int(at - (self._ends[group] - row["rows"])), lambda _: bytes)
            except Unusable:
                continue  # likewise
            urls += [image.name for image in raw.images]
        return urls[:: max(1, len(urls) // PROBED_IMAGES)][:PROBED_IMAGES]


def read_row(doc_id: str, images: Any, texts: Any, meta: dict[str, Any], locate: Locate) -> RawDocument:
    """The document of a row, `removed` naming the places that hold neither an image nor a text, or both.

    Raises Unusable: the two columns are no lists of equal length, or nothing in them is text.
    """
    if not (isinstance(images, list) and isinstance(texts, list) and len(images) == len(texts)):
        found = [f"{len(each)} places" if isinstance(each, list) else type(each).__name__ for each in (images, texts)]
        raise Unusable(Cause.SCHEMA, f"images are {found[0]} and texts {found[1]}; expected two lists of equal length")
    segments: list[str] = []
    refs: list[ImageRef] = []
    order: list[int] = []
    removed: list[Bad] = []
    for place, (url, text) in enumerate(zip(images, texts, strict=True)):
        if isinstance(text, str) and not url:  # early stages of the pipeline write "" for null
            for paragraph in text.split("\n\n"):
                paragraph = paragraph.strip()
                if paragraph:
                    order.append(len(segments))
                    segments.append("" if paragraph == END_OF_DOCUMENT else paragraph)
        elif isinstance(url, str) and url and not text:
            order.append(-1 - len(refs))
            refs.append(ImageRef(locate(url), url))
        else:
            message = f"place {place} holds {_said(url)} as image and {_said(text)} as text, expected one of the two"
            removed.append(Bad(doc_id, Cause.BAD_IMAGE_ENTRY if url else Cause.BAD_SENTENCE, message))
    if not any(segments):
        raise Unusable(Cause.EMPTY_TEXT, f"none of its {len(texts)} places has text")
    none: tuple[None, ...] = (None,) * len(refs)
    return RawDocument(doc_id, tuple(segments), tuple(refs), none, none, tuple(order), meta, tuple(removed))


def _said(found: Any) -> str:
    return "nothing" if found is None else repr(found)[:40]


def _url(about: Any) -> str | None:
    """The page's address in general_metadata, JSON in a text; None where it says none."""
    try:
        found = json.loads(about) if isinstance(about, str) else None
    except (ValueError, RecursionError):
        return None  # it says where a page was, not what it holds
    url = found.get("url") if isinstance(found, dict) else None
    return url if isinstance(url, str) else None
