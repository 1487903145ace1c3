"""What commands do that train a few runs one after the other, in their own process."""

import logging
import sys
import time

from experiments.configuration.place import Place
from experiments.planning.specs import PlannedRun
from results import record
from results.schema import Status

logger = logging.getLogger(__name__)

POLL_SECONDS = 5.0


def is_done(place: Place, run: PlannedRun) -> bool:
    """Whether a run has been finished."""
    path = place.runs / run.run_id / record.RECORD_FILE
    return path.exists() and record.read(path).status is Status.DONE


def do(place: Place, run: PlannedRun, scale: str) -> None:
    """Do a run unless it is done; where another process is at it, wait for that one.

    Raises as `experiments.running.lifecycle.execute` does, Held apart.
    """
    from experiments.running.attempts import Held
    from experiments.running.lifecycle import execute  # imports torch: what a typo can be told without comes before

    if is_done(place, run):
        return
    run.written.save(place.runs / run.run_id)
    print(run.run_id, file=sys.stderr, flush=True)
    said = False
    while True:
        try:
            execute(run.run_id, place, scale, bar=True)
            return
        except Held as held:
            if not said:
                print(f"waiting: {held}", file=sys.stderr, flush=True)
            said = True
            time.sleep(POLL_SECONDS)
