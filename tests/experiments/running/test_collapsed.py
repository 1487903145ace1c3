"""An encoder that gives every picture the same features, put in as an objective: everything must show it."""

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_helpers import TABLE, arguments, small_suite

import objectives
from experiments import sweep
from objectives import registry
from results import alarms, record, report
from results.schema import Row, RunRecord

FILE = '''
"""LCL whose encoder is collapsed: the final norm's gain is 0 for good, and only its bias comes out, for any picture."""

from dataclasses import dataclass

from torch import nn

from objectives.lcl import LCL
from objectives.registry import register


@register("collapsed")
class Collapsed(LCL):
    """Trains as LCL does and can see nothing."""

    @dataclass(frozen=True, kw_only=True)
    class Config(LCL.Config):
        """As LCL's."""

    def __init__(self, config, vision, language, special):
        super().__init__(config, vision, language, special)
        nn.init.zeros_(vision.vit.norm.weight).requires_grad_(False)
'''
ROWS = (
    Row(label="Collapsed", objective="collapsed", data="mmc4", task="Con. + Gen."),
    Row(label="Blind", objective=None, data="mmc4", task="none", mode="blind", control=True),
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with the objective, and the table with its row; both forgotten afterwards."""
    made = tmp_path / "mine"
    made.mkdir()
    (made / "collapsed.py").write_text(FILE)
    small_suite(monkeypatch, replace(TABLE, rows=ROWS, cost_reference="Collapsed"))
    monkeypatch.setattr(objectives, "__path__", list(objectives.__path__))
    yield made
    sys.modules.pop("objectives.collapsed", None)
    registry._REGISTERED.pop("collapsed", None)


@pytest.mark.slow
def test_alarms_fire_retrieval_is_at_chance_and_captions_are_those_of_the_blind(tmp_path: Path, folder: Path) -> None:
    runs = tmp_path / "runs"
    assert sweep.main(arguments(runs, "--launcher", "inline", "--objectives", str(folder))) == 0
    pretrained, retrieved, captioned, blind = (
        found(runs, name)
        for name in ("pretrain-collapsed", "transfer-retrieve", "transfer-caption-collapsed", "transfer-caption-blind")
    )
    assert pretrained.metrics["probe_feature_std_ratio"] < alarms.LEAST_STD_RATIO
    assert any(said.startswith("collapsed (") for said in alarms.of_record(pretrained))
    for metric in ("coco/tr1", "coco/ir1", "flickr30k/tr1", "flickr30k/ir1"):
        assert retrieved.metrics[metric] == pytest.approx(retrieved.chance[metric]), metric
    for said in (captioned, blind):
        assert said.metrics["coco/different"] == said.metrics["nocaps/different"] == 1, "the same about every image"
    page = report.load(runs / "out" / "records", "tiny").page()
    (head,) = re.findall(r'<th scope=row>Collapsed<span class="note">([^<]*)</span>', page)
    assert head.startswith("collapsed in 1 of 1 seeds")


def found(runs: Path, name: str) -> RunRecord:
    """The record of the one run whose name begins so."""
    (path,) = runs.glob(f"{name}-*/record.json")
    return record.read(path)
