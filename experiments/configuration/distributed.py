"""How many processes do one run. Nothing of it changes what is learned, so nothing of it enters a run's hash."""

from dataclasses import dataclass
from typing import Literal

Strategy = Literal["ddp", "fsdp2"]


@dataclass(frozen=True, kw_only=True)
class DistributedConfig:
    """Processes that pre-train one encoder together, each on its share of a step (docs/scale.md)."""

    ranks: int = 1  # processes of one pre-training, a GPU each where there are GPUs
    strategy: Strategy = "ddp"  # ddp: each rank holds all weights; fsdp2: its part of every block's, moments included
    ranks_per_node: int | None = None  # with `--launcher slurm`; none: all on one node
    limit_seconds: int = 600  # that ranks wait for one another; then the run fails and names the missing ones

    def __post_init__(self) -> None:
        for name in ("ranks", "limit_seconds"):
            if getattr(self, name) < 1:
                raise ValueError(f"distributed.{name} must be at least 1, got {getattr(self, name)}")
        if self.strategy != "ddp" and self.ranks == 1:
            raise ValueError(
                f"distributed.strategy is {self.strategy}, which shards weights over ranks, and distributed.ranks is "
                "1; raise distributed.ranks, or leave distributed.strategy at ddp"
            )
        each = self.ranks_per_node
        if each is not None and (each < 1 or self.ranks % each):
            raise ValueError(
                f"distributed.ranks_per_node is {each}, which does not divide distributed.ranks, {self.ranks}; every "
                "node holds equally many"
            )

    @property
    def nodes(self) -> int:
        """Of a cluster, for one run."""
        return self.ranks // (self.ranks_per_node or self.ranks)


ALONE = DistributedConfig()
