"""The benchmark of the feature cache runs small and prints both times and their ratio."""

import re
import sys

import pytest

from benchmarks import features


def test_both_ways_train_and_their_times_are_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["features", "--size", "tiny", "--images", "4", "--epochs", "3", "--measured", "1"]
    )
    assert features.main() == 0
    said = capsys.readouterr().out
    cached, extraction, without, measured = map(float, re.findall(r"(\d+\.\d) s", said))
    assert extraction <= cached and measured <= without
    assert re.search(r"tiny, 4 images, 3 epochs.*\nratio: \d+\.\d\n", said, re.S)
