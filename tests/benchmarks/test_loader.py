"""The comparison with open_clip's pipeline runs on small pictures and prints all rates and their ratios."""

import re
import sys

import pytest

from benchmarks import loader


@pytest.mark.slow
def test_both_pipelines_give_every_picture_and_their_rates_are_printed(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["loader", "--side", "64", "--pairs", "100", "--repeats", "1"])
    assert loader.main() == 0
    said = capsys.readouterr().out
    rates = [float(rate) for rate in re.findall(r": (\d+) images/s of one core", said)]
    assert len(rates) == 3 and min(rates) > 0
    assert re.search(r"data\.jpeg=scaled: .*, x\d\.\d\d\nno padding: \d\d\.\d%", said)
    loader.write_pairs(tmp_path, 64, 100)
    assert sum(loader.ours(tmp_path, 100, 0, "scaled")()) == sum(loader.theirs(tmp_path, 100, 0)()) == 100
