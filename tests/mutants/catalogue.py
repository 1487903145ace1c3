"""The list of broken properties, read from mutants.toml and checked: each breaks exactly one place of today's code."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
FILE = Path(__file__).with_name("mutants.toml")


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One property, broken."""

    row: str  # of Table 1 whose tests should notice, or "shared"
    breaks: str  # the property, in words
    file: str
    old: str
    new: str
    tests: tuple[str, ...]  # files of tests, in the order in which they are asked
    equivalent: str = ""  # why no test can notice; empty where one must

    def broken(self, text: str) -> str:
        """The file's text with the property broken. Raises ValueError unless `old` stands there exactly once."""
        found = text.count(self.old)
        if found != 1:
            raise ValueError(
                f"mutant {self.breaks!r}: its old text stands {found} times in {self.file}, it must stand there once; "
                "write today's text into tests/mutants/mutants.toml"
            )
        return text.replace(self.old, self.new)


def load(path: Path = FILE) -> Sequence[Mutant]:
    """All mutants, in order. Raises ValueError where a mutant has no tests, TypeError where it has another key."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    tests: Mapping[str, list[str]] = content["tests"]
    mutants = []
    for entry in content["mutant"]:
        asked = entry.pop("tests", tests.get(entry["row"]))
        if not asked:
            raise ValueError(
                f"mutant {entry['breaks']!r}: row {entry['row']!r} has no tests of its own; name some with "
                f"tests = [...], or use one of the rows {', '.join(tests)}"
            )
        mutants.append(Mutant(tests=tuple(asked), **entry))
    return mutants
