"""Tars of image-text pairs as img2dataset writes them, for tests of what reads them."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from pathlib import Path


def write_shards(
    samples: Iterable[tuple[str, Mapping[str, bytes]]], folder: Path, samples_per_shard: int = 10_000
) -> tuple[Path, ...]:
    """Write {key: {suffix: bytes}} samples as 00000.tar, 00001.tar, ... and `sizes.json`; equal input, equal bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    sizes: dict[str, int] = {}
    remaining = iter(samples)
    for first in remaining:
        shard = f"{len(sizes):05d}.tar"
        sizes[shard] = _write_tar(folder / shard, chain([first], islice(remaining, samples_per_shard - 1)))
    (folder / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")
    return tuple(folder / shard for shard in sizes)


def _write_tar(path: Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> int:
    count = 0
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for key, members in samples:
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            count += 1
    return count
