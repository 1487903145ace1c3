"""Curves of a published table: taken from run folders, kept where those are gone, never beside another record."""

import json
from pathlib import Path

import pytest
from results_helpers import publication

from results.details import curves
from results.record import RecordError
from results.schema import Publication, RunRecord


def made() -> tuple[Publication, RunRecord]:
    held = publication({"LCL": [70.0]})
    (record,) = [each for each in held.records.values() if each.kind.value == "pretrain"]
    record = RunRecord(**{**record.__dict__, "metrics": {"probe_rankme": 12.5}})
    return Publication(**{**held.__dict__, "records": {record.run_id: record}}), record


def write(runs: Path, record: RunRecord, end: float) -> None:
    folder = runs / record.run_id
    folder.mkdir(parents=True)
    lines = [{"step": 0, "probe_rankme": 3.0, "lr": 1.0}, {"step": 5, "lr": 1.0}, {"step": 10, "probe_rankme": end}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_curves_are_exported_by_images_and_stay_when_the_runs_are_gone(tmp_path: Path) -> None:
    held, record = made()
    write(tmp_path / "runs", record, 12.5)
    curves.export(held, tmp_path / "runs", tmp_path)
    path = tmp_path / f"table1{curves.SUFFIX}"
    expected = {record.run_id: {"probe_rankme": [(0.0, 3.0), (float(record.images_seen), 12.5)]}}
    assert curves.load(path) == expected
    before = path.read_bytes()
    curves.export(held, tmp_path / "elsewhere", tmp_path)
    assert path.read_bytes() == before


def test_curves_that_do_not_end_at_the_record_are_left_out(tmp_path: Path) -> None:
    held, record = made()
    write(tmp_path / "runs", record, 13.0)
    curves.export(held, tmp_path / "runs", tmp_path)
    assert not (tmp_path / f"table1{curves.SUFFIX}").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n", "these are no curves"),
        ("run_id,images,metric,value\nr,1,m\n", "line 2: 'r,1,m' is no point"),
        ("run_id,images,metric,value\nr,1,m,nan\n", "line 2: 'r,1,m,nan' is not finite"),
    ],
)
def test_a_file_of_other_content_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x.curves.csv.gz"
    path.write_bytes(curves.packed(text))
    with pytest.raises(RecordError, match=said):
        curves.load(path)


def test_a_file_that_is_not_packed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.curves.csv.gz").write_text("run_id")
    with pytest.raises(RecordError, match="not gzipped"):
        curves.load(tmp_path / "x.curves.csv.gz")
