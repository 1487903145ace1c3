"""The launcher `inline`: every run in this process, one after the other, with a bar of its own."""

import sys
import time
from collections.abc import Sequence

import torch

from experiments.launching.machine import Launched, Machine, startable
from experiments.planning.specs import PlannedRun
from experiments.running.attempts import Held, LeaseLost
from experiments.running.lifecycle import execute
from experiments.running.stopping import stoppable

POLL_SECONDS = 1.0


def inline(runs: Sequence[PlannedRun], machine: Machine) -> Launched:
    """Do every run; one that another process is at is waited for, after those that can be done meanwhile."""
    torch.set_num_threads(machine.threads)
    waiting, said = list(runs), set[str]()
    with stoppable():
        while waiting:
            done = next((run for run in startable(waiting) if _did(run, machine, said)), None)
            if done is None:
                time.sleep(POLL_SECONDS)
            else:
                waiting.remove(done)
    return "over"


def _did(run: PlannedRun, machine: Machine, said: set[str]) -> bool:
    """Do it, unless another process is at it; `said` holds what the user knows already."""
    if run.run_id not in said:
        print(run.run_id, flush=True)
    try:
        execute(run.run_id, machine.place, machine.scale, bar=True, distributed=machine.distributed)
    except (Held, LeaseLost) as other:
        if run.run_id not in said:
            print(f"waiting: {other}", file=sys.stderr)
        said.add(run.run_id)
        return False
    return True
