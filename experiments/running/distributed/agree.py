"""What ranks tell each other between steps, so that all of them do the same next."""

import json
from typing import Any

import torch

from objectives.gather import gather_rows, rank, world_size


def everyone(value: Any, device: torch.device) -> list[Any]:
    """The JSON value of each rank, in rank order. Every rank must call it."""
    if world_size() == 1:
        return [value]
    text = json.dumps(value).encode()
    lengths, _ = gather_rows(torch.tensor([len(text)], device=device))
    written, _ = gather_rows(torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device))
    return [json.loads(bytes(part.tolist())) for part in written.split(lengths.tolist())]


def is_writer() -> bool:
    """Whether this process writes what the run leaves: rank 0 does, for all."""
    return rank() == 0


def refuse_different(what: str, value: Any, device: torch.device) -> None:
    """Raises ValueError naming ranks and values where they are not the same on all. Every rank must call it."""
    values = everyone(value, device)
    if differing := [f"rank {r} has {each!r}" for r, each in enumerate(values) if each != values[0]]:
        raise ValueError(
            f"{what} differs between ranks: rank 0 has {values[0]!r}, {', '.join(differing)}; "
            "all ranks must see the same run folder, on a file system that they share"
        )
