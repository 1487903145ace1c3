"""What each column measures, how finely it can tell, and how the paper's orderings fare in it."""

import math
from collections import Counter

from results.frame import Filled, mean_sd
from results.page.findings import resolved
from results.page.markdown import DASH, spread
from results.page.markdown import table as markdown_table
from results.page.orderings import by_column
from results.schema import Column, Kind
from results.statistics.noise import Standing


def columns(filled: Filled) -> list[str]:
    """One line for every column, those included that stand in no table of the paper."""
    orderings = by_column(filled)
    lines = []
    for column in filled.columns:
        analogue = column.analogue.get(filled.scale)
        items = sorted({count for row in filled.rows for count in _items(filled, row.label, column)})
        noise = resolved(filled, column)
        fates = Counter(each.standing for each in orderings.get(column.key, ()))
        lines.append(
            [
                column.title(filled.scale),
                analogue.meaning if analogue else column.meaning,
                DASH if column.key not in orderings else column.label if analogue else "itself",
                spread(items),
                _half_width(filled, column, min(items)) if column.share_of_items and items else DASH,
                spread(noise, "{:.1f}"),
                *(str(fates[each]) if column.key in orderings else DASH for each in _FATES),
            ]
        )
    header = ["column", "measures", "in the paper", "test items", "test set alone", "two methods differ from"]
    several = any(column.task == Kind.DIALOGUE for column in filled.columns)
    about = (
        "*Test set alone*: 95 % half-width of one value"
        + (", if questions about one image were independent," if several else ", at most,")
        + " by the finite test set that all seeds share (binomial, at the value nearest 50, "
        + ("questions" if several else "images")
        + " as items). *Two methods differ from*: what counts as a "
        "difference, over all pairs. Then the fate of the paper's orderings."
    )
    table = markdown_table([*header, "come out", "undecided", "reversed"], lines, left=3)
    return ["## Column by column", "", about, "", *table]


_FATES = (Standing.ABOVE, Standing.UNDECIDED, Standing.BELOW)


def _items(filled: Filled, label: str, column: Column) -> set[int]:
    rows = [row for row in filled.rows if row.label == label]
    records = [seed.record for row in rows for seed in filled.seeds(row, column) if seed.value is not None]
    return {record.items[column.dataset] for record in records if record and column.dataset in record.items}


def _half_width(filled: Filled, column: Column, items: int) -> str:
    """95 % half-width, in points, of the value nearest 50 as a share of that many independent items."""
    means = [mean_sd(values)[0] for row in filled.rows if (values := filled.values(row, column))]
    nearest = min(means, key=lambda value: abs(value - 50)) / 100
    return f"± {196 * math.sqrt(max(0.0, nearest * (1 - nearest)) / items):.1f}"
