"""Several record files in one figure: what varies is found, lines keep their colours, bands reach over the seeds."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from results_helpers import TABLE, publication

from results import publish, report
from results.canonical import plain
from results.frame import Filled
from results.html.figures import BUDGET, budget_figure, setting_figure
from results.html.standalone import svg
from results.record import RecordError
from results.schema import Table

KEY = "data.toyworld_redundancy"


def filled(settings: Mapping[str, str], level: float = 50.0, table: Table = TABLE) -> Filled:
    held = publication({"LCL": [level, level + 2], "Emu": [level / 2]}, declared=plain(table), settings=dict(settings))
    return Filled(table, held)


def test_tables_under_several_values_of_a_setting_are_one_figure_with_a_line_a_row() -> None:
    made = setting_figure([filled({KEY: "0.9"}, 40.0), filled({KEY: "0"}, 60.0), filled({KEY: "0.5"}, 50.0)])
    assert made is not None and KEY in made.title
    (panel,) = made.panels
    lines = {line.label: line for line in panel.lines}
    assert set(lines) == {"LCL", "Emu"} and [line.label for line in made.legend] == ["Emu", "LCL"]
    assert [said for _, _, said in lines["LCL"].dots] == ["LCL: 61 at 0", "LCL: 51 at 0.5", "LCL: 41 at 0.9"]
    assert lines["LCL"].band != lines["LCL"].line  # of two seeds
    assert panel.x_label == KEY


def test_one_table_alone_is_no_comparison() -> None:
    assert setting_figure([filled({KEY: "0"})]) is None and budget_figure(filled({})) is None


def test_the_table_that_was_swept_without_the_setting_is_left_out_and_said() -> None:
    made = setting_figure([filled({}), filled({KEY: "0"}), filled({KEY: "0.5"})])
    assert made is not None and made.about.endswith(f"Not in it: the table that was swept without {KEY}.")
    assert [len(line.dots) for line in made.panels[0].lines if line.label == "LCL"] == [2]
    assert setting_figure([filled({}), filled({KEY: "0"})]) is None  # one value is no comparison


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ([{}, {}], "2 records of Table 1 differ in no setting"),
        ([{KEY: "0", "a": "1"}, {KEY: "1", "a": "2"}], f"differ in a, {KEY}; one figure needs exactly one"),
        ([{KEY: "0"}, {KEY: "1"}, {KEY: "0"}], f"{KEY}=0 is there twice"),
        ([{"c": "low"}, {"c": "high"}], "values of c are 'low', 'high', not all numbers"),
    ],
)
def test_what_is_no_series_is_refused_by_name(settings: list[dict[str, str]], said: str) -> None:
    with pytest.raises(RecordError, match=said):
        setting_figure([filled(each) for each in settings])


def test_budgets_of_a_method_are_one_line_and_a_method_without_numbers_keeps_its_colour() -> None:
    clip, _, lcl, random = TABLE.rows
    rows = tuple(
        replace(row, label=f"{row.label}, {n}", override={BUDGET: n}) for row in (clip, lcl) for n in (1000, 2000)
    )
    held = publication({"LCL": [50.0, 54.0], "Random encoder": [30.0]})
    slots = [
        replace(slot, row=f"LCL, {n}") for n in (1000, 2000) for slot in held.slots if slot.row == "LCL"
    ]  # equal scores: what is asked here is where they stand
    made = budget_figure(Filled(replace(TABLE, rows=(*rows, random)), replace(held, slots=tuple(slots))))
    assert made is not None
    ((line,),) = [panel.lines for panel in made.panels]
    assert (line.label, line.number) == ("LCL", 1)
    assert [said for _, _, said in line.dots] == ["LCL: 52 at 1,000", "LCL: 52 at 2,000"]


def test_one_command_draws_the_figure_of_several_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [tmp_path / value for value in ("0", "0.5", "0.9")]
    for folder in folders:
        publish.export(filled({KEY: folder.name}, 60 - 10 * float(folder.name)).publication, folder)
    out, drawn = tmp_path / "report.html", tmp_path / "figures"
    also = [part for folder in folders[1:] for part in ("--also", str(folder))]
    assert report.main(["--records", str(folders[0]), *also, "--out", str(out), "--figures", str(drawn)]) == 0
    assert capsys.readouterr().out.split() == [str(out), str(drawn / "table1-toyworld_redundancy.svg")]
    page = out.read_text()
    assert page.count('<figure class="panels">') == 1 and "Table 1 (data.toyworld_redundancy=0.5)" in page
    assert "LCL: 56 at 0.5" in page
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))
    assert report.main(["--records", str(folders[0]), "--also", str(tmp_path / "x"), "--out", str(out)]) == 2
    assert "there is no folder" in capsys.readouterr().err


def test_a_figure_of_its_own_holds_every_panel_and_line_and_what_it_says_is_text() -> None:
    made = setting_figure([filled({KEY: "0"}), filled({KEY: "0.5"})])
    assert made is not None
    panels = tuple(replace(made.panels[0], title=f"<b>{n}</b>") for n in range(3))
    legend = tuple(replace(line, label=f"{line.label} with a long name {n}") for n in range(8) for line in made.legend)
    root = ElementTree.fromstring(svg(replace(made, panels=panels, legend=legend)))
    space = "{http://www.w3.org/2000/svg}"
    texts = [each.text for each in root.iter(f"{space}text")]
    assert {"<b>0</b>", "<b>2</b>", "LCL with a long name 7", made.title} <= set(texts)
    assert len(root.findall(f"{space}g")) == 3 and len(root.findall(f".//{space}circle")) == 3 * 4
    width = float(root.attrib["width"])
    keys = [each for each in root.iter(f"{space}text") if each.text and "long name" in each.text]
    assert len(keys) == len(legend) and len({each.attrib["y"] for each in keys}) > 1  # a second line of the legend
    assert all(float(each.attrib["x"]) + 6 * len(each.text or "") < width for each in keys)


def test_without_several_settings_or_budgets_there_is_no_figure_and_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish.export(filled({}).publication, tmp_path)
    asked = ["--records", str(tmp_path), "--out", str(tmp_path / "report.html"), "--figures", str(tmp_path / "figures")]
    assert report.main(asked) == 0
    assert "no figures: no table varies its budget" in capsys.readouterr().err


def test_settings_survive_the_file_and_leave_no_trace_where_there_are_none(tmp_path: Path) -> None:
    path = publish.export(filled({KEY: "0.5"}).publication, tmp_path)
    assert publish.load(path).settings == {KEY: "0.5"}
    assert '"settings"' not in publish.export(filled({}).publication, tmp_path).read_text()
