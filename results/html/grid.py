"""A table of the report: its caption, header and cells."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A cell of a table: what it says, the number it sorts by, and the runs behind it."""

    text: str
    sort: float | None = None
    runs: tuple[tuple[str, str], ...] = ()  # label of the link and run_id
    note: str = ""
    strong: bool = False


@dataclass(frozen=True)
class Grid:
    """A table with its caption."""

    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
