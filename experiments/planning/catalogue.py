"""What planning asks the other packages: defaults and declarations of objectives, transfer tasks and sizes.

A protocol, so that plans can be tested without torch; `Suite` is the real one and imports a package when it is asked.
"""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from experiments.configuration.overrides import REGISTRIES


@dataclass(frozen=True)
class ObjectiveFacts:
    """What an objective declares."""

    default: Any  # its Config, the paper's values
    reads: str  # "pairs", "documents" or "none"
    lm_passes: int  # through the language model, for one batch
    protocol: int  # bumped when equal settings would train different weights
    on_pairs: Mapping[str, Any]  # fields of its Config that a corpus of pairs implies
    slots: Callable[[Any, int], int]  # image slots of a span in a row, from its Config and the encoder's patches


@dataclass(frozen=True)
class TaskFacts:
    """What a transfer task declares."""

    default: Any  # its Config, the paper's values
    protocol: int
    reads_text: bool
    generates: bool  # writes text when it is scored, which takes longer than training
    in_full: Mapping[str, Any]  # settings that full transfer has otherwise


@dataclass(frozen=True)
class StageFacts:
    """What a stage of multimodal dialogue declares."""

    default: Any  # its recipe, the paper's values
    protocol: int


class Catalogue(Protocol):
    """Look-ups by name. Each raises ValueError with a suggestion for an unknown name."""

    def objective(self, name: str) -> ObjectiveFacts:
        """Declarations of an objective."""
        ...

    def task(self, name: str) -> TaskFacts:
        """Declarations of a transfer task."""
        ...

    def stage(self, name: str) -> StageFacts:
        """Declarations of a stage of dialogue."""
        ...

    def size(self, name: str) -> Any:
        """The pair of backbones of that name, a dataclass with the fields `vision` and `language`."""
        ...

    def patches(self, size: str) -> int:
        """How many patches the encoder of a size makes of an image."""
        ...

    def config_class(self, group: str, name: str) -> type:
        """Config class of an objective (group "objectives"), a transfer task ("transfer" and "full") or a stage."""
        ...


class Suite:
    """The objectives, tasks and sizes of this repository."""

    def objective(self, name: str) -> ObjectiveFacts:
        """Declarations of an objective; imports its file."""
        found = importlib.import_module("objectives.registry").get(name)
        return ObjectiveFacts(found.Config(), found.reads, found.lm_passes, found.protocol, found.on_pairs, found.slots)

    def task(self, name: str) -> TaskFacts:
        """Declarations of a transfer task; imports its file."""
        found = importlib.import_module("transfer.registry").get(name)
        return TaskFacts(found.Config(), found.protocol, found.reads_text, found.generates, found.in_full)

    def stage(self, name: str) -> StageFacts:
        """Declarations of a stage of dialogue; imports its recipe."""
        found = importlib.import_module("transfer.dialogue.registry").get(name)
        return StageFacts(found.default, importlib.import_module("transfer.dialogue.recipe").PROTOCOL)

    def size(self, name: str) -> Any:
        """A size of backbones/sizes.py."""
        from backbones.sizes import SIZES
        from experiments.configuration.overrides import ConfigError, suggest

        if name not in SIZES:
            raise ConfigError(suggest(name, SIZES, "size"))
        return SIZES[name]

    def patches(self, size: str) -> int:
        """Of the vision transformer of backbones/sizes.py."""
        return int(self.size(size).vision.num_patches)

    def config_class(self, group: str, name: str) -> type:
        """Config class of a registered objective, task or stage."""
        found: type = importlib.import_module(f"{REGISTRIES[group]}.registry").get(name).Config
        return found
