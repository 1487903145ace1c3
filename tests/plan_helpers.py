"""A catalogue of made-up objectives and tasks, so that planning is tested without torch and without their defaults."""

import ast
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from results_helpers import make_record

from experiments.configuration.config import RunConfig
from experiments.configuration.overrides import apply, parse, suggest
from experiments.configuration.recipe import get_scale
from experiments.planning.catalogue import ObjectiveFacts, StageFacts, TaskFacts
from experiments.planning.specs import PlannedRun
from experiments.tables import TABLE1
from results.schema import RunRecord

DIGESTS = {
    name: f"{name}-v1"
    for name in (
        "mmc4",
        "laion",
        "obelics",
        "imagenet",
        "retrieval_train",
        "caption_train",
        "coco",
        "flickr30k",
        "nocaps",
    )
}
TINY = get_scale("tiny")
# Rows that were added to Table 1 later are no concern of tests about the paper's.
PAPERS_TABLE1 = replace(TABLE1, rows=tuple(row for row in TABLE1.rows if row.paper or row.control))


def declared_reads() -> dict[str, str]:
    """What every file of objectives/ declares to read, found without importing torch."""
    found = {}
    for path in (Path(__file__).parent.parent / "objectives").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Assign(targets=[ast.Name(id="reads")], value=ast.Constant(value=str(kind))):
                    found[path.stem] = kind
                case ast.ClassDef(bases=[ast.Name(id=parent), *_]) if parent.lower() in ("clip", "coca"):
                    found.setdefault(path.stem, "pairs")  # CoCa and BLIP-2 inherit it
    return found


@dataclass(frozen=True, kw_only=True)
class Plain:
    """An objective without options of its own."""

    embed_dim: int = 64


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """LCL's options, as far as tables override them."""

    contrast_weight: float = 0.1
    generate_weight: float = 1.0
    layout: Literal["interleaved", "random_order"] = "interleaved"

    def __post_init__(self) -> None:
        if self.contrast_weight < 0:
            raise ValueError(f"contrast_weight must be >= 0, got {self.contrast_weight}")


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """Nested options."""

    beams: int = 1


@dataclass(frozen=True, kw_only=True)
class Task:
    """Options of a transfer task."""

    epochs: float = 3.0
    warmup: float | None = None
    probes: tuple[str, ...] = ("acc1",)
    decoding: Decoding = field(default_factory=Decoding)


@dataclass(frozen=True, kw_only=True)
class Eyes:
    """How the encoder is trained."""

    lr: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Talk:
    """Options of a stage of dialogue."""

    epochs: float = 1.0
    select_layer: int = -1
    template: Literal["plain", "turns"] = "turns"
    vision: Eyes = Eyes()


@dataclass(frozen=True)
class FakeSize:
    """Two widths."""

    name: str
    vision: dict[str, int]
    language: dict[str, int]


def without_details(config: RunConfig) -> RunConfig:
    """The settings of a scale, less what it changes in objectives and tasks: the made-up ones have other fields."""
    return decided(replace(config, objectives={}, transfer={}, full={}, dialogue={}))


def decided(config: RunConfig) -> RunConfig:
    """The settings on a machine that multiplies in bf16, whatever this one does."""
    return apply(config, parse(["pretrain.optim.precision=bf16", "text_lm.optim.precision=bf16"]))


def record_of(run: PlannedRun, metrics: dict[str, float], **changes: Any) -> RunRecord:
    """A valid record of a planned run."""
    parts = {"spec": run.written.spec, "defaults": run.written.defaults, "parent": run.plain["inputs"].get("encoder")}
    return replace(make_record(run.plain, metrics), run_id=run.run_id, **parts, **changes)


class FakeCatalogue:
    """The objectives there are, with made-up options; three tasks."""

    reads = declared_reads()

    def objective(self, name: str) -> ObjectiveFacts:
        passes = {"supervised": 0, "coca": 2, "blip2": 3}.get(name, 1)
        on_pairs = {"layout": "random_order"} if name == "lcl" else {}
        default = self.config_class("objectives", name)()
        return ObjectiveFacts(default, self.reads[name], passes, 1, on_pairs, lambda config, patches: patches)

    def patches(self, size: str) -> int:
        return 16

    def task(self, name: str) -> TaskFacts:
        return TaskFacts(Task(), protocol=1, reads_text=name != "classify", generates=name == "caption", in_full={})

    def stage(self, name: str) -> StageFacts:
        return StageFacts(Talk(), protocol=1)

    def size(self, name: str) -> Any:
        return FakeSize(name, {"width": 128, "image_size": 32, "patch_size": 8}, {"width": 64, "positions": 2048})

    def config_class(self, group: str, name: str) -> type:
        if group in ("transfer", "full"):
            return Task
        if group == "dialogue":
            return Talk
        if name not in self.reads:
            raise ValueError(suggest(name, self.reads, "objective"))
        return Weighted if name == "lcl" else Plain
