"""Where runs are kept and data lies: what a spec, which names content only, leaves open."""

from dataclasses import dataclass
from pathlib import Path

from experiments.configuration.config import DataConfig


@dataclass(frozen=True, kw_only=True)
class Place:
    """This machine: where runs are kept and where data lies."""

    runs: Path
    data: DataConfig

    @property
    def shared(self) -> Path:
        """What several runs use and any of them may make: tokenizers, indexes of shards, features."""
        return self.runs / "shared"
