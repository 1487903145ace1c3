"""`python -m experiments.score` on the releases' own layouts: numbers, submissions, and what it refuses."""

import json
import subprocess
import sys
import zipfile
from typing import get_args
from xml.etree import ElementTree

import pytest
import releases

from experiments.score import main
from transfer.dialogue.scoring.base import NAMES, BenchmarkName, Submitted
from transfer.dialogue.scoring.registry import BENCHMARKS

BEST = {"vqav2": 100, "vizwiz": 100, "mme": 2000}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return releases.write(tmp_path_factory.mktemp("releases"))


def run(folder, tmp_path, name, *more, said=None):
    answers = releases.answers(name, tmp_path / "answers.jsonl", said)
    return main([name, "--answers", str(answers), "--data", str(folder / name), *map(str, more)])


def value(out: str) -> float:
    return float(next(line for line in out.splitlines() if line.startswith("| ") and "to" in line).split("|")[2])


def test_every_name_has_a_benchmark_whose_splits_can_be_done():
    assert tuple(get_args(BenchmarkName)) == NAMES and set(BENCHMARKS) == set(NAMES)
    for kind in BENCHMARKS.values():
        assert next(iter(kind.splits.values())).scored == "here"
        assert issubclass(kind, Submitted) == any(split.scored == "server" for split in kind.splits.values())


@pytest.mark.parametrize("name", sorted(NAMES))
def test_right_answers_in_the_release_s_layout_get_the_full_score(name, folder, tmp_path, capsys):
    items = tmp_path / "items.jsonl"
    assert run(folder, tmp_path, name, "--called", "mine", "--items", items) == 0
    said = capsys.readouterr().out
    assert value(said) == pytest.approx(BEST.get(name, 100)) and said.startswith("# mine ")
    scores = [json.loads(line) for line in items.read_text().splitlines()]
    assert all(item["score"] == 1 and item["item_id"] and item["group_id"] for item in scores)


@pytest.mark.parametrize("name", sorted(NAMES))
def test_missing_unknown_and_double_answers_are_refused_with_both_sides(name, folder, tmp_path, capsys):
    right = releases.RIGHT[name]
    first = next(iter(right))
    other = {f"{item}9" if item == first else item: text for item, text in right.items()}
    assert run(folder, tmp_path, name, "--called", "mine", said=other) == 2
    error = capsys.readouterr().err
    assert f"no answer to 1 of {len(right)} questions of {folder / name}: " in error
    assert f"no question for 1 of {len(right)} answers of {tmp_path / 'answers.jsonl'}: " in error
    path = releases.answers(name, tmp_path / "answers.jsonl")
    path.write_text(path.read_text() + path.read_text().splitlines()[0])
    assert main([name, "--answers", str(path), "--data", str(folder / name), "--called", "mine"]) == 2
    assert f"twice, as answers 1 and {len(right) + 1}; keep one" in capsys.readouterr().err


def test_the_layouts_of_vqa_s_results_and_gqa_s_predictions_are_read(folder, tmp_path, capsys):
    for name, fields in {"vqav2": ("question_id", "answer"), "gqa": ("questionId", "prediction")}.items():
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps([dict(zip(fields, pair, strict=True)) for pair in releases.RIGHT[name].items()]))
        assert main([name, "--answers", str(path), "--data", str(folder / name), "--called", "mine"]) == 0
        assert value(capsys.readouterr().out) == 100


def test_normalisation_is_named_and_only_where_it_is_read(folder, tmp_path, capsys):
    said = releases.RIGHT["vqav2"] | {"1": "Yes"}
    assert run(folder, tmp_path, "vqav2", "--called", "mine", "--norm", "original", said=said) == 0
    printed = capsys.readouterr().out
    assert value(printed) == pytest.approx(66.67) and "normalised as original" in printed
    assert run(folder, tmp_path, "gqa", "--called", "mine", "--norm", "llava") == 2
    assert "--norm llava is not read" in capsys.readouterr().err


def test_part_of_a_benchmark_does_not_bear_its_name(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "pope") == 2
    assert "holds 12 questions, pope coco has 9000 or 8910" in capsys.readouterr().err
    assert run(folder, tmp_path, "pope", "--called", "POPE") == 2


def test_submissions_are_what_the_servers_take(folder, tmp_path, capsys):
    out = tmp_path / "out"
    dev = ("--split", "test-dev2015", "--called", "mine", "--submit", out)
    assert run(folder, tmp_path, "vqav2", *dev, said={"1": "Yes!", "3": "a cup"}) == 0
    assert json.loads(out.read_text()) == [
        {"question_id": 1, "answer": "yes"},
        {"question_id": 2, "answer": ""},
        {"question_id": 3, "answer": "cup"},
    ]
    test = ("--split", "test", "--called", "mine", "--submit", out)
    said = {"VizWiz_test_00000000": "Unanswerable", "VizWiz_test_00000001": "2"}
    assert run(folder, tmp_path, "vizwiz", *test, said=said) == 0
    assert json.loads(out.read_text())[0] == {"image": "VizWiz_test_00000000.jpg", "answer": "unanswerable"}
    assert run(folder, tmp_path, "mmbench", "--split", "test_20230712", "--called", "mine", "--submit", out) == 0
    with zipfile.ZipFile(out) as file:
        rows = ElementTree.fromstring(file.read("xl/worksheets/sheet1.xml")).findall(".//{*}row")
        table = [["".join(cell.itertext()) for cell in row] for row in rows]
    assert table[0] == ["index", "question", "A", "B", "C", "D", "prediction", "answer", "split"]
    assert table[2] == ["1000007", "What is it?", "dog", "cat", "nan", "nan", "B", "", "test"]


def test_a_split_is_scored_or_submitted_and_never_neither(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "vizwiz", "--split", "test", said={"VizWiz_test_00000000": "x"}) == 2
    assert "add --submit FILE" in capsys.readouterr().err
    assert run(folder, tmp_path, "vizwiz", "--submit", tmp_path / "x") == 2
    assert "val is scored here" in capsys.readouterr().err
    assert run(folder, tmp_path, "vizwiz", "--split", "vall") == 2
    assert "Did you mean 'val'?" in capsys.readouterr().err


def test_a_release_that_lacks_something_is_refused_by_name(folder, tmp_path, capsys):
    broken = releases.write(tmp_path / "broken")
    (broken / "mme" / "count" / "0001.txt").write_text("one question\tYes\n")
    tsv = broken / "mmbench" / "mmbench_dev_20230712.tsv"
    tsv.write_text("\n".join(tsv.read_text().splitlines()[:-1]) + "\n")
    (broken / "gqa" / "testdev_balanced_questions.json").unlink()
    (broken / "seed" / "SEED-Bench.json").write_text('{"questions": [{"question_id": 1}]}')
    for name, words in {
        "mme": "0001.txt has not two lines",
        "mmbench": "question 8 has 3 options and 2 rows",
        "seed": "SEED-Bench.json: field 'data_type' is missing",
    }.items():
        assert run(broken, tmp_path, name, "--called", "mine") == 2
        assert words in capsys.readouterr().err
    assert run(broken, tmp_path, "gqa", "--called", "mine") == 1
    assert "there is no" in capsys.readouterr().err


def test_scoring_needs_no_torch():
    code = "import sys, transfer.dialogue.scoring.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
