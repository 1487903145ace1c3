"""A benchmark's name belongs to the complete benchmark; another test set goes under its own name, and says so."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from plan_helpers import DIGESTS, TINY, FakeCatalogue, record_of, without_details
from sweep_helpers import SMALL, arguments, small_suite, with_corpus

from data.errors import CorpusError
from experiments import sweep
from experiments.configuration.config import OwnNames
from experiments.configuration.overrides import apply, parse
from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.planning.plan import build_plan
from experiments.planning.specs import TransferSpec
from experiments.running.world import open_split
from experiments.tables import TABLE1
from results.frame import Filled
from results.page.measured import deltas
from results.page.printed import render
from results.schema import metric_key

ROWS = replace(TABLE1, rows=tuple(row for row in TABLE1.rows if row.label in ("CLIP", "LCL")))


def own_coco(folder: Path, images: int = 12) -> Path:
    """A test set in COCO's format of that many pictures."""
    (folder / "images").mkdir(parents=True)
    entries = []
    for number in range(images):
        buffer = io.BytesIO()
        Image.new("RGB", (40, 40), (number, 50, 200)).save(buffer, "PNG")
        (folder / "images" / f"{number}.png").write_bytes(buffer.getvalue())
        entries.append({"filename": f"{number}.png", "split": "test", "sentences": [{"raw": f"plant {number}"}]})
    (folder / "dataset_coco.json").write_text(json.dumps({"dataset": "coco", "images": entries}))
    return folder


def place(runs: Path, folder: Path, name: str | None) -> Place:
    data = get_scale("tiny").config.data
    return Place(runs=runs, data=replace(data, coco=folder, called=OwnNames(coco=name)))


def test_a_set_of_other_counts_is_no_benchmark_and_may_have_a_name(tmp_path: Path) -> None:
    folder = own_coco(tmp_path / "garden")
    with pytest.raises(
        CorpusError, match=r"images 12 instead of 5000; captions 12 instead of 25010.*data\.called\.coco"
    ):
        open_split(place(tmp_path / "runs", folder, None), "coco", training=False)
    assert len(open_split(place(tmp_path / "runs", folder, "garden"), "coco", training=False)) == 12


@pytest.mark.parametrize("name", ["COCO", "coco", "toy COCO", "ImageNet-1k", " "])
def test_a_benchmark_s_name_cannot_be_given_to_another_set(name: str) -> None:
    with pytest.raises(ValueError, match="needs a name of its own"):
        OwnNames(coco=name)


def page(tmp_path: Path, scale: str, *settings: str) -> tuple[str, set[str]]:
    """A table with made-up numbers whose COCO is a folder of the user's; and the names of its runs."""
    chosen = get_scale(scale)
    config = apply(without_details(chosen.config), parse([f"data.coco={tmp_path}", *settings]), None)
    made = build_plan([ROWS], [0], chosen, config, FakeCatalogue(), DIGESTS)
    records = [
        record_of(run, {metric_key(c.dataset, c.metric): 50.0 for c in ROWS.columns if c.task == run.spec.task})
        for run in made.runs
        if isinstance(run.spec, TransferSpec)
    ]
    return render(ROWS, made.publication("table1", records)), {run.run_id for run in made.runs}


def test_columns_say_which_set_was_read(tmp_path: Path) -> None:
    assert TINY.embedded
    own, ids = page(tmp_path, "tiny", "data.called.coco=garden")
    assert "| garden TR@1 ↑ |" in own and "toy COCO" not in own
    assert "own set 'garden' in the place of: COCO test" in own
    assert "toy Flickr30k TR@1" in own  # not replaced
    assert "paper: COCO TR@1" in own and "paper: garden" not in own
    real, same = page(tmp_path, "tiny")
    assert "| COCO TR@1 ↑ |" in real and "toy COCO" not in real
    assert ids == same  # a name decides nothing


def test_an_own_set_is_never_subtracted_from_the_paper_s_number(tmp_path: Path) -> None:
    chosen = get_scale("base16")
    config = apply(without_details(chosen.config), parse([f"data.coco={tmp_path}", "data.called.coco=garden"]), None)
    made = build_plan([ROWS], [0], chosen, config, FakeCatalogue(), DIGESTS)
    records = [
        record_of(run, {metric_key(c.dataset, c.metric): 50.0 for c in ROWS.columns if c.task == run.spec.task})
        for run in made.runs
        if isinstance(run.spec, TransferSpec)
    ]
    lines = deltas(Filled(ROWS, made.publication("table1", records)))
    header = next(line for line in lines if line.startswith("| method"))
    (clip,) = [line for line in lines if line.startswith("| CLIP")]
    cells = dict(zip(header.split("|"), clip.split("|"), strict=True))
    found = {title.strip(): text.strip() for title, text in cells.items()}
    assert found["garden TR@1"] == "–" and found["Flickr30k TR@1"].startswith(("+", "-"))


def test_a_name_without_its_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = sweep.main(["table1", "--runs", str(tmp_path), "--set", "data.called.coco=garden", "--dry-run"])
    assert code == 2 and "data.coco is not set" in capsys.readouterr().err


def test_an_incomplete_benchmark_stops_a_sweep_before_anything_runs(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_suite(monkeypatch)
    runs = with_corpus(tmp_path / "runs", corpus)
    assert corpus.name == SMALL.folder_name
    folder = own_coco(tmp_path / "garden")
    assert sweep.main(arguments(runs, "--set", f"data.coco={folder}", "--launcher", "inline")) == 2
    assert "images 12 instead of 5000" in capsys.readouterr().err
    assert not list(runs.glob("pretrain-*"))
    (folder / "images" / "7.png").write_bytes(b"<html>")
    named = ["--set", f"data.coco={folder}", "--set", "data.called.coco=garden"]
    assert sweep.main(arguments(runs, *named, "--launcher", "inline")) == 2
    assert "1 of 12 images cannot be used, the first is 7.png" in capsys.readouterr().err
    assert not list(runs.glob("pretrain-*"))
