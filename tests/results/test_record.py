"""Records are whole or not there, read strictly, and name what is wrong with them."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from results_helpers import make_record, pretrain_spec

from results import record
from results.canonical import canonical_json, flatten, plain, run_id, spec_hash
from results.record import RecordError
from results.schema import SCHEMA_VERSION, RunRecord, Status


@pytest.fixture
def done() -> RunRecord:
    return make_record(pretrain_spec("lcl", 0), {"rankme": 1.0})


def rewrite(path: Path, **changes: object) -> None:
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | changes))


def test_a_written_record_reads_back_equal(tmp_path: Path, done: RunRecord) -> None:
    assert record.read(record.write(done, tmp_path / "run")) == done


def test_items_lie_beside_the_record_and_are_there_before_it(
    tmp_path: Path, done: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    real = record.write_atomic
    monkeypatch.setattr(record, "write_atomic", lambda path, text: (order.append(path.name), real(path, text)))
    items = [{"item_id": "a", "score": 1.0}, {"item_id": "b", "score": 0.5}]
    record.write(done, tmp_path, items)
    assert order == ["items.jsonl", "record.json"]
    assert record.read_lines(tmp_path / "items.jsonl") == items


def test_a_crash_while_writing_leaves_the_old_record_and_no_litter(
    tmp_path: Path, done: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.write(done, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        record.write(replace(done, seconds=99.0), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]
    assert record.read(tmp_path / "record.json") == done


def test_the_name_appears_only_after_the_content_is_on_disk(
    tmp_path: Path, done: RunRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    real_sync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), real_sync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("rename"), real_replace(a, b)))
    record.write(done, tmp_path)
    assert events == ["sync", "rename", "sync"]  # file, name, folder


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"surprise": 1}, "unknown surprise"),
        ({"seed": True}, "seed is True, expected a whole number >= 0"),
        ({"seed": -1}, "seed is -1"),
        ({"metrics": {"a": "high"}}, "metrics is"),
        ({"metrics": {"a": True}}, "metrics is"),
        ({"status": "finished"}, "expected one of done, failed, blocked, missing, unavailable"),
        ({"dirty": 0}, "expected true or false"),
        ({"parent": 3}, "expected text or null"),
        ({"spec": []}, "expected an object"),
        ({"coverage": {"images": 1.5}}, "coverage is"),
    ],
)
def test_a_wrong_field_is_named_with_the_file(
    tmp_path: Path, done: RunRecord, changes: dict[str, object], named: str
) -> None:
    path = record.write(done, tmp_path)
    rewrite(path, **changes)
    with pytest.raises(RecordError) as caught:
        record.read(path)
    assert str(path) in str(caught.value) and named in str(caught.value)


def test_all_wrong_fields_are_named_at_once(tmp_path: Path, done: RunRecord) -> None:
    path = record.write(done, tmp_path)
    found = json.loads(path.read_text())
    del found["commit"], found["env"]
    path.write_text(json.dumps(found | {"extra": 1}))
    with pytest.raises(RecordError, match=r"missing commit; missing env; unknown extra"):
        record.read(path)


def test_a_record_of_the_future_is_refused_before_its_fields_are_judged(tmp_path: Path, done: RunRecord) -> None:
    path = record.write(done, tmp_path)
    rewrite(path, schema_version=SCHEMA_VERSION + 1, new_field=1)
    with pytest.raises(RecordError, match=f"schema version {SCHEMA_VERSION + 1}.*update the suite"):
        record.read(path)


def test_a_spec_edited_after_the_run_is_found(tmp_path: Path, done: RunRecord) -> None:
    path = record.write(done, tmp_path)
    rewrite(path, spec={**done.spec, "images": 999})
    with pytest.raises(RecordError, match="edited after the run"):
        record.read(path)


@pytest.mark.parametrize("status", list(Status))
def test_a_reason_belongs_to_every_status_but_done(tmp_path: Path, done: RunRecord, status: Status) -> None:
    reason = "" if status is Status.DONE else "no Java"
    record.write(replace(done, status=status, reason=reason), tmp_path)
    with pytest.raises(RecordError, match="with reason"):
        record.write(replace(done, status=status, reason="" if reason else "why?"), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_never_written(tmp_path: Path, done: RunRecord, value: float) -> None:
    with pytest.raises(RecordError, match=r"record\.metrics\.rankme is (nan|inf)"):
        record.write(replace(done, metrics={"rankme": value}), tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": NaN}', "\xff", "[" * 100_000])
def test_what_is_no_json_object_is_a_record_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(RecordError, match="record.json"):
        record.read(path)


def test_load_all_lists_bad_runs_and_keeps_the_others(tmp_path: Path, done: RunRecord) -> None:
    good = [make_record(pretrain_spec("lcl", seed), {}) for seed in (1, 0)]
    for each in good:
        record.write(each, tmp_path / each.run_id)
    record.write(done, tmp_path / "renamed-folder")
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "record.json").write_text('{"run_id": "ha')
    (tmp_path / "in-progress").mkdir()
    (tmp_path / "in-progress" / ".record.json.abc.tmp").write_text("{}")
    records, problems = record.load_all(tmp_path)
    assert [each.run_id for each in records] == sorted(each.run_id for each in good)
    assert [problem.path.parent.name for problem in problems] == ["half", "renamed-folder"]
    assert "not JSON" in problems[0].message and "but the folder is" in problems[1].message


def test_there_are_no_runs_in_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert record.load_all(tmp_path / "none") == ([], [])


def test_a_line_cut_by_a_crash_is_left_out_and_a_broken_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert record.read_lines(path) == [{"step": 1}, {"step": 2}]
    path.write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(RecordError, match="line 2"):
        record.read_lines(path)


def test_the_hash_depends_on_content_and_not_on_order_or_container() -> None:
    a = {"lr": 0.1, "betas": (0.9, 0.95), "inner": {"x": 1, "y": None}}
    b = {"inner": {"y": None, "x": 1}, "betas": [0.9, 0.95], "lr": 0.1}
    assert spec_hash(a) == spec_hash(b)
    assert len({spec_hash(a), spec_hash({**a, "lr": 0.2}), spec_hash({**a, "new": None})}) == 3


def test_the_hash_is_the_same_on_every_machine() -> None:
    assert run_id("pretrain", "LCL on MMC4/s0", {"lr": 0.1, "name": "é"}) == "pretrain-lcl-on-mmc4-s0-3437e1141de0"


def test_the_canonical_text_holds_only_json() -> None:
    assert canonical_json({"b": (1, 2.5), "a": Status.DONE}) == '{"a":"done","b":[1,2.5]}'
    for value, named in (({"p": Path("x")}, "value.p"), ({1: 2}, "the key 1"), ([float("nan")], r"value\[0\]")):
        with pytest.raises(ValueError, match=named):
            plain(value)


def test_flatten_names_every_leaf_once() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
