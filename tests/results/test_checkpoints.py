"""The command that compares two checkpoints item by item, on the committed records."""

from pathlib import Path

import pytest

from results import checkpoints, publish
from results.statistics import resampling


def test_two_rows_are_compared_in_every_metric_they_share(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "DRAWS", 500)
    assert checkpoints.main(["table1", "LCL", "Random encoder"]) == 0
    said = capsys.readouterr().out
    metrics = publish.load(publish.ROOT / "records" / "table1.jsonl").records
    named = {metric for record in metrics.values() if record.parent for metric in record.metrics}
    lines = [line.split("|")[1].strip() for line in said.splitlines()[2:] if line.startswith("|")]
    assert set(lines) <= named and {"coco/b4", "coco/cider", "coco/tr1", "imagenet/acc1"} <= set(lines)
    assert "McNemar" in said and "LCL, seed 0" in said and "another seed of the same rows" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["table1", "LCL", "CLOP"], "no item scores of 'CLOP' at seed 0; rows are CLIP, CoCa"),
        (["table1", "LCL", "CLIP", "--seed", "77"], "no item scores of 'LCL' at seed 77; it has seeds 0, 1, 2"),
        (["table9", "LCL", "CLIP"], "table9.jsonl'; a sweep writes the records"),
    ],
)
def test_what_is_not_there_is_named(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert checkpoints.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_a_broken_records_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "table1.jsonl").write_text("{")
    assert checkpoints.main(["table1", "LCL", "CLIP", "--records", str(tmp_path)]) == 2
    assert "table1.jsonl, line 1" in capsys.readouterr().err
