"""The committed form of a table: it holds what the table needs, and the table can be made from it alone."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from results_helpers import TABLE, make_record, pretrain_spec, publication

from results import publish
from results.page.printed import render
from results.record import RecordError
from results.schema import SCHEMA_VERSION

SCORES = {"CLIP": [80.0, None], "LCL": [70.0, "out of memory"], "Random encoder": [40.0, 41.0]}


def test_a_published_file_renders_to_the_same_page(tmp_path: Path) -> None:
    made = publication(SCORES)
    made = replace(made, references={"CLIP": {"pretrain": pretrain_spec("clip", 0, images=5)}})
    back = publish.load(publish.export(made, tmp_path))
    assert back == made and render(TABLE, back) == render(TABLE, made)


def test_only_records_that_a_slot_names_are_published_and_each_once(tmp_path: Path) -> None:
    made = publication(SCORES)
    stranger = make_record(pretrain_spec("emu", 9), {})
    path = publish.export(
        replace(made, records={stranger.run_id: stranger, **made.records}, slots=made.slots * 2), tmp_path
    )
    ids = [json.loads(line)["run_id"] for line in path.read_text().splitlines()[1:]]
    assert stranger.run_id not in ids and ids == sorted(set(ids)) == sorted(made.records)


def test_publishing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    made = publication(SCORES)
    first = publish.export(made, tmp_path).read_bytes()
    assert publish.export(replace(made, records=dict(reversed(made.records.items()))), tmp_path).read_bytes() == first


def test_collate_writes_every_form_under_the_name_of_table_and_scale(tmp_path: Path) -> None:
    made = publication(SCORES)
    paths = publish.collate(TABLE, made, tmp_path)
    assert [path.name for path in paths] == ["table1.md", "table1.csv", "table1.long.csv", "table1.tex"]
    assert paths[0].read_text() == render(TABLE, made)


def test_a_file_written_before_a_field_was_added_is_still_read(tmp_path: Path) -> None:
    made = replace(publication(SCORES), own_data=("CLIP",), stated={"pretrain": ("images",)})
    path = publish.export(made, tmp_path)
    assert publish.load(path) == made
    header, *records = path.read_text().splitlines()
    older = {key: value for key, value in json.loads(header).items() if key not in ("own_data", "stated")}
    path.write_text("\n".join([json.dumps(older), *records]) + "\n")
    assert publish.load(path) == replace(made, own_data=(), stated={})


def test_a_publication_of_another_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'table2' given for 'table1'"):
        publish.collate(TABLE, publication(SCORES, table="table2"), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("line", "text", "named"),
    [
        (0, "{}", "line 1: keys"),
        (0, json.dumps({"schema_version": SCHEMA_VERSION + 1}), "line 1: schema version"),
        (1, '{"run_id": 1}', "line 2: missing"),
        (2, "{", "line 3: not JSON"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: int, text: str, named: str) -> None:
    path = publish.export(publication(SCORES), tmp_path)
    lines = path.read_text().splitlines()
    lines[line] = text
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(RecordError, match=named):
        publish.load(path)


def test_an_empty_file_is_no_publication(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").touch()
    with pytest.raises(RecordError, match="line 1"):
        publish.load(tmp_path / "x.jsonl")
