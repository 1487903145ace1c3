"""The source a run began with: one that goes on, or starts some time after it was submitted, must have the same.

Code is imported when a job starts, not when it is submitted, so an edit in between would change results silently, and a
checkpoint continued by other code belongs to no version at all. Packages that decide a result count; documents, tests,
planning, launching and reports do not.
"""

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import objectives
from objectives import registry
from results.record import write_atomic
from transfer import registry as tasks

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
PACKAGES = ("backbones", "data", "objectives", "transfer", "experiments/running")
FILE = "source.json"


class SourceChanged(ValueError):
    """The packages that decide a result are not those the run began with."""


@cache
def import_all() -> None:
    """Import what runs would import only when they need it: edited meanwhile, it would not be what is recorded.

    A file that cannot be imported is left to the run that needs it.
    """
    for name in registry.available():
        try:
            registry.get(name)
        except Exception as error:
            logger.warning("objective %s cannot be imported: %s", name, error)
    tasks.available()


def pin(folder: Path) -> None:
    """Write down that a run begins with the source there is now, unless it has begun: a checkpoint is there."""
    if not (folder / "checkpoint").exists():
        write_atomic(folder / FILE, json.dumps(digests(), indent=1) + "\n")


def is_pinned(folder: Path) -> bool:
    """Whether the source that was pinned there is the one there is now."""
    return (folder / FILE).exists() and not _differences(folder)


def check(folder: Path) -> None:
    """Raises SourceChanged naming the files that differ from what was pinned, the first of each kind where many do."""
    if (folder / FILE).exists() and (words := _differences(folder)):
        raise SourceChanged(
            f"the source has changed since this run began: {'; '.join(words)}; put it back, "
            f"or remove {folder / 'checkpoint'} and start the sweep again to train it anew"
        )


def _differences(folder: Path) -> list[str]:
    """In words, from what was pinned."""
    before, now = json.loads((folder / FILE).read_text()), digests()
    added, gone = sorted(now.keys() - before.keys()), sorted(before.keys() - now.keys())
    changed = sorted(name for name in now.keys() & before.keys() if now[name] != before[name])
    return [f"{what} {_few(names)}" for what, names in zip(_WORDS, (changed, added, gone), strict=True) if names]


_WORDS = ("changed", "new", "gone")
NAMED = 6  # files of a kind; the reason also stands in a table


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


@cache
def digests() -> Mapping[str, str]:
    """A fingerprint of every file that decides a result, as this process first found them, by path."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found[path.relative_to(ROOT).as_posix()] = _digest(path)
    for folder in map(Path, objectives.__path__):  # those of --objectives
        for path in sorted(folder.glob("*.py")):
            if not path.is_relative_to(ROOT):
                found[path.as_posix()] = _digest(path)
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
