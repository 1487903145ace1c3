"""What the names in a table mean: which field of DataConfig each reads, and a fingerprint of its content."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from data.corpora import PEAK_LEARNING_RATE, find_shards
from data.readers.index import digest_shards, list_shards
from data.toyworld.rules import DocumentRules
from data.toyworld.spec import ToyworldSpec, is_embedded
from experiments.configuration.config import DataConfig, RunConfig
from experiments.configuration.overrides import ConfigError, suggest

FOLDERS = ("mmc4", "laion", "mmc4_pair", "imagenet", "retrieval_train", "caption_train", "coco", "flickr30k", "nocaps")


@dataclass(frozen=True)
class PretrainCorpus:
    """A corpus as tables name it."""

    name: str
    source: Literal["mmc4", "laion"]  # field of DataConfig
    pairs: bool  # image-caption pairs, else documents

    @property
    def rate(self) -> Literal["laion", "others"]:
        """Field of PeakRates: corpora share a rate here exactly if the paper gives them one."""
        return "laion" if PEAK_LEARNING_RATE[self.name] == PEAK_LEARNING_RATE["laion"] else "others"


@dataclass(frozen=True)
class TaskData:
    """Fields of DataConfig that a transfer task trains and is tested on."""

    train: str
    tests: tuple[str, ...]


CORPORA = {
    corpus.name: corpus
    for corpus in (
        PretrainCorpus("mmc4", "mmc4", pairs=False),
        PretrainCorpus("mmc4-pair", "mmc4", pairs=True),
        PretrainCorpus("laion", "laion", pairs=True),
        PretrainCorpus("laion-random", "laion", pairs=True),  # the same pairs, each in an order of its own
    )
}

TASKS = {
    "classify": TaskData("imagenet", ("imagenet",)),
    "retrieve": TaskData("retrieval_train", ("coco", "flickr30k")),
    "caption": TaskData("caption_train", ("coco", "nocaps")),
}


def embedded_corpus(data: DataConfig) -> ToyworldSpec:
    """The embedded corpus of these settings."""
    rules = DocumentRules(redundancy=data.toyworld_redundancy)
    return ToyworldSpec(seed=data.toyworld_seed, rules=rules)


def get_corpus(name: str) -> PretrainCorpus:
    """The corpus of that name. Raises ConfigError with the nearest name for an unknown one."""
    if name not in CORPORA:
        raise ConfigError(suggest(name, CORPORA, "corpus"))
    return CORPORA[name]


def get_task(name: str) -> TaskData:
    """What a transfer task reads. Raises ConfigError with the nearest name for an unknown one."""
    if name not in TASKS:
        raise ConfigError(suggest(name, TASKS, "transfer task"))
    return TASKS[name]


def own_sets(data: DataConfig) -> dict[str, str]:
    """Test sets read from folders of the user's: field of DataConfig -> its name, "" for the benchmark itself."""
    folders = {field.name: getattr(data, field.name) for field in fields(data.called)}
    own = [name for name, folder in folders.items() if folder is not None and not is_embedded(folder.parent.name)]
    return {name: getattr(data.called, name) or "" for name in own}


def digests(data: DataConfig) -> Mapping[str, str]:
    """A fingerprint of every folder that is set, and of the tokenizer, by field of DataConfig.

    Corpora by names and sizes of their shards, downstream sets by their files and the number of images in each folder:
    reads no image and no shard. Raises data.errors.CorpusError for a folder that is no corpus, ConfigError where a
    downstream folder does not exist, or a test set is named whose folder is not set.
    """
    for name in (field.name for field in fields(data.called)):
        if getattr(data.called, name) is not None and getattr(data, name) is None:
            raise ConfigError(
                f"data.called.{name} names a test set of your own, but data.{name} is not set; add "
                f"--set data.{name}=FOLDER, or leave the name out"
            )
    found: dict[str, str] = {}
    for name in FOLDERS:
        folder = getattr(data, name)
        if folder is not None:
            found[name] = _corpus(folder) if name in ("mmc4", "laion", "mmc4_pair") else _folder(name, folder)
    if data.tokenizer is not None:
        local = Path(data.tokenizer)
        found["tokenizer"] = _folder("tokenizer", local) if local.is_dir() else data.tokenizer
    return found


def with_embedded(config: RunConfig, runs: Path, uses_it: bool) -> tuple[RunConfig, Mapping[str, str]]:
    """Data folders the user did not set point into the embedded corpus, at the scale that uses it; digests of all.

    The embedded corpus is known by its specification, so that planning does not need it written.
    """
    given = digests(config.data)
    if not uses_it:
        return config, given
    spec = embedded_corpus(config.data)
    folder = runs / "shared" / "corpora" / spec.folder_name
    free = [name for name in FOLDERS if getattr(config.data, name) is None and name != "mmc4_pair"]
    folders: dict[str, Any] = {name: folder / name for name in free}
    known = {**given, **{name: f"{spec.folder_name}/{name}" for name in free}}
    return replace(config, data=replace(config.data, **folders)), known


def _corpus(folder: Path) -> str:
    return digest_shards(list_shards(folder, find_shards(folder).paths))


def _folder(name: str, folder: Path) -> str:
    """Names and sizes of the files at the top, and how many entries each folder below holds."""
    if not folder.is_dir():
        raise ConfigError(f"data.{name} is {str(folder)!r}, which is no folder; set it with --set data.{name}=FOLDER")
    lines = [f"{path.name} {path.stat().st_size}" for path in sorted(folder.iterdir()) if path.is_file()]
    below = [path for path in sorted(folder.glob("*")) + sorted(folder.glob("*/*")) if path.is_dir()]
    lines += [f"{path.relative_to(folder).as_posix()}/ {sum(1 for _ in path.iterdir())}" for path in below]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
