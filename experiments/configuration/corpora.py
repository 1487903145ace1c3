"""What the names in a table mean: which field of DataConfig each reads, and a fingerprint of its content."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from data.corpora import PEAK_LEARNING_RATE, find_shards
from data.readers.index import digest_shards, list_shards
from data.toyworld.rules import DocumentRules
from data.toyworld.spec import ToyworldSpec, is_embedded
from experiments.configuration.config import DataConfig, RunConfig
from experiments.configuration.dialogue import dialogue_digests, embedded_dialogue
from experiments.configuration.overrides import ConfigError, suggest
from transfer.dialogue.scoring.base import NAMES

SOURCES = ("mmc4", "laion", "mmc4_pair", "obelics")  # fields of DataConfig that are corpora
FOLDERS = (*SOURCES, "imagenet", "retrieval_train", "caption_train", "coco", "flickr30k", "nocaps")
SYNTAX = "NAME or [WEIGHT*]NAME+[WEIGHT*]NAME+..., as 2*laion-random+mmc4: two images of the first to one of the second"
_PART = re.compile(r"(?:(\d+(?:\.\d+)?)\*)?([^\s*+]+)")


@dataclass(frozen=True)
class Part:
    """A corpus as tables name it."""

    name: str
    source: Literal["mmc4", "laion", "obelics"]  # field of DataConfig
    entries: Literal["pairs", "documents", "windows"]  # image-caption pairs, documents, or documents cut into windows
    matching: Literal["published", "optimal"] = "published"  # optimal: data/readers/rematch.py

    def field(self, data: DataConfig) -> str:
        """The field of DataConfig that is read: pairs of documents may lie in a folder of their own."""
        own_pairs = self.name == "mmc4-pair" and data.mmc4_pair is not None
        return "mmc4_pair" if own_pairs else self.source


@dataclass(frozen=True)
class PretrainCorpus:
    """What a row is trained on: one corpus, or several mixed by declared shares of the images."""

    parts: tuple[Part, ...]
    weights: tuple[int, ...] = (1,)  # images of each part, relative to the others; no common divisor

    @property
    def name(self) -> str:
        """The one way to write it."""
        weighted = zip(self.parts, self.weights, strict=True)
        return "+".join(part.name if weight == 1 else f"{weight}*{part.name}" for part, weight in weighted)

    @property
    def pairs(self) -> bool:
        """Whether it holds image-caption pairs only."""
        return all(part.entries == "pairs" for part in self.parts)

    @property
    def rate(self) -> Literal["laion", "others"]:
        """Field of PeakRates: corpora share a rate here exactly if the paper gives them one."""
        laion = PEAK_LEARNING_RATE["laion"]
        return "laion" if all(PEAK_LEARNING_RATE[part.name] == laion for part in self.parts) else "others"

    def shares(self, images: int) -> tuple[int, ...]:
        """So many images dealt out to the parts: by weight, rounded by largest remainder, the first of equals first."""
        whole = sum(self.weights)
        dealt = [images * weight // whole for weight in self.weights]
        remainders = [images * weight % whole for weight in self.weights]
        for part in sorted(range(len(dealt)), key=lambda part: -remainders[part])[: images - sum(dealt)]:
            dealt[part] += 1
        return tuple(dealt)


@dataclass(frozen=True)
class TaskData:
    """Fields of DataConfig that a transfer task trains and is tested on."""

    train: str
    tests: tuple[str, ...]


CORPORA = {
    part.name: part
    for part in (
        Part("laion", "laion", "pairs"),
        Part("laion-random", "laion", "pairs"),  # the same pairs, each in an order of its own
        Part("mmc4-pair", "mmc4", "pairs"),
        Part("mmc4-pair-rematched", "mmc4", "pairs", "optimal"),
        Part("mmc4", "mmc4", "documents"),
        Part("mmc4-rematched", "mmc4", "documents", "optimal"),
        Part("obelics", "obelics", "windows"),
    )
}

TASKS = {
    "classify": TaskData("imagenet", ("imagenet",)),
    "retrieve": TaskData("retrieval_train", ("coco", "flickr30k")),
    "caption": TaskData("caption_train", ("coco", "nocaps")),
}


def embedded_corpus(data: DataConfig) -> ToyworldSpec:
    """The embedded corpus of these settings."""
    rules = DocumentRules(redundancy=data.toyworld_redundancy, one_subject=data.toyworld_one_subject)
    return ToyworldSpec(seed=data.toyworld_seed, rules=rules)


def get_corpus(expression: str) -> PretrainCorpus:
    """The corpus or mixture that is written so.

    Raises ConfigError for an unknown name (with the nearest one), for what is no expression of SYNTAX, and for a
    mixture of the same data with itself.
    """
    matches = [_PART.fullmatch(term) for term in expression.split("+")]
    weights, parts = [], []
    for match in matches:
        if match is None or (match[1] is not None and (len(matches) == 1 or not Fraction(match[1]))):
            raise ConfigError(f"{expression!r} is no corpus; write {SYNTAX}. Corpora are {', '.join(CORPORA)}")
        if match[2] not in CORPORA:
            raise ConfigError(suggest(match[2], CORPORA, "corpus"))
        weights.append(Fraction(match[1] or 1))
        parts.append(CORPORA[match[2]])
    twice = [each for each, count in Counter((part.source, part.entries) for part in parts).items() if count > 1]
    if twice:
        raise ConfigError(f"{expression!r} mixes the {twice[0][1]} of {twice[0][0]} with themselves; name them once")
    order = sorted(range(len(parts)), key=lambda at: list(CORPORA).index(parts[at].name))
    common = math.lcm(*(weight.denominator for weight in weights))
    counts = [int(weights[at] * common) for at in order]
    divisor = math.gcd(*counts)
    return PretrainCorpus(tuple(parts[at] for at in order), tuple(count // divisor for count in counts))


def get_task(name: str) -> TaskData:
    """What a transfer task reads. Raises ConfigError with the nearest name for an unknown one."""
    if name not in TASKS:
        raise ConfigError(suggest(name, TASKS, "transfer task"))
    return TASKS[name]


def own_sets(data: DataConfig) -> dict[str, str]:
    """Test sets read from folders of the user's: field of DataConfig -> its name, "" for the benchmark itself."""
    folders = {field.name: getattr(data, field.name) for field in fields(data.called)}
    own = [name for name, folder in folders.items() if folder is not None and not is_embedded(folder.parent.name)]
    found = {name: getattr(data.called, name) or "" for name in own}
    if data.dialogue is not None and not is_embedded(data.dialogue.name):
        found |= dict.fromkeys(NAMES, "")  # a set that is not complete is refused: experiments/launching/dialogue.py
    return found


