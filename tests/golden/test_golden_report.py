"""Committed records render to the committed table byte for byte. Both are made by tests/golden/report/make.py."""

from pathlib import Path

import pytest
from plan_helpers import PAPERS_TABLE1 as TABLE1

from results import report
from results.publish import collate, export, load

FOLDER = Path(__file__).parent / "report"


@pytest.mark.parametrize("suffix", ["md", "csv", "long.csv", "tex"])
def test_the_committed_records_render_to_the_committed_table(tmp_path: Path, suffix: str) -> None:
    collate(TABLE1, load(FOLDER / "table1.jsonl"), tmp_path)
    name = f"table1.{suffix}"
    assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_the_committed_records_render_to_the_committed_report() -> None:
    """Scorecard, tables, charts, what was said of pictures, records; the file was looked at in a browser."""
    assert report.load(FOLDER, "tiny").page() == (FOLDER / "table1.html").read_text(encoding="utf-8")


def test_the_committed_records_survive_a_round_trip(tmp_path: Path) -> None:
    path = export(load(FOLDER / "table1.jsonl"), tmp_path)
    assert path.read_bytes() == (FOLDER / "table1.jsonl").read_bytes()
