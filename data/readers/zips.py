"""Zipped shards: one member, unpacked whole, capped in size and ratio; the last few are kept."""

import struct
import zipfile
import zlib
from pathlib import Path

from data.document import Cause
from data.readers.recent import Recent

MAX_ZIP_MEMBER = 1 << 30  # bytes after decompression; a published shard is some ten megabytes
MAX_ZIP_RATIO = 200

# What zipfile raises on damaged archives; RuntimeError stands for an encrypted member.
_ZIP_ERRORS = (zipfile.BadZipFile, RuntimeError, OSError, EOFError, ValueError, OverflowError, struct.error, zlib.error)


class Unusable(Exception):
    """A document or shard that becomes a Bad of this cause."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


def beside(name: str) -> bool:
    """Whether a path is what an operating system puts beside a file: a resource fork of macOS, a hidden file."""
    parts = name.replace("\\", "/").split("/")
    return "__MACOSX" in parts or any(part.startswith(".") and part not in (".", "..") for part in parts)


UNPACKED_BYTES = 256 * 2**20  # of shards that a process keeps


def read_zip(path: Path) -> bytes:
    """The one jsonl of a zipped shard."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(".jsonl") and not beside(m.filename)]
            if len(members) != 1:
                raise Unusable(Cause.SCHEMA, f"{path.name} holds {len(members)} .jsonl members, expected one")
            (member,) = members
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise Unusable(Cause.BAD_TAR, f"{path.name} uses compression {member.compress_type}, expected deflate")
            ratio = member.file_size / max(1, member.compress_size)
            if member.file_size > MAX_ZIP_MEMBER or ratio > MAX_ZIP_RATIO:
                raise Unusable(
                    Cause.OVERSIZE,
                    f"{path.name} unpacks to {member.file_size} bytes, {ratio:.0f} times its size; the limits are "
                    f"{MAX_ZIP_MEMBER} bytes and {MAX_ZIP_RATIO} times",
                )
            return archive.read(member)  # never more than file_size, whatever the stream holds
    except (FileNotFoundError, PermissionError):
        raise
    except _ZIP_ERRORS as error:
        raise Unusable(Cause.BAD_TAR, f"{path.name} is no readable zip: {error}") from error


def recent_zips(budget: int) -> Recent[tuple[Path, int], bytes]:
    """Contents of zipped shards by path and time of the last change; at most `budget` bytes and one more are kept."""
    return Recent(lambda key: read_zip(key[0]), len, budget)


unzip = recent_zips(UNPACKED_BYTES)
