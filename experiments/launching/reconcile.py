"""Runs whose process is gone without a word: somebody who looks writes down what became of them."""

import contextlib
from collections.abc import Mapping, Sequence

from experiments.configuration.place import Place
from experiments.launching.queue import Job
from experiments.launching.states import look
from experiments.running.attempts import Held
from experiments.running.lifecycle import record_death


def settle(run_ids: Sequence[str], place: Place, scale: str, jobs: Mapping[str, Job]) -> None:
    """Record as failed, with the reason, every run that was begun or submitted, is not over, and nobody is at.

    jobs: what the queue holds. The next sweep tries such runs again, from their last checkpoint. Raises OSError where a
    record cannot be written.
    """
    for run_id in run_ids:
        seen = look(place.runs / run_id, jobs)
        if seen.state in ("lost", "stopped"):
            with contextlib.suppress(Held):  # begun again a moment ago
                record_death(run_id, place, scale, seen.why)
