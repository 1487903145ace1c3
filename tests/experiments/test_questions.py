"""`python -m experiments.questions`: LLaVA's prompts to the letter, and files whose answers the scorer knows."""

import json

import pytest
import releases

from experiments import questions, score
from transfer.dialogue.scoring.base import NAMES
from transfer.dialogue.scoring.registry import BENCHMARKS

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return releases.write(tmp_path_factory.mktemp("releases"))


def asked(folder, tmp_path, name, *more):
    out = tmp_path / "questions.jsonl"
    assert questions.main([name, "--data", str(folder / name), "--out", str(out), *map(str, more)]) == 0
    return [json.loads(line) for line in out.read_text().splitlines()]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_answers_to_the_file_are_known_by_what_llava_copies_of_it(name, folder, tmp_path, capsys):
    key = BENCHMARKS[name]().key
    lines = [
        {"question_id": line["question_id"], "prompt": line["text"], "text": "", "answer_id": "x", "model_id": "m"}
        for line in asked(folder, tmp_path, name)
    ]
    for line in lines:
        line["text"] = releases.RIGHT[name][key(line)]
    path = releases.lines(tmp_path / "answers.jsonl", lines)
    capsys.readouterr()
    assert score.main([name, "--data", str(folder / name), "--answers", str(path), "--called", "mine"]) == 0
    best = float(next(row for row in capsys.readouterr().out.splitlines() if " to " in row).split("|")[2])
    assert best == pytest.approx(2000 if name == "mme" else 100)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("vqav2", {"question_id": "1", "image": "COCO_val2014_000000000000.jpg", "text": f"What is it?\n{SHORT}"}),
        ("gqa", {"question_id": "201", "image": "n1.jpg", "text": f"Is it red?\n{SHORT}"}),
        (
            "vizwiz",
            {
                "question_id": "VizWiz_val_00000001",
                "image": "VizWiz_val_00000001.jpg",
                "text": "What is it?\nWhen the provided information is insufficient, respond with 'Unanswerable'.\n"
                f"{SHORT}",
            },
        ),
        ("scienceqa", {"question_id": "4", "image": "4/image.png", "text": f"?\nA. x\nB. y\n{LETTER}"}),
        ("pope", {"question_id": "random/1", "image": "COCO_val2014_0.jpg", "text": f"Is there a cup?\n{SHORT}"}),
        ("mme", {"question_id": "existence/0001.png", "image": "existence/0001.png", "text": f"Is it there?\n{SHORT}"}),
        ("mmbench", {"question_id": "7", "image": "7.jpg", "text": f"What is it?\nA. cat\nB. dog\n{LETTER}"}),
        ("seed", {"question_id": "101669", "image": "1.jpg", "text": f"?\nA. w\nB. x\nC. y\nD. z\n{LETTER}"}),
    ],
)
def test_prompts_are_those_of_llava(name, line, folder, tmp_path):
    assert asked(folder, tmp_path, name)[0] == line


def test_pictures_and_hints_are_where_each_release_has_them(folder, tmp_path):
    by_id = {line["question_id"]: line for line in asked(folder, tmp_path, "mme")}
    assert by_id["posters/0002.jpg"]["image"] == "posters/images/0002.jpg"
    test = asked(folder, tmp_path, "vqav2", "--split", "test-dev2015")
    assert [line["image"] for line in test] == [f"COCO_test2015_{n:012}.jpg" for n in (0, 1)]
    own = releases.write(tmp_path / "own")
    problems = json.loads((own / "scienceqa" / "problems.json").read_text())
    problems["5"]["hint"] = "It is late."
    releases.put(own / "scienceqa" / "problems.json", problems)
    line = asked(own, tmp_path, "scienceqa")[1]
    assert line["image"] is None and line["text"].startswith("It is late.\n?\nA. x\n")


def test_mmbench_s_pictures_are_unpacked_once_a_question(folder, tmp_path, capsys):
    lines = asked(folder, tmp_path, "mmbench", "--unpack", tmp_path / "pictures")
    names = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert names == ["7.jpg", "8.jpg"] == sorted({line["image"] for line in lines})
    assert (tmp_path / "pictures" / "7.jpg").stat().st_size == 150_000
    out = str(tmp_path / "x")
    assert questions.main(["gqa", "--data", str(folder / "gqa"), "--out", out, "--unpack", out]) == 2
    assert "the pictures of gqa are GQA's images" in capsys.readouterr().err


def test_what_is_not_there_is_said(folder, tmp_path, capsys):
    (releases.write(tmp_path / "own") / "mme" / "count" / "0002.png").unlink()
    out = ("--out", str(tmp_path / "x"))
    assert questions.main(["mme", "--data", str(tmp_path / "own" / "mme"), *out]) == 2
    assert "has questions about 0002 and no 0002 with one of .png" in capsys.readouterr().err
    assert questions.main(["popes", "--data", str(folder), *out]) == 2
    assert "Did you mean 'pope'?" in capsys.readouterr().err
