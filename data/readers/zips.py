"""Zipped shards: one member, unpacked whole, capped in size and ratio; the last few are kept."""

import struct
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path

from data.document import Cause

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


class Unzipped:
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
        content = read_zip(path)
        self._left -= len(content)
        while self._left < 0 and self._held:
            self._left += len(self._held.popitem(last=False)[1])
        self._held[key] = content
        return content


UNPACKED_BYTES = 256 * 2**20  # of shards that a process keeps
unzip = Unzipped(UNPACKED_BYTES)


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
