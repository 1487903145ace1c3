"""Checkpoints of a training run: tensors as safetensors, everything else as JSON, never a pickle.

A checkpoint is a folder `step-000123/` that appears under its name only when both files are on disk; the newest one
that loads is used, whatever else lies beside it, and the one before it is kept in case that one is damaged later. What
a step draws at random is seeded by its number (experiments/running/fit.py), so no generator state has to be kept.
"""

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from experiments.running.distributed.agree import is_writer
from experiments.running.distributed.sharding import gathered, part_of

logger = logging.getLogger(__name__)

_PREFIX = "step-"
KEPT = 2


@dataclass(frozen=True)
class Checkpoint:
    """What was saved after a step: tensors by name and the JSON beside them."""

    step: int
    tensors: Mapping[str, Tensor]
    state: Mapping[str, Any]


def save(folder: Path, step: int, module: nn.Module, trained: Sequence[Optimizer], state: Mapping[str, Any]) -> None:
    """Write the checkpoint of that step; of those before it the newest stay, KEPT in all, whatever else is dropped.

    Every rank must call it, as of sharded weights each holds a part; rank 0 writes.

    Raises OSError where the disk refuses; the checkpoints already there stay.
    """
    tensors = gathered(
        {f"model.{name}": tensor for name, tensor in module.state_dict().items()}
        | {f"optimizer.{name}": tensor for name, tensor in _optimizer_tensors(module, trained).items()}
    )
    if not is_writer():
        return
    folder.mkdir(parents=True, exist_ok=True)
    final, partial = folder / f"{_PREFIX}{step:09d}", folder / f".{_PREFIX}{step:09d}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        # Cloned: safetensors refuses tensors that share memory, and the optimiser goes on changing these.
        save_file({name: tensor.clone() for name, tensor in tensors.items()}, partial / "tensors.safetensors")
        (partial / "state.json").write_text(json.dumps({"step": step, **state}))
        for path in partial.iterdir():
            sync(path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        shutil.rmtree(partial, ignore_errors=True)  # the space it took is needed to write down what happened
        raise OSError(f"the checkpoint of step {step} cannot be written to {folder}: {error}") from error
    shutil.rmtree(final, ignore_errors=True)
    os.replace(partial, final)
    sync(folder)
    older = [path.name for path in _by_step(folder) if path.name < final.name]  # a later one did not load
    for path in folder.iterdir():
        if path.name not in (final.name, *older[: KEPT - 1]):
            shutil.rmtree(path, ignore_errors=True)


def newest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that loads; broken ones are named in the log and passed over."""
    for path in _by_step(folder):
        try:
            state = json.loads((path / "state.json").read_text())
            return Checkpoint(int(state["step"]), load_file(path / "tensors.safetensors"), state)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            logger.warning("checkpoint %s cannot be used (%s); looking for an older one", path, error)
    return None


def newest_step(folder: Path) -> int:
    """The step of the newest checkpoint, whether or not it loads; 0 where there is none."""
    return max((int(path.name[len(_PREFIX) :]) for path in _by_step(folder)), default=0)


def _by_step(folder: Path) -> list[Path]:
    """What is named like a checkpoint, newest first."""
    return sorted((p for p in folder.glob(f"{_PREFIX}*") if p.name[len(_PREFIX) :].isdecimal()), reverse=True)


def restore_weights(checkpoint: Checkpoint, module: nn.Module) -> None:
    """Put a checkpoint's parameters and buffers back. Raises ValueError listing what does not fit."""
    weights = {name.removeprefix("model."): t for name, t in checkpoint.tensors.items() if name.startswith("model.")}
    own = module.state_dict()
    wrong = sorted(own.keys() ^ weights.keys()) + sorted(
        name for name in own.keys() & weights.keys() if own[name].shape != weights[name].shape
    )
    if wrong:
        raise ValueError(f"checkpoint of step {checkpoint.step} does not fit the model: {', '.join(wrong[:8])}")
    module.load_state_dict({name: part_of(tensor, own[name]) for name, tensor in weights.items()})


def restore(checkpoint: Checkpoint, module: nn.Module, trained: Sequence[Optimizer]) -> None:
    """Put all of a checkpoint's tensors back. Raises ValueError listing what does not fit."""
    restore_weights(checkpoint, module)
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    for optimizer, parameter in _trained(trained):
        prefix = f"optimizer.{names[id(parameter)]}."
        moments = {k.removeprefix(prefix): t for k, t in checkpoint.tensors.items() if k.startswith(prefix)}
        if moments:  # a parameter that never got a gradient has none
            # Copied: what was loaded is the file itself, whose disk space is free only when nothing holds it any more.
            optimizer.state[parameter] = {
                key: t.to(parameter.device, copy=True)  # not to the CPU: the fused AdamW counts where it computes
                if key == "step"
                else torch.empty_like(parameter).copy_(part_of(t, parameter))
                for key, t in moments.items()
            }


def clear(folder: Path) -> None:
    """Forget all checkpoints: the run is finished and its record written."""
    shutil.rmtree(folder, ignore_errors=True)


def _optimizer_tensors(module: nn.Module, trained: Sequence[Optimizer]) -> dict[str, Tensor]:
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    return {
        f"{names[id(parameter)]}.{key}": torch.as_tensor(value)
        for optimizer, parameter in _trained(trained)
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _trained(trained: Sequence[Optimizer]) -> Iterator[tuple[Optimizer, nn.Parameter]]:
    """Every parameter with the optimiser that moves it."""
    for optimizer in trained:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                yield optimizer, parameter


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk itself: what comes after may say that it is there."""
    with contextlib.suppress(PermissionError):  # some file systems do not let a folder be opened for this
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