def digests(data: DataConfig) -> Mapping[str, str]:
    """A fingerprint of every folder that is set, of the tokenizer and of the language model, by field of DataConfig.

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
            found[name] = _corpus(folder) if name in SOURCES else _folder(name, folder)
    if data.dialogue is not None:
        found |= dialogue_digests(data.dialogue, NAMES)
    if data.tokenizer is not None:
        local = Path(data.tokenizer)
        found["tokenizer"] = _folder("tokenizer", local) if local.is_dir() else data.tokenizer
    if data.llm is not None:
        found["llm"] = _model(Path(data.llm))
    return found


_READ = 2**20  # bytes at either end of a model's file: it may be larger than what is read in a minute


def _model(source: Path) -> str:
    """The name of a model and what its files are; of a cached one its name alone."""
    if source.is_dir():
        ends = [f"{path.name} {_ends(path)}" for path in sorted(source.iterdir()) if path.is_file()]
        held = "\n".join([_folder("llm", source), *ends])  # fine-tuned again, weights have the size they had
        return f"{source.resolve().name} {hashlib.sha256(held.encode()).hexdigest()[:16]}"
    if source.is_file():
        return f"{source.name} {_ends(source)}"
    return str(source)


def _ends(path: Path) -> str:
    """A fingerprint of both ends of a file and its size."""
    with path.open("rb") as file:
        start, size = file.read(_READ), path.stat().st_size
        file.seek(max(0, size - _READ))
        return hashlib.sha256(start + file.read() + str(size).encode()).hexdigest()[:16]


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
    if config.data.dialogue is None:
        talk, parts = embedded_dialogue(config.data.toyworld_seed)
        folders["dialogue"], known = runs / "shared" / "corpora" / talk.folder_name, {**known, **parts}
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
