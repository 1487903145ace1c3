"""What a run is given by its owner, and what it finds out before that is written down."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from experiments.configuration.distributed import Strategy
from experiments.running.progress import Progress


@dataclass(frozen=True)
class Owned:
    """A run folder that belongs to this process."""

    folder: Path
    progress: Progress
    may_write: Callable[[], None]  # raises LeaseLost where it belongs to another by now
    strategy: Strategy = "ddp"  # how several processes that pre-train together hold the weights


@dataclass
class Outcome:
    """The part of a record that only the run itself knows."""

    metrics: dict[str, float] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    scores: list[Mapping[str, Any]] = field(default_factory=list)  # per test item
    samples: list[Mapping[str, Any]] = field(default_factory=list)  # results/details/samples.py
    parent: str | None = None
    images_seen: int = 0
    lm_passes: int = 0
    train_flops: float = 0.0
    lm_tokens: int | None = None
    data_digest: str = ""
    ranks: int = 1  # processes that trained it together
    strategy: Strategy = "ddp"  # how these held the weights
    fitted_by: str = ""  # the run whose head was scored; "" where this run trained its own
    coverage: dict[str, int] = field(default_factory=dict)
