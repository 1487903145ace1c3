"""The stages of dialogue by name: what `--set dialogue.<stage>.<field>` reaches."""

from dataclasses import dataclass

from transfer.dialogue.recipe import STAGES, Align, Stage, Tune


@dataclass(frozen=True)
class Registered:
    """A stage in the paper's recipe."""

    default: Align | Tune

    @property
    def Config(self) -> type[Stage]:  # as the registries of objectives and tasks call it
        """Its settings."""
        return type(self.default)


def get(name: str) -> Registered:
    """A stage. Raises ValueError for a name that is none."""
    for known, stage in STAGES.items():
        if known == name:
            return Registered(stage)
    raise ValueError(f"there is no stage {name!r} of dialogue; there are {', '.join(STAGES)}")


def available() -> tuple[str, ...]:
    """Names of the stages, in order."""
    return tuple(STAGES)
