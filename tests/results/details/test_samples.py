"""Samples of a published table, and the pictures of the report made of them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from results_helpers import TABLE, publication

from results import publish, report
from results.canonical import plain
from results.details import samples
from results.details.items import packed
from results.frame import Filled
from results.html.samples import SHOWN, SHOWN_OF_DIALOGUE, galleries
from results.record import RecordError
from results.schema import Publication

PICTURE = "data:image/png;base64,iVBORw0KGgo="
EVIL = "<script>alert(1)</script>\"'&"


def held() -> Publication:
    return publication({"LCL": [70.0, 71.0], "Emu": [20.0]}, declared=plain(TABLE))


def transfers(made: Publication) -> dict[tuple[str, int], str]:
    return {(slot.row, slot.seed): slot.run_id for slot in made.slots if slot.stage == "classify"}


def lines(hits: list[bool], text: str = "a red dot") -> list[dict[str, object]]:
    return [
        {"dataset": "coco", "item_id": f"i{n}", "meant": f"image {n}", "picture": PICTURE, "metric": "tr1"}
        | {"said": [text, "a blue one"], "right": [hit, False], "score": 100.0 * hit}
        for n, hit in enumerate(hits)
    ]


def write(runs: Path, run_id: str, found: list[dict[str, object]]) -> None:
    (runs / run_id).mkdir(parents=True)
    (runs / run_id / "samples.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in found))


@pytest.fixture
def made(tmp_path: Path) -> Publication:
    """LCL right about images 0 to 5 of 8 at its first seed, Emu about 0 to 2; LCL has a second seed."""
    made = held()
    runs = transfers(made)
    write(tmp_path / "runs", runs["LCL", 0], lines([n < 6 for n in range(8)]))
    write(tmp_path / "runs", runs["LCL", 1], lines([True] * 8))
    write(tmp_path / "runs", runs["Emu", 0], lines([n < 3 for n in range(8)]))
    return made


def test_a_row_has_the_samples_of_its_first_seed_and_a_picture_stands_once(tmp_path: Path, made: Publication) -> None:
    samples.export(made, tmp_path / "runs", tmp_path)
    path = tmp_path / f"table1{samples.SUFFIX}"
    found, runs = samples.load(path), transfers(made)
    assert set(found.said) == {runs["LCL", 0], runs["Emu", 0]} and len(found.pictures) == 8
    assert found.said[runs["Emu", 0]]["coco", "i7"].right == (False, False)
    before = path.read_bytes()
    samples.export(made, tmp_path / "gone", tmp_path)
    assert path.read_bytes() == before, "published samples stay where the runs are gone"
    samples.rename(path, {runs["Emu", 0]: "new"})
    assert set(samples.load(path).said) == {runs["LCL", 0], "new"}
    samples.export(held(), tmp_path / "gone", tmp_path / "empty")
    assert not (tmp_path / "empty").exists()


def test_line_separators_in_a_caption_are_no_ends_of_lines(tmp_path: Path, made: Publication) -> None:
    samples.export(made, tmp_path / "runs", tmp_path)
    path = tmp_path / f"table1{samples.SUFFIX}"
    found = samples.load(path)
    image, (_, picture) = next(iter(found.pictures.items()))
    found.pictures[image] = ("a dog\u2028on\u2029grass\x85 .", picture)
    samples.save(path, found)
    assert samples.load(path) == found


def test_images_go_from_easy_to_hard_with_every_answer_marked(tmp_path: Path, made: Publication) -> None:
    samples.export(made, tmp_path / "runs", tmp_path)
    (gallery,) = galleries(Filled(TABLE, made), samples.load(tmp_path / f"table1{samples.SUFFIX}"))
    assert len(gallery.images) == SHOWN
    marks = [{a.row: a.texts[0][1] for a in image.answers} for image in gallery.images]
    assert marks[0] == {"Emu": "right", "LCL": "right"} and marks[-1] == {"Emu": "wrong", "LCL": "wrong"}
    assert {"Emu": "wrong", "LCL": "right"} in marks


def test_what_was_said_stays_text_and_pictures_are_in_the_file(tmp_path: Path) -> None:
    made = held()
    write(tmp_path / "runs", transfers(made)["LCL", 0], [{**line, "meant": EVIL} for line in lines([True], EVIL)])
    publish.export(made, tmp_path)
    samples.export(made, tmp_path / "runs", tmp_path)
    page = report.load(tmp_path, "tiny").page()
    assert f'<img src="{PICTURE}"' in page and EVIL not in page
    assert page.count("&lt;script&gt;alert(1)") >= 3  # alternative text, reference, answer


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"picture": "https://example.org/x.png"}, "picture of i0 is no PNG or JPEG data URI"),
        ({"picture": "data:image/svg+xml;base64,AAAA"}, "picture of i0 is no PNG or JPEG data URI"),
        ({"item_id": 3}, "names no image of a test set"),
        ({"right": [True]}, "nothing that was said"),
        ({"said": "a red dot"}, "nothing that was said"),
    ],
)
def test_lines_that_are_no_samples_are_refused_by_place(tmp_path: Path, change: dict[str, object], said: str) -> None:
    made = held()
    write(tmp_path / "runs", transfers(made)["LCL", 0], [{**line, **change} for line in lines([True])])
    with pytest.raises(RecordError, match=rf"samples.jsonl, line 1: .*{said}"):
        samples.export(made, tmp_path / "runs", tmp_path)


def test_words_without_a_picture_are_refused(tmp_path: Path) -> None:
    path = tmp_path / f"table1{samples.SUFFIX}"
    line = {"run_id": "r", **{key: value for key, value in lines([True])[0].items() if key != "picture"}}
    path.write_bytes(packed(f"{json.dumps(line)}\n"))
    with pytest.raises(RecordError, match="line 1: the picture of i0 of coco is missing"):
        samples.load(path)


def test_answers_to_questions_are_marked_and_escaped(tmp_path: Path) -> None:
    made = held()
    slot = next(slot for slot in made.slots if (slot.row, slot.seed, slot.stage) == ("LCL", 0, "classify"))
    talk = replace(made, slots=(replace(slot, stage="dialogue"),))
    asked = [
        {"dataset": "gqa", "item_id": f"q{n:02d}", "meant": f"{EVIL}? red", "picture": PICTURE, "metric": "gqa_acc"}
        | {"said": ["red" if n % 2 else EVIL], "right": [bool(n % 2)], "score": 100.0 * (n % 2)}
        for n in range(20)
    ]
    write(tmp_path / "runs", slot.run_id, asked)
    samples.export(talk, tmp_path / "runs", tmp_path)
    (gallery,) = galleries(Filled(TABLE, talk), samples.load(tmp_path / f"table1{samples.SUFFIX}"))
    assert gallery.title == "Answers to questions in the form of gqa (dialogue)"
    assert len(gallery.images) == SHOWN_OF_DIALOGUE
    assert {image.answers[0].texts[0] for image in gallery.images} == {("red", "right"), (EVIL, "wrong")}
    publish.export(talk, tmp_path)
    page = report.load(tmp_path, "tiny").page()
    assert EVIL not in page and page.count('class="wrong"') == SHOWN_OF_DIALOGUE // 2
