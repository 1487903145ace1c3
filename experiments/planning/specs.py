"""Resolved runs: what is written to spec.json and handed to a job, and the name a run gets from it.

Paths are not among them; `inputs` holds what a run reads by content (digests of data, run_ids of parents). A name is
the hash of a spec without the settings that stand at their declared defaults (results/canonical.py:split). A new
setting comes with a default, here or in the Config of an objective or a task, and renames nothing.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from experiments.configuration.config import OptimConfig, Precision
from experiments.configuration.dialogue import StageName
from experiments.configuration.distributed import DistributedConfig
from experiments.configuration.typed import from_plain
from results.canonical import merge, plain, run_id, split
from results.record import write_atomic
from results.schema import BLIND, FULL, Kind, Mode

ABSENT = "absent"  # digest of data that is not set
CORPUS = "corpus"  # input of a pre-training; of a mixture, one "corpus:<name>" for each part
SPEC_FILE = "spec.json"


@dataclass(frozen=True, kw_only=True)
class ObjectiveSpec:
    """An objective with every field of its Config."""

    name: str
    protocol: int = 1  # Objective.protocol
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """How a corpus is read. Of the lengths, only those that apply are set: both for pairs mixed with documents."""

    name: str  # experiments.configuration.corpora.PretrainCorpus.name
    tokenizer: str  # "opt", or "bpe-512": a BPE of that size of the corpus's own text
    text_len: int | None
    seq_len: int | None
    sim_threshold: float | None
    max_images: int | None
    jpeg: Literal["full", "scaled"] = "full"  # how pictures are decoded (data/images.py)
    # Of an image to stand before its sentence; as it is where no order is drawn (pairs, OBELICS).
    before_probability: float = field(default=0.5, metadata={"later": True})


@dataclass(frozen=True, kw_only=True)
class PretrainSpec:
    """Pre-training of one encoder. Without an objective it is the initial encoder of that seed, written down."""

    kind: ClassVar[Kind] = Kind.PRETRAIN
    protocol: int
    objective: ObjectiveSpec | None
    data: CorpusSpec | None
    model: Mapping[str, Any]  # backbones.sizes.Size
    images: int
    images_per_step: int
    optim: OptimConfig | None
    # Decides how much memory a run needs, and no result.
    micro_batch: int | None = field(default=None, metadata={"hashed": False, "later": True})
    seed: int
    inputs: Mapping[str, str]

    @property
    def label(self) -> str:
        """Readable part of the run_id."""
        name = f"{self.objective.name}-{self.data.name}" if self.objective and self.data else "initial"
        return f"{name}-s{self.seed}"

    @property
    def steps(self) -> int:
        """Optimiser steps: the last one may hold fewer images."""
        return -(-self.images // self.images_per_step) if self.images else 0


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """An encoder that was trained elsewhere, taken in: known by its tensors, whatever file they came from."""

    kind: ClassVar[Kind] = Kind.ENCODER
    protocol: int
    source: str  # library and architecture: "open_clip:ViT-B-32"; never a path
    architecture: Mapping[str, Any]  # what builds it without weights (backbones/foreign/source.py)
    preprocess: Mapping[str, Any]  # size, mean, std, interpolation, and resize where it squashes
    language: Mapping[str, Any]  # backbones.sizes.LanguageSize of tasks that read with a model from scratch
    inputs: Mapping[str, str]  # weights, by their content
    seed: int = 0  # nothing here is drawn

    @property
    def label(self) -> str:
        """Readable part of the run_id."""
        return self.source


@dataclass(frozen=True, kw_only=True)
class TextLmSpec:
    """Training of the language model that transfer tasks of all rows start from."""

    kind: ClassVar[Kind] = Kind.TEXT_LM
    protocol: int
    source: str
    tokenizer: str
    model: Mapping[str, Any]  # backbones.sizes.LanguageSize
    steps: int
    batch: int
    optim: OptimConfig
    seed: int
    inputs: Mapping[str, str]

    @property
    def label(self) -> str:
        """Readable part of the run_id."""
        return f"{self.source}-s{self.seed}"


@dataclass(frozen=True, kw_only=True)
class TransferSpec:
    """One transfer task on one encoder, or on none in mode "blind"; trained once, scored on all of its test sets."""

    kind: ClassVar[Kind] = Kind.TRANSFER
    protocol: int
    task: str
    mode: Mode
    recipe: Mapping[str, Any]  # the task's Config
    precision: Precision  # of the encoder and of the head's training
    language: str | None  # "scratch", "text_lm" or a name; None: the task reads no text
    seed: int
    inputs: Mapping[str, str]  # encoder (none in mode "blind"), text_lm, train and each test set

    @property
    def label(self) -> str:
        """Readable part of the run_id."""
        if self.mode == BLIND:
            return f"{self.task}-{BLIND}-s{self.seed}"
        kind, _, rest = self.inputs["encoder"].partition("-")
        encoder = rest.rpartition("-")[0]
        if kind == Kind.ENCODER:  # one encoder, any number of seeds of transfer
            encoder = f"{encoder}-s{self.seed}"
        return f"{self.task}-{FULL}-{encoder}" if self.mode == FULL else f"{self.task}-{encoder}"


@dataclass(frozen=True, kw_only=True)
class DialogueSpec:
    """One stage of multimodal dialogue on one encoder, or on none in mode "blind"; the second is scored."""

    kind: ClassVar[Kind] = Kind.DIALOGUE
    protocol: int
    stage: StageName
    mode: Mode  # the first stage is "frozen" whatever the second is
    recipe: Mapping[str, Any]  # transfer.dialogue.recipe.Stage
    precision: Precision
    language: Literal["text_lm", "llm"]
    benchmarks: tuple[str, ...]  # of the second stage
    seed: int
    inputs: Mapping[str, str]  # encoder, text_lm or llm, align, data

    @property
    def label(self) -> str:
        """Readable part of the run_id."""
        if self.mode == BLIND:
            return f"{self.stage}-{BLIND}-s{self.seed}"
        encoder = self.inputs["encoder"].partition("-")[2].rpartition("-")[0]
        return f"{self.stage}-{FULL}-{encoder}" if self.mode == FULL else f"{self.stage}-{encoder}"


Spec = PretrainSpec | EncoderSpec | TextLmSpec | TransferSpec | DialogueSpec
_CLASSES: Mapping[Kind, type[Spec]] = {
    cls.kind: cls for cls in (PretrainSpec, EncoderSpec, TextLmSpec, TransferSpec, DialogueSpec)
}


def stage_of(spec: Spec) -> str:
    """What tables and boards call it: "pretrain", "text_lm", a transfer task, "align", or "dialogue" for stage 2."""
    if isinstance(spec, TransferSpec):
        return spec.task
    return "align" if isinstance(spec, DialogueSpec) and spec.stage == "align" else spec.kind.value


def to_plain(spec: Spec) -> dict[str, Any]:
    """The JSON form of a spec, with its kind."""
    return {"kind": spec.kind.value, **plain(spec, spec.label)}


def read_spec(found: Mapping[str, Any]) -> Spec:
    """A spec from its JSON form. Raises TypeMismatch (a ValueError) naming what is wrong with it."""
    kind = Kind(found["kind"])
    spec: Spec = from_plain(_CLASSES[kind], {key: value for key, value in found.items() if key != "kind"}, kind.value)
    return spec


@dataclass(frozen=True)
class Written:
    """A spec as spec.json and records hold it: the part its name is the hash of, and the rest by dotted key."""

    spec: Mapping[str, Any]
    defaults: Mapping[str, Any]

    @property
    def whole(self) -> Spec:
        """The spec with all its settings."""
        return read_spec(merge(self.spec, self.defaults))

    def save(self, folder: Path) -> None:
        """Write it into a run folder, where it is not there already: the folder's name follows from it."""
        text = json.dumps(plain(self), indent=1) + "\n"
        path = folder / SPEC_FILE
        if not path.exists() or path.read_text() != text:
            write_atomic(path, text)

    @classmethod
    def load(cls, folder: Path) -> "Written":
        """What a run folder holds. Raises OSError, or ValueError naming the file where it is no spec."""
        path = folder / SPEC_FILE
        found = json.loads(path.read_text())
        if not isinstance(found, dict) or found.keys() != {"spec", "defaults"}:
            raise ValueError(f"{path} is no spec of this version; `--migrate` renames the runs of an older one")
        return cls(**found)


