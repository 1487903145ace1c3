"""The numbers the paper prints, from results/paper/*.csv. They stand beside measured numbers and never among them."""

import csv
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

FOLDER = Path(__file__).parent / "paper"


class PaperError(ValueError):
    """A declared table asks for a line or column that the paper's table does not have."""


@lru_cache(maxsize=32)
def load(name: str, folder: Path = FOLDER) -> tuple[Mapping[str, str], ...]:
    """The lines of one table as printed, by column name. Raises PaperError naming the tables there are."""
    path = folder / name
    if not path.is_file():
        known = ", ".join(sorted(each.name for each in folder.glob("*.csv")))
        raise PaperError(f"the paper has no table {name!r}; there are {known}")
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def value(name: str, select: Mapping[str, str], column: str, folder: Path = FOLDER) -> float | None:
    """The paper's value in one cell, None where it prints none.

    name: file name of the table; select: cells that pick exactly one line, e.g. {"method": "LCL"}; empty: no line.
    Raises PaperError when they pick none or several, or the column is not in the table.
    """
    lines = load(name, folder)
    wanted = (column, *select)
    if unknown := [each for each in wanted if each not in lines[0]]:
        raise PaperError(f"{name} has no column {unknown[0]!r}; it has {', '.join(lines[0])}")
    if not select:
        return None
    matches = [line for line in lines if all(line[key] == cell for key, cell in select.items())]
    if len(matches) != 1:
        raise PaperError(f"{dict(select)} picks {len(matches)} lines of {name}, expected exactly one")
    return float(matches[0][column]) if matches[0][column] else None
