"""Publication -> Markdown and CSV. Equal records give equal bytes: no dates, no timings, nothing typed by hand.

The page opens with what was found and how sure that is; measured numbers and the paper's stand in tables of their own;
a cell without a number says why. Its sections are results/page/.
"""

import csv
import io

from results.frame import Filled, long_frame, mean_sd
from results.page.columns import columns
from results.page.findings import findings
from results.page.markdown import escape
from results.page.measured import deltas, measured, paper
from results.page.orderings import orderings
from results.page.pretraining import pretraining
from results.page.settings import given, recipe, warning_of
from results.page.shuffled import shuffled
from results.page.sources import sources
from results.page.transfers import TITLES, by_mode, transfers
from results.schema import Publication, Table

CSV_COLUMNS = (
    *("table", "scale", "row", "control", "column", "dataset", "metric"),
    *("mean", "sd", "n", "missing", "paper", "run_ids"),  # sd: over seeds, ddof 1
)


def render(table: Table, publication: Publication) -> str:
    """The whole page of one table."""
    filled = Filled(table, publication)
    warning, head = warning_of(filled), _head(filled)
    modes = by_mode(filled)
    if len(modes) == 1:
        parts = [
            head,
            findings(filled),
            measured(filled),
            paper(filled),
            [] if warning else deltas(filled),
            columns(filled),
            orderings(filled),
        ]
    else:  # nothing is compared across them: neither words nor bold nor noise
        parts = [head]
        for mode, part in modes.items():
            parts += [[f"# {TITLES[mode]}"], findings(part), measured(part), [] if warning else deltas(part)]
            parts += [columns(part), orderings(part)]
        parts += [["# Both"], paper(filled)]
    parts += [
        shuffled(filled),
        transfers(filled),
        pretraining(next(iter(modes.values()))),  # rows of another mode have the same encoders
        recipe(filled),
        sources(filled),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def render_csv(table: Table, publication: Publication) -> str:
    """One line per cell: mean, s.d., n, what is missing, the paper's value in a column of its own, the runs."""
    filled = Filled(table, publication)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in filled.rows:
        for column in filled.columns:
            cell, printed = filled.cells[row.label, column.key], filled.paper(row, column)
            mean, sd = mean_sd(cell.values) if cell.values else (None, None)
            writer.writerow(
                [table.name, publication.scale, row.label, int(row.control), column.key, column.dataset, column.metric]
                + ["" if number is None else f"{number:.6g}" for number in (mean, sd)]
                + [len(cell.values), "; ".join(dict.fromkeys(cell.missing)), "" if printed is None else printed]
                + [" ".join(cell.run_ids)]
            )
    return text.getvalue()


def render_long(table: Table, publication: Publication) -> str:
    """One line per seed and cell, the columns of `results.frame.LONG_COLUMNS`."""
    frame = long_frame(Filled(table, publication))
    return str(frame.to_csv(index=False, lineterminator="\n", float_format="%.6g"))


def _head(filled: Filled) -> list[str]:
    table, warning, settings = filled.table, warning_of(filled), given(filled.publication)
    title = f"# {table.title}: {warning}" if warning else f"# {table.title}"
    note = " **Read the orderings, not the levels**: what differs from the paper is listed below." if warning else ""
    under = ["", f"**Swept with** {escape(settings)}."] if settings else []
    return [title, "", f"{table.caption}{note}", *under]
