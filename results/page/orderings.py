"""The paper's orderings of two rows, asked of the measured numbers."""

from collections import defaultdict
from collections.abc import Sequence

from results.frame import Filled
from results.page.markdown import escape
from results.page.words import columns_of, listed
from results.statistics.noise import Standing
from results.statistics.ranking import PAPER_GAP, Ordering, Ranked
from results.statistics.ranking import orderings as rank


def by_column(filled: Filled) -> dict[str, list[Ordering]]:
    """Orderings of the paper among measured methods, by key of a column of the paper's table."""
    found = {}
    for column in filled.table.columns:
        ranked = [Ranked(row.label, filled.values(row, column), filled.paper(row, column)) for row in filled.methods]
        found[column.key] = rank(ranked, column.higher_is_better)
    return found


def orderings(filled: Filled) -> list[str]:
    """Which of the paper's orderings are reversed and which are undecided, by pair."""
    found = by_column(filled)
    if not any(found.values()):
        return []
    pairs: dict[Standing, dict[tuple[str, str], list[Ordering]]] = {each: defaultdict(list) for each in Standing}
    for each in (each for some in found.values() for each in some):
        pairs[each.standing][each.better, each.worse].append(each)
    about = (
        f"Two methods measured here that the paper separates by {PAPER_GAP:g} points or more in a column, the paper's "
        "order first. It prints single runs: smaller gaps of its own rank nothing. Counted by column above."
    )
    reversed_ = [f"- reversed: {_pair(*names, some)}" for names, some in pairs[Standing.BELOW].items()]
    open_ = [f"{escape(a)} over {escape(b)} ({len(some)})" for (a, b), some in pairs[Standing.UNDECIDED].items()]
    lines = [*reversed_, *([f"- undecided, in how many columns: {listed(open_)}"] if open_ else [])]
    return ["## Orderings of the paper", "", about, "", *(lines or ["- all of them come out"])]


def _pair(better: str, worse: str, found: Sequence[Ordering]) -> str:
    theirs, ours = [each.paper_gap for each in found], [each.gap for each in found]
    gaps = f"{_range(theirs)} in the paper, {_range(ours)} here"
    return f"{escape(better)} over {escape(worse)} in {columns_of(len(found))} ({gaps})"


def _range(gaps: Sequence[float]) -> str:
    low, high = f"{min(gaps):+.1f}", f"{max(gaps):+.1f}"
    return low if low == high else f"{low} to {high}"
