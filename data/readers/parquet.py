"""Parquet files read lazily: footers are indexed once, row groups unpacked when a document of theirs is wanted.

Nothing in a file is trusted: what pyarrow raises on damaged or hostile bytes becomes a counted `Unusable`, and a row
group is only unpacked up to a size. Values are text and lists of text; no extension type, and with it no pickle, is
ever looked at.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from data.document import Cause
from data.readers.index import NOTE_FIELDS, Scan
from data.readers.recent import Recent
from data.readers.zips import UNPACKED_BYTES, Unusable

MAX_GROUP = 1 << 30  # bytes of one row group after decompression; published ones are some megabytes
# One entry for each row group: `rows` documents, the first of which is the `first` of its file. A file that cannot be
# read is one entry of size -1, its note the reason.
GROUP = np.dtype([*NOTE_FIELDS, ("number", np.int32), ("first", np.int64), ("rows", np.int64), ("size", np.int64)])
# What pyarrow raises on damaged files; the last ones come from its conversions to Python, IndexError from a row group
# that holds fewer rows than the footer says.
_ERRORS = (pa.ArrowException, OSError, EOFError, ValueError, OverflowError, MemoryError, IndexError)

Group = tuple[Path, int, int]  # path, time of the last change, number of the row group


def has_columns(path: Path, columns: Sequence[str]) -> bool:
    """Whether a file is parquet with these columns; reads its footer."""
    try:
        return set(columns) <= set(parquet.read_schema(path).names)
    except _ERRORS:
        return False


def scan_parquet(path: Path) -> Scan:
    """Index the row groups of one file from its footer."""
    try:
        with parquet.ParquetFile(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            counts = [(group.num_rows, group.total_byte_size) for group in groups]
    except (FileNotFoundError, PermissionError):
        raise
    except _ERRORS as error:
        return _lost(f"{Cause.BAD_TAR} {path.name} is no readable parquet: {_short(error)}")
    kept = [(number, rows, size) for number, (rows, size) in enumerate(counts) if rows > 0]
    if sum(rows for _, rows, _ in kept) > path.stat().st_size:  # a document takes more than a byte
        return _lost(f"{Cause.BAD_TAR} {path.name} claims more documents than it has bytes")
    if not kept:
        return _lost(f"{Cause.SCHEMA} {path.name} holds no document")
    found = np.zeros(len(kept), GROUP)
    found["number"], found["rows"] = [number for number, _, _ in kept], [rows for _, rows, _ in kept]
    found["size"] = [max(0, size) for _, _, size in kept]
    found["first"] = np.cumsum(found["rows"]) - found["rows"]
    return Scan(found, b"")


def _lost(reason: str) -> Scan:
    note = reason.encode("utf-8", "replace")
    return Scan(np.array([(0, 0, len(note), 0, 0, 1, -1)], GROUP), note, whole=False)


def read_group(group: Group, columns: Sequence[str], optional: Sequence[str] = ()) -> Mapping[str, pa.ChunkedArray]:
    """The columns of a row group, unpacked.

    Raises Unusable: missing_shard, oversize, schema where a column is missing, bad_tar for anything damaged.
    """
    path, _, number = group
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if missing := [name for name in columns if name not in names]:
                raise Unusable(Cause.SCHEMA, f"{path.name} has no column {missing[0]!r}; its columns are {names}")
            size = file.metadata.row_group(number).total_byte_size
            if size > MAX_GROUP:
                message = f"row group {number} of {path.name} unpacks to {size} bytes; the limit is {MAX_GROUP}"
                raise Unusable(Cause.OVERSIZE, message)
            wanted = [*columns, *(name for name in optional if name in names)]
            table = file.read_row_group(number, columns=wanted, use_threads=False)
            return {name: table.column(name) for name in wanted}
    except FileNotFoundError as error:
        raise Unusable(Cause.MISSING_SHARD, f"{path.name} is gone since it was indexed") from error
    except _ERRORS as error:
        raise Unusable(Cause.BAD_TAR, f"row group {number} of {path.name} cannot be read: {_short(error)}") from error


def value(column: pa.ChunkedArray, row: int) -> Any:
    """One value as Python has it. Raises Unusable: bad_utf8, or schema for what has no Python value."""
    try:
        return column[row].as_py()
    except UnicodeDecodeError as error:
        raise Unusable(Cause.BAD_UTF8, str(error)) from error
    except _ERRORS as error:
        raise Unusable(Cause.SCHEMA, _short(error)) from error


def recent_groups(
    columns: Sequence[str], optional: Sequence[str] = (), budget: int = UNPACKED_BYTES
) -> Recent[Group, Mapping[str, pa.ChunkedArray]]:
    """Row groups with these columns, of which at most `budget` bytes and one more are kept."""
    return Recent(
        lambda group: read_group(group, columns, optional),
        lambda read: sum(column.nbytes for column in read.values()),
        budget,
    )


def _short(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
