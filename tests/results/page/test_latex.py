"""A table in LaTeX: what it shows, and text from data that cannot become a command."""

from dataclasses import replace

import pytest
from results_helpers import TABLE, publication

from experiments.tables import TABLES
from results.page.latex import escape, render_latex
from results.page.printed import render, render_csv, render_long
from results.schema import Publication, Table


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


def test_a_column_of_one_mode_is_a_dash_in_the_rows_of_the_other() -> None:
    full = replace(TABLE.columns[0], key="coco_tr1", label="full", analogue={}, mode="full")
    lines = render_latex(replace(TABLE, columns=(*TABLE.columns, full)), publication({"LCL": [70.0]})).splitlines()
    assert r"LCL & mmc4 & 70.0 & -- \\" in lines or r"LCL & mmc4 & \textbf{70.0} & -- \\" in lines


@pytest.mark.parametrize("table", [each for each in TABLES.values()], ids=lambda table: table.name)
def test_every_declared_table_prints_without_a_record(table: Table) -> None:
    empty = Publication(table=table.name, scale="tiny", warning="TINY", slots=(), records={})
    for show in (render, render_latex, render_csv, render_long):
        assert show(table, empty)


def test_what_a_table_was_swept_with_stands_in_every_form() -> None:
    made = replace(publication({"LCL": [70.0]}), settings={"data.toyworld_redundancy": "0.5"})
    assert "**Swept with** data.toyworld_redundancy=0.5." in render(TABLE, made).replace("\\", "")
    assert r"data.toyworld\_redundancy=0.5" in render_latex(TABLE, made).splitlines()[0]
