"""SIGKILL at random moments of a training, writes of checkpoints included: the end is that of an unharmed run.

The run is killed again and again until it is done. The moments differ every time, so repeating this file tries more.
"""

import math
import os
import signal
import time
from pathlib import Path

import pytest
from sweep_helpers import BUDGET, CLIP, plan_pretraining, small_place

from data.seeds import generator
from experiments.configuration.place import Place
from experiments.running import attempts
from experiments.running.cost import Cost
from experiments.running.fit import Cadence
from experiments.running.lifecycle import execute
from experiments.running.stages import pretrain
from experiments.running.world import ENCODER_FILE

CHANGES = (*(change for change in BUDGET if not change.startswith("pretrain.images=")), "pretrain.images=320")


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpora")


def left(place: Place, run_id: str) -> tuple[bytes, bytes]:
    folder = place.runs / run_id
    return (folder / ENCODER_FILE).read_bytes(), (folder / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_killed_at_any_moment_a_run_ends_as_one_that_was_not(
    tmp_path: Path, corpora: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pretrain, "Cadence", lambda: Cadence(log_every=1, checkpoint_seconds=0.0, checkpoint_share=math.inf)
    )
    monkeypatch.setattr(pretrain.cost, "measure", lambda *_: Cost(0.0, 0, 0.0))  # takes longer than a step
    monkeypatch.setattr(pretrain, "visual_use", lambda *_: None)
    whole, killed = (small_place(corpora, tmp_path / name, CHANGES) for name in ("whole", "killed"))
    run_id = plan_pretraining(whole, CLIP, CHANGES)
    assert plan_pretraining(killed, CLIP, CHANGES) == run_id
    began = time.monotonic()
    execute(run_id, whole, "tiny")
    third = (time.monotonic() - began) / 3  # so that it takes a few, however fast the machine
    kills = 0
    for moment in generator("kill", time.time_ns()).uniform(third / 5, third, 200):
        child = os.fork()
        if child == 0:
            execute(run_id, killed, "tiny")
            os._exit(0)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        kills += os.waitpid(child, 0)[1] == signal.SIGKILL
        if attempts.is_done(killed.runs / run_id):
            break
    assert kills > 2 and left(killed, run_id) == left(whole, run_id)
    print(f"{kills} kills")
