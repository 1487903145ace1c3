r"""A table as LaTeX for a paper: measured numbers above, the paper's below, booktabs rules, nothing typed by hand.

Needs \usepackage{booktabs}. Text from data is escaped; equal records give equal bytes.
"""

from collections.abc import Sequence

from results.frame import Filled, mean_sd
from results.page.measured import leads, paper_lines
from results.page.settings import given, warning_of
from results.page.transfers import TITLES, by_mode
from results.schema import Column, Publication, Row, Table

_SPECIAL = {
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "λ": r"$\lambda$",
    },
    **{"–": "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$", "−": "$-$", "×": r"$\times$", "\n": " "},
}
DASH = "--"


def escape(text: str) -> str:
    """Text from data as literal LaTeX."""
    return "".join(_SPECIAL.get(character, character) for character in text)


def render_latex(table: Table, publication: Publication) -> str:
    """One tabular with all rows of the table; frozen and full transfer in parts of their own."""
    filled = Filled(table, publication)
    columns = filled.table.columns
    modes = by_mode(filled)
    head = [filled.table.title, warning_of(filled) or publication.scale, *filter(None, [given(publication)])]
    lines = [
        f"% {escape(': '.join(head))}; made from records",
        f"\\begin{{tabular}}{{ll{'r' * len(columns)}}}",
        r"\toprule",
        _line(["method", "data", *(column.title(filled.scale) for column in columns)]),
    ]
    for mode, part in modes.items():
        title = TITLES[mode] if len(modes) > 1 else "Measured here (mean $\\pm$ s.d. over seeds)"
        lines += [r"\midrule", f"\\multicolumn{{{len(columns) + 2}}}{{l}}{{\\emph{{{title}}}}} \\\\"]
        rows = [*part.methods, *(row for row in part.rows if row.control)]
        lines += [_row(part, row, columns) for row in rows]
    if printed := paper_lines(filled):
        said = r"\emph{In the paper (single runs)}"
        lines += [r"\midrule", f"\\multicolumn{{{len(columns) + 2}}}{{l}}{{{said}}} \\\\"]
        lines += [_line([each.row or each.line, "–", *each.shown]) for each in printed]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _row(filled: Filled, row: Row, columns: Sequence[Column]) -> str:
    data = DASH if row.objective is None else escape(filled.publication.data_label(row))
    cells = []
    for column in columns:
        if not column.asked_of(row):
            cells.append(DASH)
            continue
        values = filled.values(row, column)
        mean, sd = mean_sd(values) if values else (0.0, None)
        text = DASH if not values else f"{mean:.1f}" if sd is None else f"{mean:.1f} $\\pm$ {sd:.1f}"
        cells.append(f"\\textbf{{{text}}}" if leads(filled, row, column) else text)
    return f"{' & '.join([escape(row.label), data, *cells])} \\\\"


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(map(escape, cells))} \\\\"
