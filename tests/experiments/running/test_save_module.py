"""What a run leaves is on the disk before its record says so, and whole or not there at all."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from experiments.running import world
from experiments.running.world import save_module


def test_weights_are_on_the_disk_before_their_name_and_the_name_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    really, replaced = os.fsync, os.replace

    def noted(descriptor: int) -> None:
        events.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        really(descriptor)

    def renamed(source: object, target: object) -> None:
        events.append("rename")
        replaced(source, target)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", renamed)
    module = nn.Linear(2, 3)
    save_module(tmp_path / "head.safetensors", module)
    assert events == ["sync .head.safetensors.partial", "rename", f"sync {tmp_path.name}"]
    assert torch.equal(load_file(tmp_path / "head.safetensors")["weight"], module.weight)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("no space")])
def test_a_full_disk_leaves_what_was_there_and_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    path = tmp_path / "encoder.safetensors"
    save_module(path, nn.Linear(2, 3))
    before = path.read_bytes()

    def full(tensors: object, file: Path) -> None:
        file.write_bytes(b"half")
        raise error

    monkeypatch.setattr(world, "save_file", full)
    with pytest.raises(OSError, match=r"encoder\.safetensors cannot be written: .*[Nn]o space"):
        save_module(path, nn.Linear(2, 3))
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == [path.name]
