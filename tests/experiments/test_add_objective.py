"""Adding an objective is one file and one row: nothing else in the suite is edited."""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_helpers import CLIP, SMALL, TABLE, arguments, small_suite

import objectives
from experiments import sweep
from objectives import registry
from results import record
from results.page.markdown import DASH
from results.schema import Row, Status

# What a newcomer writes: regress the mean colour of the image from the mean patch token.
FILE = '''
"""Mean colour: the encoder's mean patch token predicts the mean of each channel. A toy."""

from dataclasses import dataclass

import torch
from torch import nn

from data.batch import Batch, Layout
from objectives.base import Objective
from objectives.functional import Losses, Term
from objectives.registry import register


@register("mean_colour")
class MeanColour(Objective):
    """Three numbers an image."""

    reads = "pairs"
    layouts = (Layout.TEXT_ONLY,)
    lm_passes = 0

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """Options."""

        weight: float = 1.0

    def __init__(self, config, vision, language, special):
        super().__init__(config, vision, language, special)
        self.head = nn.Linear(vision.width, 3)

    def forward(self, batch: Batch) -> Losses:
        """Squared error."""
        error = self.head(self.encode(batch.images).mean(1)).float() - batch.images.mean((2, 3))
        count = torch.tensor(float(len(batch.images)), device=error.device)
        return Losses({"colour": Term(error.square().sum(), count)}, {"colour": self.config.weight}, {})
'''
ROW = Row(label="Mean colour", objective="mean_colour", data="mmc4-pair", task="Reg.")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the new file, and the table with the new row; both forgotten afterwards."""
    made = tmp_path / "mine"
    made.mkdir()
    (made / "mean_colour.py").write_text(FILE)
    small_suite(monkeypatch, replace(TABLE, rows=(CLIP, ROW)))
    monkeypatch.setattr(objectives, "__path__", list(objectives.__path__))
    yield made
    sys.modules.pop("objectives.mean_colour", None)
    registry._REGISTERED.pop("mean_colour", None)


def test_without_its_folder_the_objective_is_unknown(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep.main(arguments(tmp_path / "runs", "--dry-run")) == 2
    assert "no objective 'mean_colour'" in capsys.readouterr().err


def test_with_it_the_row_is_planned_and_can_be_configured(
    tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change = ("--set", "objectives.mean_colour.weight=2.5")
    assert sweep.main(arguments(tmp_path / "runs", "--dry-run", "--objectives", str(folder), *change)) == 0
    assert "small: Mean colour" in capsys.readouterr().out


def test_a_file_that_takes_a_name_is_refused(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "mean_colour.py").rename(folder / "clip.py")
    assert sweep.main(arguments(tmp_path / "runs", "--dry-run", "--objectives", str(folder))) == 2
    assert "clip, which already exist in objectives" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["inline", "local"])
def test_one_file_and_one_row_end_in_the_table(tmp_path: Path, folder: Path, launcher: str) -> None:
    runs = tmp_path / "runs"
    asked = ("--only", "mean_colour", "--launcher", launcher, "--objectives", str(folder))
    assert sweep.main(arguments(runs, *asked)) == 0
    (path,) = runs.glob("pretrain-mean_colour-*/record.json")
    found = record.read(path)
    assert found.status is Status.DONE
    assert found.lm_passes == 0 and found.images_seen == 48
    rows = [json.loads(line) for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["colour"] < rows[0]["colour"]
    (table,) = (runs / "out" / "tables").glob("small*.md")
    lines = [line for line in table.read_text().splitlines() if line.startswith("| Mean colour ")]
    assert lines and DASH not in "".join(lines[0].split("|")[5:])
    assert (runs / "shared" / "corpora" / SMALL.folder_name).is_dir()
