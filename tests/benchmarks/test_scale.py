"""The measurement at the published number of shards runs, small, and says what it promises."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_every_line_of_the_measurement_is_there(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.scale", str(tmp_path), "--zips", "220", "--tars", "210"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for kind in ("mmc4", "laion"):
        for words in ("planning, first", "planning, again", "entries in 2", "after restarts", "peak memory"):
            assert any(line.startswith(f"{kind}: ") and words in line for line in said.splitlines()), said
    assert len(list((tmp_path / "mmc4").glob("*.zip"))) == 220
