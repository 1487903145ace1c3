"""Lazy bytes: small picklable objects that know where bytes lie and fetch them when called."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

from data.document import Cause
from data.errors import BadImage

MAX_BYTES = 1 << 30  # of one picture; as raw pixels those that are decoded take less


def read_span(path: Path, offset: int, size: int) -> bytes:
    """`size` bytes from `offset`. Raises FileNotFoundError, or EOFError when the file has become shorter."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise EOFError(f"{path.name} ends before byte {offset + size}; it was longer when it was indexed")
    return data


@dataclass(frozen=True)
class SpanBytes:
    """A member of an uncompressed shard."""

    path: Path
    offset: int
    size: int

    def __call__(self) -> bytes:
        """The bytes.

        Raises BadImage: missing_shard when the shard is gone, bad_tar when it was cut meanwhile, oversize.
        """
        if self.size > MAX_BYTES:
            raise BadImage(
                Cause.OVERSIZE, f"a member of {self.size} bytes in {self.path.name}; at most {MAX_BYTES} are read"
            )
        try:
            return read_span(self.path, self.offset, self.size)
        except FileNotFoundError as error:
            raise BadImage(Cause.MISSING_SHARD, f"{self.path.name} is gone since it was indexed") from error
        except (EOFError, OSError) as error:
            raise BadImage(Cause.BAD_TAR, str(error)) from error


@runtime_checkable
class Findable(Protocol):
    """Lazy bytes that can say whether they are there without being read."""

    def is_there(self) -> bool:
        """Whether there is something to read."""


def is_there(read: Callable[[], bytes]) -> bool:
    """Whether lazy bytes would be found, as far as that can be told without reading them."""
    return read.is_there() if isinstance(read, Findable) else True


@lru_cache(maxsize=4096)
def _real(folder: Path) -> str:
    """Where a folder of images really lies, found once: it is asked for every image."""
    return os.path.realpath(folder)


@dataclass(frozen=True)
class FileBytes:
    """A file below a folder, by a name that came from a document and is therefore not trusted."""

    folder: Path
    name: str

    def __call__(self) -> bytes:
        """The bytes. Raises BadImage: missing_image, oversize, or schema when the name leads out of the folder."""
        root = _real(self.folder)
        path = os.path.realpath(f"{root}/{self.name}")
        if not path.startswith(f"{root}/"):
            raise BadImage(Cause.SCHEMA, f"image name {self.name!r} leads out of the image folder")
        try:
            with open(path, "rb") as file:
                if (size := os.fstat(file.fileno()).st_size) > MAX_BYTES:
                    raise BadImage(Cause.OVERSIZE, f"{self.name}: {size} bytes; at most {MAX_BYTES} are read")
                return file.read()
        except OSError as error:
            raise BadImage(Cause.MISSING_IMAGE, f"{self.name}: {error.strerror}") from error

    def is_there(self) -> bool:
        """Whether there is such a file."""
        return os.path.isfile(f"{self.folder}/{self.name}")


@dataclass(frozen=True)
class PathBytes:
    """A file of the user's own choosing; unlike names in documents it may be a link to anywhere."""

    path: Path

    def __call__(self) -> bytes:
        """The bytes. Raises BadImage: missing_image."""
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise BadImage(Cause.MISSING_IMAGE, str(error)) from error
