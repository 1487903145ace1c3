"""Random access into sharded corpora: one pass over the shards, then a flat table of where each sample lies.

The table is fixed-width rows plus one string blob, in memory or memory-mapped from a cache folder, so that forked
loader workers share it (lists of Python strings are copied into every worker).
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from data.errors import CorpusError

NOTE_FIELDS = [("shard", np.int32), ("note_start", np.int64), ("note_size", np.int32)]


class Shard(NamedTuple):
    """One file of a corpus, by its path relative to the corpus folder."""

    name: str
    path: Path
    size: int
    modified: int  # nanoseconds; part of the cache key, not of the digest


@dataclass(frozen=True)
class Scan:
    """The samples of one shard: rows of the reader's dtype (NOTE_FIELDS included) and the notes they point into."""

    rows: np.ndarray
    notes: bytes
    whole: bool = True  # else its last row stands for what is lost of it


@dataclass(frozen=True)
class Index:
    """All samples of a corpus in shard order."""

    rows: np.ndarray
    notes: np.ndarray
    shard_sizes: tuple[int, ...]  # rows of each shard
    whole: tuple[bool, ...]  # whether each shard could be read to its end
    folder: Path | None = None  # where it is kept

    @property
    def last(self) -> np.ndarray:
        """The row with which each shard ends, [shards]; that of an empty shard belongs to one before."""
        return np.cumsum(self.shard_sizes) - 1

    @property
    def lost(self) -> list[int]:
        """The rows that stand for what is lost of a shard."""
        return self.last[[not each for each in self.whole]].tolist() if self.whole else []

    @property
    def typical(self) -> int | None:
        """How many samples a shard usually holds: the median of the whole ones; None where there is none."""
        known = sorted(size for size, whole in zip(self.shard_sizes, self.whole, strict=True) if whole and size)
        return known[len(known) // 2] if known else None

    def order(self, field: str) -> np.ndarray:
        """The rows sorted by a field, as numbers; kept with an index that is kept, since it is as long as the rows."""
        if self.folder is None:
            return np.argsort(self.rows[field], kind="stable")
        path = self.folder / f"order-{field}"
        if not path.is_file():
            order = np.argsort(self.rows[field], kind="stable").astype("<i8")
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix="partial-", delete=False) as file:
                file.write(order.tobytes())
            os.replace(file.name, path)
        return _map(path, np.dtype("<i8"))

    def note(self, row: np.void) -> str:
        """The string stored with a row: a sample's key, or why there is none."""
        start = int(row["note_start"])
        return self.notes[start : start + int(row["note_size"])].tobytes().decode()


def list_shards(folder: Path, paths: Sequence[Path]) -> tuple[Shard, ...]:
    """Shards with their sizes, in the order given. Raises CorpusError for a link to nowhere."""
    stats = [(path, _stat(path)) for path in paths]
    return tuple(Shard(p.relative_to(folder).as_posix(), p, stat.st_size, stat.st_mtime_ns) for p, stat in stats)


def _stat(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except FileNotFoundError as error:
        raise CorpusError(f"{path} is a link to a file that is gone; restore that file, or delete the link") from error


def digest_shards(shards: Sequence[Shard]) -> str:
    """A hash over shard names and sizes: which copy of a corpus this is, without reading it."""
    text = "\n".join(f"{shard.name}\t{shard.size}" for shard in shards)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build_index(
    shards: Sequence[Shard],
    dtype: np.dtype,
    scan: Callable[[Path], Scan],
    cache: Path | None = None,
    processes: int = 1,
) -> Index:
    """Scan every shard once. With `cache`, store the table there and map it; an unchanged corpus is not read again.

    `scan` must be a module-level function when processes > 1.
    """
    if cache is None:
        chunks = list(_scans(shards, scan, processes))
        rows = np.concatenate([np.empty(0, dtype), *(chunk.rows for chunk in chunks)])
        notes = np.frombuffer(b"".join(chunk.notes for chunk in chunks), np.uint8)
        return Index(rows, notes, tuple(len(each.rows) for each in chunks), tuple(each.whole for each in chunks))
    layout = f"4 {dtype.descr} {scan.__module__}.{scan.__qualname__} {[(s.name, s.size, s.modified) for s in shards]}"
    folder = cache / f"index-{hashlib.sha256(layout.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix="partial-", dir=cache))
        try:
            found: list[tuple[int, bool]] = []
            with (unfinished / "rows").open("wb") as rows_file, (unfinished / "notes").open("wb") as notes_file:
                for chunk in _scans(shards, scan, processes):
                    rows_file.write(chunk.rows.tobytes())
                    notes_file.write(chunk.notes)
                    found.append((len(chunk.rows), chunk.whole))
            (unfinished / "shards").write_bytes(np.array(found, "<i8").tobytes())
            if not folder.is_dir():
                os.rename(unfinished, folder)  # atomic: a reader sees a whole index or none
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    held = np.fromfile(folder / "shards", "<i8").reshape(-1, 2)
    rows, notes = _map(folder / "rows", dtype), _map(folder / "notes", np.dtype(np.uint8))
    return Index(rows, notes, tuple(held[:, 0].tolist()), tuple(map(bool, held[:, 1])), folder)


def _scans(shards: Sequence[Shard], scan: Callable[[Path], Scan], processes: int) -> Iterator[Scan]:
    paths = [shard.path for shard in shards]
    bar = partial(tqdm, total=len(paths), unit="shard", desc="indexing", disable=None if len(paths) > 1 else True)
    if processes == 1:
        yield from _globalised(bar(map(scan, paths)))
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:  # the caller may have threads, so no fork
        yield from _globalised(bar(pool.map(scan, paths, chunksize=8)))


def _globalised(scans: Iterable[Scan]) -> Iterator[Scan]:
    base = 0
    for number, chunk in enumerate(scans):
        rows = chunk.rows.copy()
        rows["shard"] = number
        rows["note_start"] += base
        base += len(chunk.notes)
        yield Scan(rows, chunk.notes, chunk.whole)


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")


LARGEST_SHUFFLED = 1 << 20  # entries of a corpus that is still permuted whole
WIDEST = 64  # shards that are read together at most: after a restart so many have to be opened


def window_of(entries: int, shards: int, unpacked: int = 0, budget: int = 1) -> int | None:
    """How many shards to read together; None where the whole corpus can be permuted.

    unpacked: bytes that reading them all would have to hold, of which `budget` may be.
    """
    if entries <= LARGEST_SHUFFLED and unpacked <= budget:
        return None
    held = budget * shards // unpacked if unpacked else WIDEST
    return max(1, min(WIDEST, held))
