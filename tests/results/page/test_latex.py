"""A table in LaTeX: what it shows, and text from data that cannot become a command."""

from dataclasses import replace

from results_helpers import TABLE, publication

from results.page.latex import escape, render_latex


def test_text_from_data_is_no_command() -> None:
    assert escape(r"\input{x} 50 % & a_b ~ ^ # $ λ ± –") == (
        r"\textbackslash{}input\{x\} 50 \% \& a\_b \textasciitilde{} \textasciicircum{} \# \$ $\lambda$ $\pm$ --"
    )
    assert escape("a\n\\end") == r"a \textbackslash{}end"


def test_rows_columns_and_the_papers_lines_are_there() -> None:
    text = render_latex(TABLE, publication({"CLIP": [80.0, 82.0], "LCL": [70.0, 70.5], "Random encoder": [44.0, 44.1]}))
    lines = text.splitlines()
    assert r"LCL & mmc4 & 70.2 $\pm$ 0.4 \\" in lines and r"Emu & mmc4 & -- \\" in lines
    assert r"Random encoder & -- & 44.0 $\pm$ 0.1 \\" in lines
    assert lines.index(r"\multicolumn{3}{l}{\emph{In the paper (single runs)}} \\") < lines.index(r"LCL & -- & 75.2 \\")
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]


def test_every_line_has_as_many_cells_as_the_tabular_has_columns() -> None:
    table = replace(
        TABLE, columns=(*TABLE.columns, replace(TABLE.columns[0], key="coco_tr1", label="A & B", analogue={}))
    )
    lines = render_latex(table, publication({"LCL": [70.0]})).splitlines()
    cells = [line.replace(r"\&", "").count("&") for line in lines if "&" in line]
    assert set(cells) == {3}
