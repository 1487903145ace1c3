"""The folder of multimodal dialogue, known by content: `dialogue.<what>` -> fingerprint, of stages and benchmarks.

align.json, tune.json   LLaVA's records of stage 1 and stage 2; images/ is what both name their pictures below
<benchmark>/            the files of its release, and pictures/ with what it asks about
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from data.toyworld.spec import DIALOGUE_BENCHMARKS, ToyDialogueSpec
from experiments.configuration.overrides import ConfigError

StageName = Literal["align", "tune"]
STAGES = get_args(StageName)
_READ = 2**20  # bytes at either end of a file: the mix has a gigabyte
_RELEASED = (".json", ".tsv", ".txt")  # files of a release, which name its pictures


def key(part: str) -> str:
    """What a stage or a benchmark is called among the digests of data."""
    return f"dialogue.{part}"


def dialogue_digests(folder: Path, names: tuple[str, ...]) -> Mapping[str, str]:
    """Fingerprints of both stages and of those benchmarks that are there. names: all benchmarks there can be.

    Raises ConfigError where the conversations are not there.
    """
    found = {}
    for number, stage in enumerate(STAGES, start=1):
        path = folder / f"{stage}.json"
        if not path.is_file():
            raise ConfigError(f"there is no {path}; it takes LLaVA's records of stage {number} (docs/dialogue.md)")
        found[key(stage)] = _digest(path)
    for name in names:
        if (folder / name).is_dir():
            paths = sorted(path for path in (folder / name).rglob("*") if path.suffix in _RELEASED)
            found[key(name)] = _digest(*paths)
    return found


def embedded_dialogue(seed: int) -> tuple[ToyDialogueSpec, Mapping[str, str]]:
    """The embedded dialogue corpus of that draw, with its fingerprints."""
    spec = ToyDialogueSpec(seed=seed)
    return spec, {key(part): f"{spec.folder_name}/{part}" for part in (*STAGES, *DIALOGUE_BENCHMARKS)}


def _digest(*paths: Path) -> str:
    """Of files by size and by what stands at their ends."""
    found = hashlib.sha256()
    for path in paths:
        size = path.stat().st_size
        with path.open("rb") as file:
            found.update(f"{path.name} {size}\n".encode() + file.read(_READ))
            file.seek(max(0, size - _READ))
            found.update(file.read())
    return found.hexdigest()[:16]
