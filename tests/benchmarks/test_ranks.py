"""The measurement of ranks runs, small; the memory of a contrast is local by global."""

import re
import subprocess
import sys

import pytest


@pytest.mark.slow
def test_both_measurements_are_there_and_memory_grows_with_the_rows_of_a_rank() -> None:
    command = [sys.executable, "-m", "benchmarks.ranks", "--steps", "2", "--pairs", "8"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"one rank [\d.]+ ms a step, two [\d.]+ ms\n", said), said
    assert len(re.findall(r"^predicted for two on .* machine.*: [\d.]+ ms", said, re.MULTILINE)) == 2
    few, many = (int(used) for used in re.findall(r"with 65,536: (\d+) MB at the peak", said))
    assert 1.2 < many / few < 2.5 and many < 2000  # one matrix of all rows has 17 GB
