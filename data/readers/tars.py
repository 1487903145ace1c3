"""Tars without unpacking them: which files are shards, where each member lies, how many samples one should hold."""

import json
import tarfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from data.document import Bad, Cause
from data.readers.index import Shard
from data.readers.zips import beside


class Member(NamedTuple):
    """A regular file in a tar."""

    key: str  # its name up to the first dot of its last part
    suffix: str  # the rest, in lower case
    start: int  # first byte
    size: int


def read_headers(path: Path, most: int | None = None) -> tuple[list[Member], str | None, bool]:
    """Each whole regular member, or the first so many; the key of a cut member; is the archive whole?"""
    members: list[Member] = []
    end = path.stat().st_size
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            while len(members) != most and (info := tar.next()) is not None:
                key, suffix = split_name(info.name)
                if info.size < 0 or info.offset_data + info.size > end:
                    return members, key, False
                if key and info.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not info.issparse():
                    members.append(Member(key, suffix, info.offset_data, info.size))
            return members, None, len(members) == most or _ends(file, tar.offset)
    except (FileNotFoundError, PermissionError):
        raise
    except (tarfile.TarError, OSError, ValueError, EOFError):  # what tarfile raises on damaged archives
        return members, None, False


def _ends(file: BinaryIO, offset: int) -> bool:
    """Whether an archive ends there. tarfile stops silently at a damaged header, and at one that became zeros."""
    file.seek(offset)
    block = file.read(tarfile.BLOCKSIZE)
    if block != bytes(tarfile.BLOCKSIZE):
        return False
    while block:
        if block.count(0) != len(block):
            return False
        block = file.read(1 << 16)
    return True


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
