"""What a table says, in words: computed from its values alone, whatever its rows.

Which methods learn (exceed the untouched encoder), which do no better, who is in front, what becomes of the paper's
orderings, and how large a difference has to be before this table can tell. The rule of noise is in
results/statistics/noise.py.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import median

from results.frame import Filled, mean_sd
from results.page.markdown import escape
from results.page.measured import leads
from results.page.orderings import by_column
from results.page.words import columns_of, listed, times
from results.schema import BLIND, Column, Row
from results.statistics.noise import Standing, needed, quantile, standing
from results.statistics.ranking import PAPER_GAP

Standings = dict[str, Standing]  # by name of a column, columns without both values left out


def findings(filled: Filled) -> list[str]:
    """The first section of a page."""
    title = "## What was found"
    seeds = {len(filled.values(row, column)) for row in filled.rows for column in filled.table.columns} - {0}
    if not seeds:
        return [title, "", "Nothing was measured yet.", *_points(_missing(filled))]
    found = [
        *_learned(filled),
        *_blind(filled),
        *_front(filled),
        *_paper(filled),
        *_resolution(filled),
        *_missing(filled),
    ]
    if max(seeds) < 2:
        return [title, "", ONE_SEED, *_points(found)]
    return [title, *_points([*found, _rule(sorted(seeds - {1}))])]


ONE_SEED = (
    "**One seed a row: nothing here can be told from noise.** What follows is by sign alone and may turn round with "
    "another seed; a second one (`--seeds 2`) is the first that has a standard deviation, three are usual."
)


def _points(found: Sequence[str]) -> list[str]:
    return ["", *(f"- {each}" for each in found)] if found else []


def _rule(seeds: Sequence[int]) -> str:
    each = ", ".join(f"{quantile(n):.2f} for {n} seeds" for n in seeds)
    return (
        "**How sure:** all of this is computed from the numbers below. A difference counts when it exceeds "
        "t √(s₁²/n₁ + s₂²/n₂): s the s.d. over a "
        f"row's n seeds, t Student's 97.5 % point at the smaller n − 1 ({each}). That is one comparison at 95 %: with "
        "many on a page a few count by luck. All seeds share one test set."
    )


def _learned(filled: Filled) -> list[str]:
    """Every method against the untouched encoder."""
    reference = next((row for row in filled.rows if row.untouched), None)
    if reference is None:
        return ["No row of this table is an untouched encoder: nothing here says which methods learn."]
    found = {row.label: each for row in filled.methods if (each := _against(filled, row, reference))}
    if not found:
        return [f"No method can be compared with {escape(reference.label)}: nothing says yet which methods learn."]
    known = {row.label for row in filled.methods if _noise_known(filled, row, reference)}
    if not known:
        return _by_sign(filled, found, reference)
    alone = {label: each for label, each in found.items() if label not in known}
    found = {label: each for label, each in found.items() if label in known}
    name = f"the untouched encoder ({escape(reference.label)})"
    everywhere = [label for label, each in found.items() if set(each.values()) == {Standing.ABOVE}]
    partly = [label for label, each in found.items() if Standing.ABOVE in each.values() and label not in everywhere]
    nowhere = [label for label, each in found.items() if Standing.ABOVE not in each.values()]
    names = listed(map(escape, everywhere)) or "no method"
    points = [f"**Learned**, above {name} in every column: {names}."]
    points += [f"**Learned in part:** {_split(label, found[label])}." for label in partly]
    if nowhere:
        said = "; ".join(_split(label, found[label]) for label in nowhere)
        points.append(f"**No better than {name}** in any column: {said}.")
    return points + (_by_sign(filled, alone, reference) if alone else []) + _controls(filled, reference)


def _controls(filled: Filled, reference: Row) -> list[str]:
    """Controls with a trained encoder against the untouched one."""
    rows = [row for row in filled.rows if row.control and row is not reference and row.mode != BLIND]
    each = [_split(row.label, found) for row in rows if (found := _against(filled, row, reference))]
    return [f"Controls: {'; '.join(each)}."] if each else []


def _by_sign(filled: Filled, found: Mapping[str, Standings], reference: Row) -> list[str]:
    above: dict[str, int] = {}
    for row in (row for row in filled.methods if row.label in found):
        pairs = _measured_pairs(filled, row, reference)
        above[row.label] = sum((a - b) * (1 if column.higher_is_better else -1) > 0 for column, a, b in pairs)
    ordered = sorted(found, key=lambda label: (-above[label], -len(found[label])))
    each = ", ".join(f"{escape(label)} in {above[label]} of {columns_of(len(found[label]))}" for label in ordered)
    name = escape(reference.label)
    return [f"**Undecided**, with one seed. By sign alone above the untouched encoder ({name}): {each}."]


def _split(label: str, standings: Standings) -> str:
    """One method: where it is above, where below, and in how many columns it is undecided."""
    parts = []
    for standing_, word in ((Standing.ABOVE, "above"), (Standing.BELOW, "**below**")):
        titles = [title for title, each in standings.items() if each is standing_]
        if titles:
            shown = f" ({listed(titles)})" if len(titles) < len(standings) else ""
            parts.append(f"{word} in {len(titles)} of {columns_of(len(standings))}{shown}")
    undecided = sum(each is Standing.UNDECIDED for each in standings.values())
    if undecided:
        parts.append(f"undecided in {undecided}")
    return f"{escape(label)} {', '.join(parts)}"


def _blind(filled: Filled) -> list[str]:
    """Who captions better with its images than a language model without any."""
    points = []
    for reference in (row for row in filled.rows if row.mode == BLIND):
        rows = [row for row in filled.rows if row is not reference and _noise_known(filled, row, reference)]
        found = {row.label: each for row in rows if (each := _against(filled, row, reference))}
        better = [label for label, each in found.items() if set(each.values()) == {Standing.ABOVE}]
        others = "; ".join(_split(label, each) for label, each in found.items() if label not in better)
        if found:
            text = (
                f"**Better than captions without an image** ({escape(reference.label)}), wherever both are measured: "
            )
            text += listed(map(escape, better)) or "no row"
            points.append(f"{text}. Not so {others}." if others else f"{text}.")
    return points


def _front(filled: Filled) -> list[str]:
    """Who is in front in each column, and who cannot be told apart from the best mean."""
    first: Counter[str] = Counter()
    close: Counter[str] = Counter()
    measured = 0
    for column in filled.table.columns:
        values = {row.label: found for row in filled.methods if len(found := filled.values(row, column)) > 1}
        if len(values) < 2:
            continue
        measured += 1
        sign = 1 if column.higher_is_better else -1
        best = max(values, key=lambda label: sign * mean_sd(values[label])[0])
        close.update(
            label
            for label, each in values.items()
            if label == best or standing(each, values[best], column.higher_is_better) is not Standing.BELOW
        )
        first.update(row.label for row in filled.methods if leads(filled, row, column))
    if not measured:
        return []
    said = "no method leads a column beyond the noise"
    if first:
        said = f"ahead of every other method {_counted(first)} of {columns_of(measured)}"
    return [f"**In front:** {said}. Not told apart from the best mean: {_counted(close)} of {columns_of(measured)}."]


def _counted(counts: Counter[str]) -> str:
    return listed(f"{escape(label)} in {n}" for label, n in counts.most_common())


def _paper(filled: Filled) -> list[str]:
    """What the paper puts first, and what becomes of its orderings."""
    first: Counter[str] = Counter()
    ranked = 0
    for column in filled.table.columns:
        printed = {row.label: value for row in filled.methods if (value := filled.paper(row, column)) is not None}
        if len(printed) > 1:
            ranked += 1
            best = (max if column.higher_is_better else min)(printed.values())
            first.update(label for label, value in printed.items() if value == best)
    if not first:
        return []
    said = listed(f"{escape(label)} in {n}" for label, n in first.most_common())
    pairs = [pair for pairs in by_column(filled).values() for pair in pairs]
    text = f"**The paper** has {said} of {columns_of(ranked)} first (single runs)."
    if not pairs:
        return [f"{text} None of its orderings can be compared here yet."]
    text += f" Of its {times(len(pairs), 'ordering')} by {PAPER_GAP:g} points or more"
    if not any(resolved(filled, column) for column in filled.table.columns):
        return [f"{text}, {sum(pair.gap > 0 for pair in pairs)} come out by sign alone."]
    counts = Counter(pair.standing for pair in pairs)
    turned = Counter(
        f"{escape(pair.better)} over {escape(pair.worse)}" for pair in pairs if pair.standing is Standing.BELOW
    )
    which = listed(f"{names} in {n}" for names, n in turned.most_common())
    text += f": {counts[Standing.ABOVE]} come out, {counts[Standing.UNDECIDED]} undecided, "
    text += f"{counts[Standing.BELOW]} **reversed**"
    return [f"{text} ({which})." if turned else f"{text}."]


def _resolution(filled: Filled) -> list[str]:
    """How large a difference of two methods has to be."""
    smallest: dict[str, float] = {}
    for column in filled.table.columns:
        if wanted := resolved(filled, column):
            smallest[column.name(filled.scale)] = median(wanted)
    if not smallest:
        return []
    low, high = min(smallest, key=lambda key: smallest[key]), max(smallest, key=lambda key: smallest[key])
    ends = f"{smallest[low]:.1f} points ({low}) to {smallest[high]:.1f} ({high})"
    return [f"**Too small to tell** is a difference of two methods below {ends}, in the median pair of methods."]


def resolved(filled: Filled, column: Column) -> list[float]:
    """What the difference of two methods must exceed in a column, for every pair whose noise is known, in order."""
    rows = [values for row in filled.methods if (values := filled.values(row, column))]
    pairs = [(a, b) for number, a in enumerate(rows) for b in rows[number + 1 :]]
    return sorted(noise for a, b in pairs if (noise := needed(a, b)) is not None)


def _missing(filled: Filled) -> list[str]:
    """Methods without a single value, and those that lack some."""
    absent, short = [], []
    for row in filled.methods:
        cells = [filled.cells[row.label, column.key] for column in filled.table.columns]
        empty = sum(not cell.values for cell in cells)
        if empty == len(cells):
            reasons = dict.fromkeys(reason for cell in cells for reason in cell.missing)
            absent.append(f"{escape(row.label)} ({'; '.join(map(escape, reasons))})")
        elif empty or any(cell.missing for cell in cells):
            few = sum(bool(cell.missing) for cell in cells)
            short.append(f"{escape(row.label)} in {few} of {columns_of(len(cells))}")
    points = [f"**Not in any of this:** {'; '.join(absent)}."] if absent else []
    return points + ([f"**Seeds missing:** {listed(short)}; the notes below the table say why."] if short else [])


def _against(filled: Filled, row: Row, reference: Row) -> Standings:
    return {
        column.name(filled.scale): standing(
            filled.values(row, column), filled.values(reference, column), column.higher_is_better
        )
        for column, _, _ in _measured_pairs(filled, row, reference)
    }


def _measured_pairs(filled: Filled, row: Row, reference: Row) -> list[tuple[Column, float, float]]:
    """Columns in which both rows have a value, with their means."""
    found = [(column, filled.values(row, column), filled.values(reference, column)) for column in filled.table.columns]
    return [(column, mean_sd(a)[0], mean_sd(b)[0]) for column, a, b in found if a and b]


def _noise_known(filled: Filled, row: Row, reference: Row) -> bool:
    pairs = [(filled.values(row, column), filled.values(reference, column)) for column in filled.table.columns]
    return any(needed(a, b) is not None for a, b in pairs)
