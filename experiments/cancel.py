"""`python -m experiments.cancel table1`: ends what this sweep started, and nothing else.

Runs finish their step and save it; the sweep's command goes on from there. Runs that another sweep submitted or does
are left alone, though both need them.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.launching import manifest, queue
from experiments.launching.manifest import Manifest
from experiments.launching.queue import SlurmError
from experiments.launching.states import COLLATE, submitted
from experiments.running import attempts


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m experiments.cancel", description="End what a sweep started.")
    made.add_argument("sweep", help="a table (its latest sweep), or the name of a sweep")
    made.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    runs = options.runs.resolve()
    try:
        sweep = manifest.read(runs, options.sweep)
        print(_jobs(sweep, runs) if sweep.launcher == "slurm" else _process(sweep))
    except manifest.NoSweep as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _jobs(sweep: Manifest, runs: Path) -> str:
    folders = [runs / run_id for run_id in sweep.run_ids] + [runs / "shared" / "slurm" / COLLATE / sweep.name]
    own = [found.job for folder in folders if (found := submitted(folder)) is not None and found.sweep == sweep.name]
    held = queue.those(own)
    # The latest first: a job that waits for one that ends would begin.
    ending = sorted((job for job in own if job in held), key=lambda job: int(job.partition("_")[0]), reverse=True)
    queue.cancel(ending)
    return f"{sweep.name}: {len(ending)} jobs cancelled" + (f": {' '.join(ending)}" if ending else "")


def _process(sweep: Manifest) -> str:
    """Raises SlurmError where it is a process of another machine."""
    if sweep.machine != attempts.machine():
        raise SlurmError(f"{sweep.name} was started by process {sweep.pid} on {sweep.host}; cancel it there")
    if attempts.started(sweep.pid) != sweep.started:
        return f"{sweep.name}: its process {sweep.pid} has ended; nothing to cancel"
    os.kill(sweep.pid, signal.SIGTERM)
    return f"{sweep.name}: process {sweep.pid} is told to stop; its runs finish their step and save it"


if __name__ == "__main__":
    sys.exit(main())
