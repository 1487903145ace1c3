"""Every row of Table 1 by one process, then through SLURM: the tables are equal, byte for byte but for the commit.

About 40 runs a side, a quarter of an hour on two cores. The three rows of test_sweep_slurm.py go the same way, so this
file is for releases and found only when it is asked for: `python -m pytest -s tests/slurm/whole_table.py`.
"""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from slurm_helpers import Sweep
from sweep_helpers import BUDGET

from experiments.running import attempts

CHANGES = (
    *(change for change in BUDGET if not change.startswith("pretrain.images=")),
    "pretrain.images=160",  # 10 steps
)
SECONDS = 3600.0


@pytest.mark.timeout(2 * SECONDS)
def test_every_row_through_slurm_has_the_cells_of_one_process(
    tmp_path: Path, corpus: Path, on: Callable[..., Sweep]
) -> None:
    """Arrays of at most four tasks: the pre-trainings alone are three of them."""
    whole = dict(corpus=corpus, changes=CHANGES, seconds=SECONDS)
    one = Sweep(tmp_path / "inline", **whole)
    began = time.monotonic()
    done = one.call("sweep", *one.command("--launcher", "inline", "--workers", "1", rows=()))
    assert done.returncode == 0, done.stderr
    print(f"\ninline: {len(one.statuses())} runs, {since(began)}", flush=True)
    other = Sweep(tmp_path / "slurm", cluster=on(max_array=4).cluster, **whole)
    began = time.monotonic()
    print(f"slurm: {other.submit(rows=()).strip().splitlines()[-1]}, {since(began)}", flush=True)
    other.over()
    found = [each for path in other.runs.glob("*/spec.json") for each in attempts.every(path.parent)]
    arrays = {each.job.partition("_")[0] for each in found}
    print(f"slurm: {len(found)} attempts in {len(arrays)} arrays, {since(began)}", flush=True)
    assert other.tables() == one.tables()
    assert len(found) == len(one.statuses()) and {each.ended for each in found} == {"done"}
    cells = one.tables()["table1.long.csv"].count(b"\n") - 1
    print(f"{len(one.tables())} files equal, {cells} cells in the long form", flush=True)


def since(began: float) -> str:
    return f"{(time.monotonic() - began) / 60:.1f} min"
