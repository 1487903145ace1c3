"""Opening a folder as a corpus, and the one number the paper ties to a corpus: its peak learning rate.

The format is told from the folder's content, never from its name. Everything that is not a corpus is refused with what
was found and what to do.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from data.errors import CorpusError
from data.readers.index import list_shards
from data.readers.laion import LaionCorpus
from data.readers.mmc4 import SHARD_NAME, Mmc4Corpus, shard_number
from data.readers.mmc4_tars import Mmc4TarCorpus, holds_documents
from data.readers.obelics import ObelicsCorpus, obelics_paths
from data.readers.tars import tar_paths

Format = Literal["laion", "mmc4", "obelics"]

# "we ... set the peak learning rate at 5e-4 for the LAION data and 3e-4 for others" (LCL section 4.1)
PEAK_LEARNING_RATE: Mapping[str, float] = MappingProxyType(
    {"laion": 5e-4, "laion-random": 5e-4}
    | dict.fromkeys(("mmc4", "mmc4-pair", "mmc4-rematched", "mmc4-pair-rematched", "obelics"), 3e-4)
)

TITLES: Mapping[Format, str] = MappingProxyType(
    {"laion": "image-text pairs in tars", "mmc4": "MMC4 documents", "obelics": "OBELICS documents"}
)
FolderCorpus = LaionCorpus | Mmc4Corpus | Mmc4TarCorpus | ObelicsCorpus
EXPECTED = (
    "expected img2dataset tars (00000.tar, ...), or MMC4 shards (docs_shard_0_v2.jsonl.zip, ...) or OBELICS's parquet "
    "files (train-00000-of-01335.parquet, ...) with images/"
)
_IMAGES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}


def open_corpus(
    folder: Path,
    caption_key: str | None = None,
    images: Path | None = None,
    cache: Path | None = None,
    processes: int = 1,
    shards: int | None = None,
) -> FolderCorpus:
    """Open a folder of LAION-style tar shards or of MMC4 or OBELICS documents, their images beside or inside them.

    Args:
        folder: the shards; tars may lie one folder deeper.
        caption_key: for tars, the .json field that holds the caption (default: the .txt member).
        images: for MMC4 and OBELICS, the image folder (default: folder/images).
        cache: where to keep the index of the shards; None reads all shards at every start.
        processes: how many processes read shards when there is no index yet.
        shards: open only so many, evenly over the corpus; a look at it that reads no more than those.

    Raises:
        CorpusError: no such folder, nothing in it, another kind of data, or an option of the other format.
    """
    found = find_shards(folder)
    paths, positions = _some(found.paths, shards)
    listed = list_shards(folder, paths)
    if found.form == "laion":
        if images is not None:
            raise CorpusError(f"{folder} holds tar shards, whose images are inside; drop images={images}")
        return LaionCorpus(listed, caption_key=caption_key, cache=cache, processes=processes)
    title = TITLES[found.form]
    if caption_key is not None:
        raise CorpusError(f"{folder} holds {title}, which have sentences; drop caption_key={caption_key!r}")
    if found.container == "tar":
        if images is not None:
            raise CorpusError(f"{folder} holds documents with their images inside; drop images={images}")
        return Mmc4TarCorpus(listed, cache=cache, processes=processes)
    images = folder / "images" if images is None else images
    if not images.is_dir():
        raise CorpusError(f"{folder} holds {title} but {images} is no folder; put the folder of the images there")
    if found.form == "obelics":
        return ObelicsCorpus(listed, images, cache=cache, processes=processes)
    return Mmc4Corpus(listed, images, positions=positions, cache=cache, processes=processes)


def _some(paths: Sequence[Path], most: int | None) -> tuple[list[Path], list[int]]:
    """Up to `most` of the paths, evenly among them, and their places."""
    count = len(paths) if most is None else min(most, len(paths))
    places = [number * len(paths) // max(1, count) for number in range(count)]
    return [paths[place] for place in places], places


class Found(NamedTuple):
    """The shards of a folder, in the order of the corpus, and what they hold."""

    form: Format
    container: Literal["tar", "jsonl", "parquet"]
    paths: list[Path]


def find_shards(folder: Path) -> Found:
    """What kind of corpus lies in `folder`, told from the files in it; of tars the first three are looked at.

    Raises CorpusError as `open_corpus` does.
    """
    if not folder.exists():
        raise CorpusError(f"{folder} does not exist; {EXPECTED}")
    if not folder.is_dir():
        raise CorpusError(f"{folder} is a file; pass the folder that holds the shards, perhaps {folder.parent}")
    documents = any(SHARD_NAME.fullmatch(path.name) for path in folder.iterdir())
    if not documents and (parquet := obelics_paths(folder)):
        return Found("obelics", "parquet", parquet)  # first, as its images may lie in tars one folder deeper
    tars = any(folder.glob("[!.]*.tar")) or (not documents and bool(tar_paths(folder)))
    if tars and documents:
        raise CorpusError(f"{folder} holds both tar shards and MMC4 shards; move one kind to a folder of its own")
    if documents:
        return Found("mmc4", "jsonl", mmc4_shards(folder))
    if not tars:
        raise CorpusError(f"{folder} is no corpus: {_description(folder)}; {EXPECTED}")
    paths = tar_paths(folder)
    # One damaged or empty tar among the first must not hide what the others hold.
    return Found(
        "mmc4" if any(holds_documents(path) for path in paths[:3] if path.is_file()) else "laion", "tar", paths
    )


def detect(folder: Path) -> Format:
    """The format of the corpus in `folder`. Raises CorpusError as `open_corpus` does."""
    return find_shards(folder).form


def mmc4_shards(folder: Path) -> list[Path]:
    """The MMC4 shards of a folder by number. Raises CorpusError when two files are the same shard."""
    paths = sorted(path for path in folder.iterdir() if SHARD_NAME.fullmatch(path.name))
    by_number: dict[int, Path] = {}
    for path in paths:
        twin = by_number.setdefault(shard_number(path), path)
        if twin is not path:
            raise CorpusError(f"{folder}: {twin.name} and {path.name} are the same shard twice; keep one of them")
    return [by_number[number] for number in sorted(by_number)]


def _description(folder: Path) -> str:
    """What a folder without shards seems to be."""
    entries = sorted(folder.iterdir())
    files = Counter("".join(path.suffixes[-2:]).lower() for path in entries if path.is_file())
    folders = [path for path in entries if path.is_dir()]
    if not entries:
        return "it is empty"
    if any(suffix.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")) for suffix in files):
        return "its tars are compressed, which allows no random access (decompress them)"
    if any(suffix.endswith(".parquet") for suffix in files):
        return (
            "it holds parquet files without tars, which list images by URL (download them with img2dataset) "
            "or are damaged (OBELICS's have the columns images and texts)"
        )
    if any(suffix.endswith((".jsonl", ".jsonl.zip")) for suffix in files):
        return "its .jsonl files are not named like MMC4 shards (rename them docs_shard_<number>, suffixes kept)"
    if any(suffix.endswith((".tsv", ".csv")) for suffix in files):
        return "it holds a table of URLs or captions (download the images with img2dataset)"
    if any("." + suffix.rpartition(".")[2] in _IMAGES for suffix in files):
        return "it holds loose images without captions"
    pictures = {path.name: below for path in folders[:3] if (below := _first_picture(path))}
    if pictures:
        inside, below = next(iter(pictures.items()))
        if len(folders) == 1:
            return f"it holds images ({inside}/{below}) and no shards that say what is written around them"
        return f"it looks like ImageNet folders, one folder per class ({inside}/{below})"
    if splits := {"train", "val"} & {path.name for path in folders}:
        return f"it looks like a data set with splits ({', '.join(sorted(splits))}); downstream sets are not corpora"
    found = ", ".join(path.name for path in entries[:4]) + (", ..." if len(entries) > 4 else "")
    return f"it holds {found}"


def _first_picture(folder: Path) -> str | None:
    """The name of the first file of a folder when it is a picture."""
    first = next(folder.iterdir(), None)
    return first.name if first is not None and first.suffix.lower() in _IMAGES else None