def load_spec(folder: Path) -> Spec:
    """The spec in a run folder, as `Written.load` reads it."""
    return Written.load(folder).whole


def written(spec: Spec, typed: Mapping[str, Any]) -> Written:
    """A spec in its two parts. typed: the dataclasses behind its plain mappings, by dotted key."""
    named = {f.name: getattr(spec, f.name) for f in fields(spec) if f.metadata.get("hashed", True)}
    apart = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name not in named}
    hashed, defaults = split({"kind": spec.kind.value, **named}, typed)
    # What decides no result is written down where it is chosen: what was written before keeps its bytes.
    return Written(hashed, defaults | {name: value for name, value in apart.items() if value is not None})


def ranks(spec: Spec, asked: DistributedConfig) -> int:
    """Processes that do a run: a pre-training is shared by as many as asked for, everything else is done by one."""
    return asked.ranks if isinstance(spec, PretrainSpec) and spec.images else 1


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run to do once, whichever tables need it."""

    spec: Spec
    written: Written
    needs: tuple[str, ...]  # run_ids that must be done first
    problem: str  # why it cannot be started, "" where it can
    used_by: tuple[str, ...]  # "table1: CLIP"
    weight: int  # expected cost, comparable within a kind: the longer runs start first

    @cached_property
    def run_id(self) -> str:
        """`<kind>-<label>-<hash of the settings that are not at their defaults>`."""
        return run_id(self.spec.kind.value, self.spec.label, self.written.spec)

    @property
    def kind(self) -> Kind:
        """What the run does."""
        return self.spec.kind

    @cached_property
    def plain(self) -> dict[str, Any]:
        """The spec's JSON form, made once: rows are compared pairwise."""
        return to_plain(self.spec)
