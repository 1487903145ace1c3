"""Jobs are sent a signal that they hear, or nothing is submitted."""

from pathlib import Path

import pytest
import submitit

from experiments.configuration.overrides import ConfigError
from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.launching.machine import Machine
from experiments.launching.queue import SlurmError
from experiments.launching.slurm import slurm


def test_a_signal_that_no_run_hears_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no SLURM
    place = Place(runs=tmp_path / "runs", data=get_scale("tiny").config.data)
    machine = Machine(place=place, scale="tiny", workers=1, threads=1, sweeps=("table1-x",))
    monkeypatch.setattr(submitit.JobEnvironment, "USR_SIG", "USR1")
    with pytest.raises(ConfigError, match="PREEMPT_SIGNAL asks for SIGUSR1, which no run hears; unset it"):
        slurm([], machine)
    assert not place.runs.exists()
    monkeypatch.setattr(submitit.JobEnvironment, "USR_SIG", "USR2")
    with pytest.raises(SlurmError, match="not on PATH"):
        slurm([], machine)
