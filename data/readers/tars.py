"""Tars without unpacking them: which files are shards, where each member lies, how many samples one should hold."""

import json
import tarfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data.document import Bad, Cause
from data.readers.index import Shard
from data.readers.zips import beside

# Zeros at the end of a tar: two blocks, then what fills the last record; some programs have larger records.
USUAL_PADDING = tarfile.RECORDSIZE + tarfile.BLOCKSIZE
MAX_PADDING = 1 << 20


class Member(NamedTuple):
    """A regular file in a tar."""

    key: str  # its name up to the first dot of its last part
    suffix: str  # the rest, in lower case
    start: int  # first byte
    size: int


class Headers(NamedTuple):
    """What the headers of a tar say."""

    members: list[Member]  # whole ones
    broken_key: str | None = None  # of a member that is cut
    padding: int | None = None  # zeros with which the archive ends; None: it does not end as it should

    def whole(self, path: Path, held: int) -> bool:
        """Whether nothing is lost of that tar, in which `held` samples can be seen.

        A tail that became zeros looks like an end. It is told by its length, or, where it is longer than what is
        written behind every tar, by a file beside it that says there were more: a shorter one may have been filtered.
        """
        if self.padding is None or self.padding > MAX_PADDING:
            return False
        if self.members and self.padding <= USUAL_PADDING:
            return True
        said = declared_size(path)
        return bool(self.members) if said is None else held >= said


def read_headers(path: Path, most: int | None = None) -> Headers:
    """Each whole regular member, or the first so many."""
    members: list[Member] = []
    end = path.stat().st_size
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while len(members) != most and (info := tar.next()) is not None:
                key, suffix = split_name(info.name)
                if info.size < 0 or info.offset_data + info.size > end:
                    return Headers(members, key)
                if key and info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse():
                    members.append(Member(key, suffix, info.offset_data, info.size))
            return Headers(members, None, None if len(members) == most else _padding(file, tar.offset))
    except (FileNotFoundError, PermissionError):
        raise
    except (tarfile.TarError, OSError, ValueError, EOFError):  # what tarfile raises on damaged archives
        return Headers(members)


def _padding(file: BinaryIO, offset: int) -> int | None:
    """The zeros from there to the end, None where there is anything else; not counted beyond MAX_PADDING.

    tarfile stops silently at a damaged header, and at one that became zeros.
    """
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    zeros = 0
    while block and zeros <= MAX_PADDING:
        if block.count(0) != len(block):
            return None
        zeros += len(block)
        block = file.read(1 << 16)
    return zeros if zeros >= tarfile.BLOCKSIZE else None


def tar_paths(folder: Path) -> list[Path]:
    """The tars of a folder, or of the folders in it where it has none itself; hidden files are none."""
    for pattern in ("*.tar", "*/*.tar"):
        if found := sorted(path for path in folder.glob(pattern) if not beside(path.relative_to(folder).as_posix())):
            return found
    return []


def declared_size(path: Path) -> int | None:
    """How many samples a file beside a tar says it holds: img2dataset's 00000_stats.json, open_clip's sizes.json."""
    for name, find in (
        (path.with_name(f"{path.stem}_stats.json"), lambda held: held["successes"]),
        (path.with_name("sizes.json"), lambda held: held[path.name]),
    ):
        try:
            size = find(json.loads(name.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            continue  # not there, or not what it is named like: then it says nothing
        if type(size) is int and size >= 0:
            return size
    return None


def cut_tar(doc_id: str, shard: Shard, kept: int, typical: int | None) -> Bad:
    """What is lost with a tar that is cut or damaged after `kept` samples.

    How many it held is said by a file beside it, else it held as many as other shards do (typical; None: unknown).
    """
    said = declared_size(shard.path)
    held = typical if said is None else said
    why = f"{shard.name} is cut or damaged here; samples before this one are used"
    if held is None:
        return Bad(doc_id, Cause.BAD_TAR, f"{why}; nothing says how many it held")
    lost = max(1, held - kept)
    source = "other shards hold" if said is None else "a file beside it says it held"
    return Bad(doc_id, Cause.BAD_TAR, f"{why}; about {lost} are lost, as {source} {held}", lost)


def split_name(name: str) -> tuple[str, str]:
    """webdataset's rule: the key ends at the first dot of the last path part.

    ("", "") for names without a dot and for dot files, which macOS adds beside every member of an archive.
    """
    folder, _, base = name.rpartition("/")
    stem, dot, suffix = base.partition(".")
    if not stem or not dot:
        return "", ""
    return (f"{folder}/{stem}" if folder else stem), suffix.lower()
