"""A catalogue of made-up objectives and tasks, so that planning is tested without torch and without their defaults."""

from dataclasses import dataclass, field
from typing import Any, Literal

from experiments.catalogue import ObjectiveFacts, TaskFacts
from experiments.overrides import suggest
from experiments.recipe import get_scale

DIGESTS = {
    name: f"{name}-v1"
    for name in ("mmc4", "laion", "imagenet", "retrieval_train", "caption_train", "coco", "flickr30k", "nocaps")
}
TINY = get_scale("tiny")


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


@dataclass(frozen=True)
class FakeSize:
    """Two widths."""

    name: str
    vision: dict[str, int]
    language: dict[str, int]


class FakeCatalogue:
    """Seven objectives and the supervised control; three tasks."""

    reads = dict.fromkeys(("clip", "coca", "blip2", "supervised"), "pairs") | dict.fromkeys(
        ("beit3", "flamingo", "emu", "lcl"), "documents"
    )

    def objective(self, name: str, size: str) -> ObjectiveFacts:
        return ObjectiveFacts(self.config_class("objectives", name)(), self.reads[name])

    def task(self, name: str, size: str) -> TaskFacts:
        return TaskFacts(Task(), protocol=1, reads_text=name != "classify")

    def size(self, name: str) -> Any:
        return FakeSize(name, {"width": 128}, {"width": 64})

    def config_class(self, group: str, name: str) -> type:
        if group == "transfer":
            return Task
        if name not in self.reads:
            raise ValueError(suggest(name, self.reads, "objective"))
        return Weighted if name == "lcl" else Plain
