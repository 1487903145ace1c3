"""Counting and listing in English."""

from collections.abc import Iterable


def listed(items: Iterable[str]) -> str:
    """ "a", "a and b", "a, b and c"; empty for nothing."""
    *most, last = [*items] or [""]
    return f"{', '.join(most)} and {last}" if most else last


def times(count: int, word: str) -> str:
    """ "1 pair", "2 pairs"."""
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def columns_of(count: int) -> str:
    """ "1 column", "9 columns"."""
    return times(count, "column")
