"""Markdown that reads well raw and rendered: padded tables, and text from data that cannot become markup."""

import re
from collections.abc import Sequence

DASH = "–"
MAX_TEXT = 300  # characters of one string from data
_SPECIAL = re.compile(r"([\\`*|\[\]~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def escape(text: str) -> str:
    """Text from data as literal Markdown on one line: pipes, backticks, emphasis, links and HTML lose their meaning."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    if len(line) > MAX_TEXT:
        line = line[: MAX_TEXT - 1] + "…"
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(r"\\\1", line)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Lines of a table, columns padded to equal width; the first `left` columns are flush left, the others right.

    Cells are taken as they are: escape strings that come from data.
    """
    widths = [max(3, *(len(line[column]) for line in (header, *rows))) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return [line(header), f"| {' | '.join(rule)} |", *map(line, rows)]


def plain_value(value: object) -> str:
    """A leaf of a spec, escaped, as one writes it: `true`, `none`, 0.001, text, [0.9, 0.95]."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return f"({', '.join(map(plain_value, value))})"
    if isinstance(value, float):
        return f"{value:.6g}"
    return (
        escape(str(value))
        if isinstance(value, str)
        else f"{value:,}"
        if isinstance(value, int)
        else escape(repr(value))
    )


def spread(values: Sequence[float], form: str = "{:,.0f}") -> str:
    """One number when all values print alike, else the smallest and the largest; a dash for none."""
    printed = [form.format(value) for value in sorted(values)]
    if not printed:
        return DASH
    return printed[0] if printed[0] == printed[-1] else f"{printed[0]} to {printed[-1]}"
