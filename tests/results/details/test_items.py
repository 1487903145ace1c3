"""Scores of single items: what is published agrees with its records, and is never replaced by less."""

import gzip
import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from results_helpers import ACC, TABLE, publication

from results import publish
from results.details import items
from results.record import RecordError
from results.schema import Kind, Publication, Table

COMMITTED = sorted((publish.ROOT / "records").glob(f"*{items.SUFFIX}"))
SCORES = {"CLIP": [50.0, 75.0], "LCL": [25.0, None]}


def transfers(made: Publication) -> dict[tuple[str, int], str]:
    """Finished transfer runs by row and seed."""
    done = {key for key, record in made.records.items() if record.kind is Kind.TRANSFER}
    return {(slot.row, slot.seed): slot.run_id for slot in made.slots if slot.run_id in done}


def write(runs: Path, run_id: str, hits: Sequence[float], **more: object) -> None:
    """Item scores of a run in its folder."""
    lines = [
        {"dataset": "imagenet", "group_id": f"g{i}", "item_id": f"i,{i}", "acc1": hit, "acc5": 100.0, **more}
        for i, hit in enumerate(hits)
    ]
    (runs / run_id).mkdir(parents=True, exist_ok=True)
    (runs / run_id / "items.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture
def made(tmp_path: Path) -> Publication:
    """A publication whose three runs have item scores in tmp_path/runs."""
    made = publication(SCORES)
    runs = transfers(made)
    write(tmp_path / "runs", runs["CLIP", 0], [100.0, 0.0, 100.0, 0.0])
    write(tmp_path / "runs", runs["CLIP", 1], [100.0, 100.0, 100.0, 0.0])
    write(tmp_path / "runs", runs["LCL", 0], [0.0, 0.0, 0.0, 100.0])
    return made


def test_pandas_reads_it_with_a_column_for_every_run_and_no_score_of_another_column(
    tmp_path: Path, made: Publication
) -> None:
    assert items.export(TABLE, made, tmp_path / "runs", tmp_path) == []
    frame = pd.read_csv(tmp_path / f"table1{items.SUFFIX}", index_col=list(items.KEY))
    assert set(frame.columns) == set(transfers(made).values())
    assert set(frame.index.get_level_values("score")) == {"acc1"} and len(frame) == 4
    a, b = (frame[transfers(made)[row, 0]] for row in ("CLIP", "LCL"))
    assert (a - b).loc["imagenet", "acc1"].to_dict() == {
        ("g0", "i,0"): 100, ("g1", "i,1"): 0, ("g2", "i,2"): 100, ("g3", "i,3"): -100,
    }  # fmt: skip


def test_lists_of_counts_become_numbered_scores(tmp_path: Path, made: Publication) -> None:
    table = replace(TABLE, columns=(replace(ACC, item_scores=("counts",)),))
    write(tmp_path / "runs", transfers(made)["LCL", 0], [0.0], counts=[3, 2])
    items.export(table, made, tmp_path / "runs", tmp_path)
    found = items.load(tmp_path / f"table1{items.SUFFIX}")
    assert found == {
        transfers(made)["LCL", 0]: {
            ("imagenet", "counts_1", "g0", "i,0"): "3",
            ("imagenet", "counts_2", "g0", "i,0"): "2",
        }
    }


def test_what_is_published_stays_where_this_machine_has_nothing(tmp_path: Path, made: Publication) -> None:
    path = tmp_path / f"table1{items.SUFFIX}"
    items.export(TABLE, made, tmp_path / "runs", tmp_path)
    before = items.load(path)
    other = transfers(made)["CLIP", 1]
    (tmp_path / "runs" / other / "items.jsonl").unlink()
    assert items.export(TABLE, made, tmp_path / "runs", tmp_path) == [] and items.load(path) == before
    assert items.export(TABLE, made, tmp_path / "nothing", tmp_path) == [] and items.load(path) == before


def test_scores_that_are_not_the_records_are_not_published(tmp_path: Path, made: Publication) -> None:
    """A run that was done again elsewhere leaves other scores: they do not stand beside a record they do not give."""
    items.export(TABLE, made, tmp_path / "runs", tmp_path)
    before = items.load(tmp_path / f"table1{items.SUFFIX}")
    mine = transfers(made)["CLIP", 0]
    write(tmp_path / "runs", mine, [0.0, 0.0, 100.0, 0.0])
    assert items.export(TABLE, made, tmp_path / "runs", tmp_path) == []
    assert items.load(tmp_path / f"table1{items.SUFFIX}") == before  # of two, those of the record
    again = replace(made.records[mine], metrics={"imagenet/acc1": 25.0})
    changed = replace(made, records={**made.records, mine: again})
    items.export(TABLE, changed, tmp_path / "runs", tmp_path)
    assert sorted(items.load(tmp_path / f"table1{items.SUFFIX}")[mine].values()) == ["0", "0", "0", "100"]
    neither = replace(made, records={**made.records, mine: replace(again, metrics={"imagenet/acc1": 99.0})})
    assert items.export(TABLE, neither, tmp_path / "runs", tmp_path) == [mine]
    assert mine not in items.load(tmp_path / f"table1{items.SUFFIX}")


def test_equal_scores_give_equal_bytes_and_leave_the_file_alone(tmp_path: Path, made: Publication) -> None:
    path = tmp_path / f"table1{items.SUFFIX}"
    items.export(TABLE, made, tmp_path / "runs", tmp_path)
    first = path.read_bytes()
    assert first[4:8] == bytes(4)  # gzip's place for the time
    lines = gzip.decompress(first).decode().splitlines()[1:]
    assert lines == sorted(lines)
    items.export(TABLE, made, tmp_path / "runs", tmp_path / "again")
    assert (tmp_path / "again" / path.name).read_bytes() == first
    path.write_bytes(gzip.compress(gzip.decompress(first), 1, mtime=7))  # as another version of zlib would
    other = path.read_bytes()
    items.export(TABLE, made, tmp_path / "runs", tmp_path)
    assert path.read_bytes() == other != first


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"not gzip", "not gzipped text"),
        (gzip.compress(b"dataset,score\n", mtime=0), "columns dataset, score; expected dataset, score, group_id"),
        (gzip.compress(b"dataset,score,group_id,item_id,run\na,b,c,d\n", mtime=0), "line 2: 4 fields, expected 5"),
        (
            gzip.compress(b"dataset,score,group_id,item_id,run\na,b,c,d,nan\n", mtime=0),
            "line 2: 'nan' is no finite number",
        ),
        (gzip.compress(b"dataset,score,group_id,item_id,run\na,b,c,d,x\n", mtime=0), "line 2: 'x' is no finite number"),
    ],
)
def test_a_file_that_is_none_is_refused_by_name(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / f"table1{items.SUFFIX}"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=named):
        items.load(path)


