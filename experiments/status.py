"""`python -m experiments.status table1`: how every run of a sweep stands, wherever it runs and whoever started it.

Read from the run folders, and from squeue where runs were handed to SLURM.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from experiments.launching import manifest, queue
from experiments.launching.board import describe, duration
from experiments.launching.manifest import Manifest
from experiments.launching.queue import Job, SlurmError
from experiments.launching.states import Seen, State, look, submitted
from experiments.running.attempts import is_done, last_seen

REFRESH_SECONDS = 5.0
ORDER = {state: place for place, state in enumerate(get_args(State))}


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m experiments.status", description="How every run of a sweep stands.")
    made.add_argument("sweep", help="a table (its latest sweep), or the name of a sweep")
    made.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s")
    made.add_argument("--watch", action="store_true", help="refresh until Ctrl-C")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    runs = options.runs.resolve()
    try:
        console = Console(soft_wrap=True)
        if not options.watch:
            console.print(page(manifest.read(runs, options.sweep), runs))
            return 0
        with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
            while True:
                live.update(page(manifest.read(runs, options.sweep), runs), refresh=True)
                time.sleep(REFRESH_SECONDS)
    except manifest.NoSweep as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SlurmError as error:
        print(f"error: {error}; without the queue nobody can say which runs are lost", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def page(sweep: Manifest, runs: Path) -> Group:
    """Everything to show. Raises SlurmError where the queue is needed and does not answer."""
    jobs = held(sweep, runs)
    seen = {run_id: look(runs / run_id, jobs) for run_id in sweep.run_ids}
    counts = Counter(each.state for each in seen.values())
    said = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    since = duration(time.time() - sweep.written)
    head = f"{sweep.name}: {len(seen)} runs: {said} ({sweep.launcher}, from {sweep.host}, {since} ago)"
    return Group(Text(head), _grid(sweep, seen), Text("\n".join(_lines(runs, seen))))


def held(sweep: Manifest, runs: Path) -> Mapping[str, Job]:
    """What the queue holds of a sweep's runs, which is asked for those not done. Raises SlurmError."""
    found = [submitted(runs / run_id) for run_id in sweep.run_ids if not is_done(runs / run_id)]
    return queue.those(each.job for each in found if each is not None)


def _grid(sweep: Manifest, seen: Mapping[str, Seen]) -> Table:
    """Rows by stages; a cell counts its seeds where there are several."""
    stages = list(dict.fromkeys(str(slot["stage"]) for slot in sweep.slots))
    table = Table(show_edge=False, pad_edge=False)
    for name in ("row", *stages):
        table.add_column(name, no_wrap=True)
    for row in dict.fromkeys(str(slot["row"]) for slot in sweep.slots):
        cells = []
        for stage in stages:
            slots = [slot for slot in sweep.slots if (slot["row"], slot["stage"]) == (row, stage)]
            states = Counter(_word(seen[str(slot["run_id"])]) for slot in slots)
            cells.append(", ".join(f"{count} {word}" if len(slots) > 1 else word for word, count in states.items()))
        table.add_row(row or "(all rows)", *cells)
    return table


def _word(seen: Seen) -> str:
    step, steps = seen.progress.get("step"), seen.progress.get("steps")
    share = f" {100 * step / steps:.0f} %" if isinstance(step, int) and isinstance(steps, int) and steps else ""
    return f"{seen.state}{share if seen.state in ('running', 'stopped', 'lost') else ''}"


def _lines(runs: Path, seen: Mapping[str, Seen]) -> list[str]:
    """A line for each run that is neither done nor only waiting for its turn."""
    found = sorted(seen.items(), key=lambda each: ORDER[each[1].state])
    return [f"{each.state:8} {run_id}: {_about(runs / run_id, each)}" for run_id, each in found if _about(runs, each)]


def _about(folder: Path, seen: Seen) -> str:
    if seen.state in ("done", "waiting"):
        return ""
    if seen.state == "queued":
        assert seen.queued is not None
        return f"job {seen.queued.job} {seen.queued.state} {seen.queued.reason}"
    log = f"; log {seen.attempt.log}" if seen.attempt is not None and seen.attempt.log else ""
    if seen.state != "running":
        return f"{seen.why}{log if log[6:] not in seen.why else ''}"
    if seen.attempt is None or seen.attempt.ended:
        return f"job {seen.queued.job if seen.queued else '?'} starts"
    quiet = last_seen(folder, seen.attempt)
    return f"{describe(seen.progress)}, {seen.attempt.who}, seen {duration(max(0.0, quiet))} ago{log}"


if __name__ == "__main__":
    sys.exit(main())
