"""Random access into sharded corpora: one pass over the shards, then a flat table of where each sample lies.

The table is fixed-width rows plus one string blob, in memory or memory-mapped from a cache folder, so that forked
loader workers share it (lists of Python strings are copied into every worker).
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np

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


@dataclass(frozen=True)
class Index:
    """All samples of a corpus in shard order."""

    rows: np.ndarray
    notes: np.ndarray
    shard_sizes: tuple[int, ...]

    def note(self, row: np.void) -> str:
        """The string stored with a row: a sample's key, or why there is none."""
        start = int(row["note_start"])
        return self.notes[start : start + int(row["note_size"])].tobytes().decode()


def list_shards(folder: Path, paths: Sequence[Path]) -> tuple[Shard, ...]:
    """Shards with their sizes, in the order given."""
    stats = [(path, path.stat()) for path in paths]
    return tuple(Shard(p.relative_to(folder).as_posix(), p, stat.st_size, stat.st_mtime_ns) for p, stat in stats)


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
        return _index(rows, np.frombuffer(b"".join(chunk.notes for chunk in chunks), np.uint8), len(shards))
    layout = f"{dtype.descr} {scan.__module__}.{scan.__qualname__} {[(s.name, s.size, s.modified) for s in shards]}"
    folder = cache / f"index-{hashlib.sha256(layout.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix="partial-", dir=cache))
        try:
            with (partial / "rows").open("wb") as rows_file, (partial / "notes").open("wb") as notes_file:
                for chunk in _scans(shards, scan, processes):
                    rows_file.write(chunk.rows.tobytes())
                    notes_file.write(chunk.notes)
            if not folder.is_dir():
                os.rename(partial, folder)  # atomic: a reader sees a whole index or none
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return _index(_map(folder / "rows", dtype), _map(folder / "notes", np.dtype(np.uint8)), len(shards))


def _scans(shards: Sequence[Shard], scan: Callable[[Path], Scan], processes: int) -> Iterator[Scan]:
    paths = [shard.path for shard in shards]
    if processes == 1:
        yield from _globalised(map(scan, paths))
        return
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:  # the caller may have threads, so no fork
        yield from _globalised(pool.map(scan, paths))


def _globalised(scans: Iterator[Scan]) -> Iterator[Scan]:
    base = 0
    for number, chunk in enumerate(scans):
        rows = chunk.rows.copy()
        rows["shard"] = number
        rows["note_start"] += base
        base += len(chunk.notes)
        yield Scan(rows, chunk.notes)


def _map(path: Path, dtype: np.dtype) -> np.ndarray:
    if path.stat().st_size == 0:  # an empty file cannot be mapped
        return np.empty(0, dtype)
    return np.memmap(path, dtype=dtype, mode="r")


def _index(rows: np.ndarray, notes: np.ndarray, shards: int) -> Index:
    return Index(rows, notes, tuple(np.bincount(rows["shard"], minlength=shards).tolist()))


def typical_size(sizes: Sequence[int], whole: Sequence[bool]) -> int | None:
    """How many samples a shard of the corpus usually holds: the median of the whole ones; None where there is none."""
    known = sorted(size for size, is_whole in zip(sizes, whole, strict=True) if is_whole and size)
    return known[len(known) // 2] if known else None