def test_an_item_without_a_number_is_refused(tmp_path: Path, made: Publication) -> None:
    write(tmp_path / "runs", transfers(made)["CLIP", 0], ["100"])  # type: ignore[list-item]
    with pytest.raises(RecordError, match="acc1 of 'i,0' is '100', expected a number"):
        items.export(TABLE, made, tmp_path / "runs", tmp_path)


def bleu4(scores: dict[str, float]) -> float:
    """BLEU-4 x100 from summed counts."""
    precision = [scores[f"bleu_correct_{n}"] / scores[f"bleu_guess_{n}"] for n in (1, 2, 3, 4)]
    brevity = min(1.0, math.exp(1 - scores["bleu_reference"] / scores["bleu_length"]))
    return 100 * brevity * math.prod(precision) ** 0.25


def f1_of_pope(scores: dict[str, float]) -> float:
    """The mean over its three files, x100, from counts summed file by file."""
    counted = [[scores[f"pope_{name}_{file}"] for name in ("tp", "fp", "fn")] for file in (1, 2, 3)]
    return 100 * sum(2 * tp / (2 * tp + fp + fn) for tp, fp, fn in counted) / 3


# Metrics that are no mean over items: a score that only they have, their name, and how they come about.
OF_SUMS = {"bleu_length": ("b4", bleu4), "pope_tp_1": ("pope", f1_of_pope)}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.name)
def test_the_committed_scores_give_the_metrics_of_the_committed_records(path: Path) -> None:
    """Every metric of every column, recomputed: the means, and those of summed counts."""
    made = publish.load(path.with_name(path.name.replace(items.SUFFIX, ".jsonl")))
    found = items.load(path)
    assert found.keys() == {key for key, record in made.records.items() if record.items}
    for run_id, scores in found.items():
        values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for (dataset, score, _, _), value in scores.items():
            values[dataset][score].append(float(value))
        metrics = made.records[run_id].metrics
        for dataset, by_score in values.items():
            for score in (name for name in by_score if not name.startswith(("bleu_", "pope_"))):
                mean = sum(by_score[score]) / len(by_score[score])
                assert mean == pytest.approx(metrics[f"{dataset}/{score}"], rel=1e-5, abs=1e-5)
            sums = {name: sum(each) for name, each in by_score.items()}
            for metric, made_of in (OF_SUMS[name] for name in OF_SUMS.keys() & sums.keys()):
                assert made_of(sums) == pytest.approx(metrics[f"{dataset}/{metric}"], rel=1e-5)


def test_tables_without_a_transfer_have_an_empty_file(tmp_path: Path) -> None:
    table: Table = TABLE
    assert items.export(table, publication({"CLIP": [None]}), tmp_path, tmp_path) == []
    assert items.load(tmp_path / f"table1{items.SUFFIX}") == {}
