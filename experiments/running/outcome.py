"""What a run found out, before it is written down."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Outcome:
    """The part of a record that only the run itself knows."""

    metrics: dict[str, float] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    scores: list[Mapping[str, Any]] = field(default_factory=list)  # per test item
    parent: str | None = None
    images_seen: int = 0
    lm_passes: int = 0
    train_flops: float = 0.0
    data_digest: str = ""
    coverage: dict[str, int] = field(default_factory=dict)
