"""The HTML report: complete, self-contained, well-formed, and blind to markup that comes from data."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from results_helpers import TABLE, make_record, pretrain_spec, publication

from results import publish, report
from results.canonical import plain
from results.html.charts import Series, draw
from results.html.grid import Cell
from results.record import RecordError

VOID = {"meta", "link", "br", "img", "input", "hr"}
EVIL = "<script>alert(1)</script>\"'&"


class Page(HTMLParser):
    """Elements, and whether every one that is opened is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def values(self, name: str) -> list[str]:
        return [value for _, attrs in self.seen if (value := attrs.get(name)) is not None]


@pytest.fixture(scope="module")
def committed() -> str:
    return report.load(publish.ROOT / "records", "tiny").page()


def test_the_committed_records_make_a_well_formed_page_twice_the_same(committed: str) -> None:
    page = Page(committed)
    ids = page.values("id")
    assert len(set(ids)) == len(ids)
    assert {link[1:] for link in page.values("href") if link.startswith("#")} <= set(ids)
    assert report.load(publish.ROOT / "records", "tiny").page() == committed


def test_nothing_is_loaded_from_anywhere(committed: str) -> None:
    page = Page(committed)
    assert not [link for link in page.values("href") if not re.match(r"#|data:,$", link)]
    # Pictures of the samples are inside the page, and the page may show pictures from nowhere else.
    assert not [source for source in page.values("src") if not source.startswith("data:image/png;base64,")]
    assert "default-src 'none'" in committed
    outside = re.sub(r"<pre.*?</pre>", "", committed, flags=re.DOTALL)
    assert "http:" not in outside and "https:" not in outside and "url(" not in outside


def test_every_number_of_the_page_of_markdown_is_there_and_leads_to_its_record(committed: str) -> None:
    text = (publish.ROOT / "tables" / "table1.md").read_text()
    table = text.partition("## Measured here")[2].partition("\n## ")[0]
    for number in re.findall(r"\d+\.\d ± \d+\.\d", table):
        assert number in committed, number
    page = Page(committed)
    runs = {link[1:] for link in page.values("href") if link.startswith("#transfer-")}
    done = {r.run_id for r in publish.load(publish.ROOT / "records" / "table1.jsonl").records.values() if r.parent}
    assert done <= runs


def test_what_comes_from_data_stays_text(tmp_path: Path) -> None:
    table = replace(TABLE, rows=(replace(TABLE.rows[0], label=EVIL), *TABLE.rows[1:]), caption=EVIL)
    held = publication({"LCL": [70.0, 71.0]}, declared=plain(table))
    spec = pretrain_spec("lcl", 9)
    broken = make_record(spec, {}, env={"cpu": EVIL, "device": EVIL})
    records = {**held.records, broken.run_id: broken}
    slots = tuple(replace(slot, row=EVIL if slot.row == "CLIP" else slot.row, problem=EVIL) for slot in held.slots)
    publish.export(replace(held, records=records, slots=slots, warning=EVIL), tmp_path)
    made = report.load(tmp_path, "tiny").page()
    page = Page(made)
    assert [tag for tag, _ in page.seen].count("script") == 1
    assert EVIL not in made and "&lt;script&gt;alert(1)&lt;/script&gt;" in made


def test_an_empty_cell_says_why_and_a_full_one_names_its_seeds(tmp_path: Path) -> None:
    held = publication({"LCL": [70.0, 71.0], "Emu": ["loss is nan at step 3", None]}, declared=plain(TABLE))
    publish.export(held, tmp_path)
    made = report.load(tmp_path, "tiny").page()
    assert "failed: loss is nan at step 3; not run yet" in made and "70.5 ± 0.7" in made


def test_records_without_a_table_or_of_another_scale_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RecordError, match="no published table at scale 'tiny'"):
        report.load(tmp_path, "tiny").page()
    publish.export(publication({"LCL": [70.0]}), tmp_path)
    assert report.main(["--records", str(tmp_path), "--out", str(tmp_path / "x.html")]) == 2
    assert "table1 --collate" in capsys.readouterr().err and not (tmp_path / "x.html").exists()


def test_the_command_writes_one_file(tmp_path: Path) -> None:
    assert report.main(["--out", str(tmp_path / "report.html")]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_chart_keeps_its_points_inside_and_names_its_ticks() -> None:
    made = draw("t", "x", "y", [Series("a", ((0.0, 1.0, 0.0, 2.0), (10.0, 3.0, 2.0, 4.0)))])
    assert made is not None
    # x: 0 and 10 with 0.4 of room on either side over 564 of width from 64; y: 1 and 3 of -0.16 to 4.16, upside down.
    x, y = [64 + 564 * (v + 0.4) / 10.8 for v in (0, 10)], [256 - 242 * (v + 0.16) / 4.32 for v in (1, 3)]
    found = [float(number) for number in re.findall(r"[\d.]+", made.lines[0].line)]
    assert found == pytest.approx([x[0], y[0], x[1], y[1]], abs=0.06)
    assert [text for _, text in made.x_ticks] == ["0", "5", "10"]
    assert made.lines[0].dots[1][2] == "a: 3 at 10"
    assert draw("t", "x", "y", []) is None
    assert draw("t", "x", "y", [Series("a", ((0.0, 1.0, 1.0, 1.0),))], "log") is None


def test_a_chart_of_compute_has_decades() -> None:
    made = draw("t", "x", "y", [Series("a", ((1e12, 1.0, 1.0, 1.0), (1e13, 1.0, 1.0, 1.0)))], "log")
    assert made is not None and [text for _, text in made.x_ticks] == ["1e+12", "2e+12", "5e+12", "1e+13"]
    made = draw("t", "x", "y", [Series("a", ((0.0, 1.0, 1.0, 1.0), (30_000.0, 1.0, 1.0, 1.0)))])
    assert made is not None and made.x_ticks[-1][1] == "30,000"


def test_a_cell_sorts_by_its_number() -> None:
    assert Cell("70.0 ± 1.0", 70.0).sort == 70.0 and Cell("–").sort is None
