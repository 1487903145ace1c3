"""Progress of a run: a small file others can read, and a bar where somebody is looking.

`progress.json` in the run folder holds the stage, the step, the rate and the time left. The launcher that runs several
jobs at once draws its table from these files; a job that runs alone draws a bar itself.
"""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

INTERVAL = 1.0  # seconds between writes


class Progress:
    """Where a run stands. `images_per_step` turns steps into images; 0 for runs without images."""

    def __init__(self, folder: Path, stage: str, images_per_step: float = 0, bar: bool = False) -> None:
        self.path, self.stage, self.images_per_step = folder / "progress.json", stage, images_per_step
        self._began: tuple[float, int] | None = None
        self._wrote = 0.0
        self._alarm = ""
        self._bar = tqdm(desc=stage, unit="step", disable=None if bar else True, leave=False)

    def update(self, step: int, steps: int, shown: Mapping[str, float]) -> None:
        """After a step. Writes at most once a second."""
        now = time.monotonic()
        if self._began is None:
            self._began = now, step
            self._bar.total, self._bar.initial, self._bar.n = steps, step, step
        self._bar.update(step - self._bar.n)
        if now - self._wrote < INTERVAL and step < steps:
            return
        self._wrote = now
        rate = (step - self._began[1]) / max(1e-9, now - self._began[0])
        loss = next(iter(shown.values()), math.nan)
        self._bar.set_postfix_str(f"{rate * self.images_per_step:.0f} img/s, loss {loss:.3f}", refresh=False)
        self.write(
            step=step,
            steps=steps,
            steps_per_second=rate,
            images_per_second=rate * self.images_per_step,
            eta_seconds=(steps - step) / rate if rate else None,
            loss=loss if math.isfinite(loss) else None,
            **({"alarm": self._alarm} if self._alarm else {}),
        )

    def set_alarm(self, text: str) -> None:
        """What is said beside the progress from now on; "" for nothing."""
        self._alarm = text

    def write(self, **fields: float | int | str | None) -> None:
        """Replace the file. A reader sees the old or the new content, never a part."""
        partial = self.path.with_name(f".progress.{os.getpid()}")
        partial.write_text(json.dumps({"stage": self.stage, "pid": os.getpid(), "updated": time.time(), **fields}))
        os.replace(partial, self.path)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.close()


class Unseen(Progress):
    """Of a process that writes nothing: one of the ranks whose progress rank 0 shows."""

    def write(self, **fields: float | int | str | None) -> None:
        """Nothing."""


def read(folder: Path) -> dict[str, float | int | str | None]:
    """The progress last written in a run folder; empty where there is none yet."""
    try:
        found = json.loads((folder / "progress.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
