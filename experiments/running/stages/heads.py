"""Heads that were trained, kept under the name of everything their training depends on.

What only scoring depends on (test sets, beam width, how many images at once) is no part of that name, so a run that
differs in nothing else finds the head and trains nothing. A run that is done anew under changed source trains its own
anew, too; as with finished runs, other runs go by the task's protocol. Tensors only, never a pickle.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from safetensors.torch import load_file
from torch import nn

from experiments.configuration.place import Place
from experiments.planning.specs import Written
from experiments.running import source
from experiments.running.world import save_module
from results.canonical import spec_hash
from results.record import write_atomic
from transfer.base import TransferConfig

TRAINING_INPUTS = ("encoder", "text_lm", "llm", "train", "tokenizer")


class Heads:
    """The place of one head, trained or still to be."""

    def __init__(self, place: Place, written: Written, config: TransferConfig, weights: Mapping[str, str]) -> None:
        """weights: fingerprints of the models it is trained on, by input: a run that is done again leaves others."""
        key = {**_fitted(written.spec, config), "weights": dict(weights)}
        self.folder = place.shared / "heads" / f"{written.spec['task']}-{spec_hash(key)}"

    @property
    def fitted_by(self) -> str:
        """The run that trained it, "" where none has."""
        path = self.folder / "fitted_by"
        return path.read_text().strip() if path.exists() else ""

    def serve(self, run_id: str) -> bool:
        """Whether a head is there which that run may take: of its own, only one that this source has trained."""
        return self.fitted_by != "" and (self.fitted_by != run_id or source.is_pinned(self.folder))

    def load(self, module: nn.Module) -> None:
        """Give a module its trained weights. Raises RuntimeError where they are of another module."""
        module.load_state_dict(load_file(self.folder / "weights.safetensors"))

    def save(self, module: nn.Module, run_id: str) -> None:
        """Keep the weights of a trained module; who trained it is written last."""
        self.folder.mkdir(parents=True, exist_ok=True)
        save_module(self.folder / "weights.safetensors", module)
        source.pin(self.folder)
        write_atomic(self.folder / "fitted_by", f"{run_id}\n")


def _fitted(spec: Mapping[str, Any], config: TransferConfig) -> dict[str, Any]:
    """The part of a transfer's spec that its training depends on."""
    scoring = {field.name for field in fields(config) if field.metadata.get("scoring")}
    recipe = {key: value for key, value in spec["recipe"].items() if key not in scoring}
    inputs = {name: spec["inputs"][name] for name in TRAINING_INPUTS if name in spec["inputs"]}
    return {**spec, "recipe": recipe, "inputs": inputs}
