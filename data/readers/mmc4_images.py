"""Where the images of MMC4 documents lie: loose in one of four layouts, or in tars, found by looking.

images/<image_name>, images/<k>/<image_name>    as the downloader leaves them, k the shard number or its place
images/00000.tar, images/<part>/00000.tar       members named like the images, or img2dataset's with their address
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from data.document import Cause
from data.errors import BadImage, CorpusError
from data.files import FileBytes, SpanBytes, read_span
from data.readers.index import NOTE_FIELDS, Scan, Shard, build_index, list_shards
from data.readers.tars import read_headers, tar_paths

# Numbers that were never published: a downloader's list position is the number less those missing below it.
NEVER_PUBLISHED = (3218, 3267, 5064, 5146, 7119, 8991, 9750, 11899, 15127, 15252, 16996, 17369, 17499, 17818)
MIN_HIT_RATE = 0.01
MAX_RECORD = 1 << 20  # bytes of the .json beside an image that are worth reading for its address
_SUFFIXES = frozenset(("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"))
_ROW = np.dtype([*NOTE_FIELDS, ("name", np.uint64), ("address", np.uint64), ("start", np.int64), ("size", np.int64)])


class ImageLayout(NamedTuple):
    """How the images lie, which share of the probed ones was found there, what finds one, and which are there.

    locate: (number of the shard, entry of image_info) to what reads the bytes.
    state: another text after images were added or taken away; folders inside those of the layout are not looked at.
    """

    name: str
    hit_rate: float
    locate: Callable[[int, Mapping[str, Any]], Callable[[], bytes]]
    state: Callable[[], str]


@dataclass(frozen=True)
class _Missing:
    """An image that no tar holds."""

    name: str

    def __call__(self) -> bytes:
        raise BadImage(Cause.MISSING_IMAGE, f"{self.name}: in none of the tars of images")

    def is_there(self) -> bool:
        """It is not."""
        return False


@dataclass(frozen=True)
class LooseImages:
    """Images that are files, in a folder for each shard."""

    folders: tuple[Path, ...]

    def locate(self, shard: int, entry: Mapping[str, Any]) -> FileBytes:
        """As in `ImageLayout`."""
        return FileBytes(self.folders[shard], entry["image_name"])

    def state(self) -> str:
        """As in `ImageLayout`."""
        return str([path.stat().st_mtime_ns for path in dict.fromkeys(self.folders) if path.is_dir()])


class TarImages:
    """Images in tars by their name, or by the address that img2dataset wrote beside them."""

    def __init__(self, folder: Path, tars: Sequence[Path], cache: Path | None, processes: int) -> None:
        self._shards: tuple[Shard, ...] = list_shards(folder, tars)
        index = build_index(self._shards, _ROW, scan_images, cache, processes)
        self._rows = index.rows
        self._order = {by: index.order(by) for by in ("name", "address")}

    def find(self, by: Literal["name", "address"], text: str) -> SpanBytes | None:
        """What reads the image whose "name" or "address" that is; None where no tar holds it."""
        key, order = _hash(text.lower() if by == "name" else text), self._order[by]
        at = int(np.searchsorted(self._rows[by], key, sorter=order))
        if at == len(order) or self._rows[by][order[at]] != key:
            return None
        row = self._rows[order[at]]
        return SpanBytes(self._shards[row["shard"]].path, int(row["start"]), int(row["size"]))

    def state(self) -> str:
        """As in `ImageLayout`."""
        return str([(shard.name, shard.size, shard.modified) for shard in self._shards])

    def by_name(self, _: int, entry: Mapping[str, Any]) -> Callable[[], bytes]:
        """As `locate` in `ImageLayout`, by image_name."""
        name = entry["image_name"]
        return self.find("name", name.rpartition("/")[2]) or _Missing(name)

    def by_url(self, _: int, entry: Mapping[str, Any]) -> Callable[[], bytes]:
        """As `locate` in `ImageLayout`, by raw_url."""
        return self.find("address", str(entry.get("raw_url"))) or _Missing(entry["image_name"])


def scan_images(path: Path) -> Scan:
    """Index the pictures of one tar; a damaged one as far as it can be read."""
    members = read_headers(path).members
    urls: dict[str, str] = {}
    for member in members:
        if member.suffix == "json" and member.size <= MAX_RECORD:
            try:
                record = json.loads(read_span(path, member.start, member.size))
            except (ValueError, RecursionError, EOFError):
                continue  # it is not needed where names match
            if isinstance(record, dict) and isinstance(record.get("url"), str):
                urls[member.key] = record["url"]
    pictures = [member for member in members if member.suffix.rpartition(".")[2] in _SUFFIXES]
    rows = np.zeros(len(pictures), _ROW)
    for row, member in zip(rows, pictures, strict=True):
        row["name"] = _hash(f"{member.key}.{member.suffix}".rpartition("/")[2].lower())
        row["address"] = _hash(urls[member.key]) if member.key in urls else 0
        row["start"], row["size"] = member.start, member.size
    return Scan(rows, b"")


def _hash(text: str) -> np.uint64:
    """Never 0, which stands for no address."""
    digest = blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "big") or 1)


def _share(found: Iterable[bool]) -> float:
    hits = list(found)
    return sum(hits) / max(1, len(hits))


def find_images(
    images: Path,
    numbers: Sequence[int],
    positions: Sequence[int],
    entries: Sequence[tuple[int, Mapping[str, Any]]],
    cache: Path | None,
    processes: int,
) -> ImageLayout:
    """The layout that holds most of the probed images.

    Args:
        images: the folder.
        numbers: of each shard.
        positions: place of each shard in its folder.
        entries: (shard, entry of image_info) of images to look for.
        cache: folder for the index of tars.
        processes: how many processes read tars.

    Raises:
        CorpusError: no layout holds even MIN_HIT_RATE of them; says what was tried.
    """
    published = [n - sum(gone < n for gone in NEVER_PUBLISHED) for n in numbers]
    folders = {
        "images/<shard number>": tuple(images / str(number) for number in numbers),
        "images/<position of the shard in this folder>": tuple(images / str(at) for at in positions),
        "images/<position of the shard in the published list>": tuple(images / str(at) for at in published),
        "images, flat": (images,) * len(numbers),
    }
    layouts = []
    for name, held in folders.items():
        loose = LooseImages(held)
        found = _share(loose.locate(shard, entry).is_there() for shard, entry in entries)
        layouts.append(ImageLayout(name, found, loose.locate, loose.state))
    best = max(layouts, key=lambda layout: layout.hit_rate)  # the first of equals
    if best.hit_rate < MIN_HIT_RATE and (tars := tar_paths(images)):
        packed = TarImages(images, tars, cache, processes)
        for name, locate in (("tars, by name", packed.by_name), ("tars, by address", packed.by_url)):
            found = _share(isinstance(locate(shard, entry), SpanBytes) for shard, entry in entries)
            layouts.append(ImageLayout(name, found, locate, packed.state))
        best = max(layouts, key=lambda layout: layout.hit_rate)
    if entries and best.hit_rate < MIN_HIT_RATE:
        shard, entry = entries[0]
        tried = [str(held[shard].relative_to(images.parent) / entry["image_name"]) for held in folders.values()]
        tried += [f"{len(layouts) - len(folders)} ways to name it in tars"] * (len(layouts) > len(folders))
        raise CorpusError(
            f"{images}: of {len(entries)} image names probed, {best.hit_rate:.1%} exist (at least {MIN_HIT_RATE:.0%} "
            f"is needed). For the first I tried {', '.join(tried)}. Download the images, or pass the folder that holds "
            "them"
        )
    return best
