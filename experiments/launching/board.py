"""The live table of a sweep: what each process does, how fast, and how long it will take.

On a terminal it redraws in place; elsewhere (a log file, CI) it prints one line every half minute.
"""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.table import Table

LOG_SECONDS = 30.0


@dataclass(frozen=True)
class Line:
    """One job and the progress its current run last wrote."""

    job: str
    progress: Mapping[str, float | int | str | None]


class Board:
    """Shows the running jobs of a sweep of `total` runs."""

    def __init__(self, total: int, console: Console | None = None) -> None:
        self.total, self.console = total, console or Console(file=sys.stderr)
        self._began = time.monotonic()
        self._logged = 0.0
        self._live = (
            Live(console=self.console, refresh_per_second=4, transient=True) if self.console.is_terminal else None
        )

    def __enter__(self) -> "Board":
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def show(self, lines: Sequence[Line], finished: int) -> None:
        """Draw the state now."""
        head = f"{finished} of {self.total} runs finished, {duration(time.monotonic() - self._began)}"
        if self._live:
            self._live.update(self._table(lines, head))
        elif time.monotonic() - self._logged > LOG_SECONDS:
            self._logged = time.monotonic()
            said = "; ".join(f"{line.job}: {describe(line.progress)}" for line in lines)
            self.console.print(f"[{head}] {said}", markup=False, soft_wrap=True)

    def _table(self, lines: Sequence[Line], head: str) -> Table:
        table = Table(title=head, title_justify="left", show_edge=False, pad_edge=False)
        for name in ("job", "stage", "step", "images/s", "loss", "left"):
            table.add_column(name, justify="left" if name in ("job", "stage") else "right", no_wrap=True)
        for line in lines:
            p = line.progress
            step = f"{p['step']:,} of {p['steps']:,}" if "steps" in p else str(p.get("note", "starting"))
            rate = p.get("images_per_second")
            loss = p.get("loss")
            table.add_row(
                f"{line.job} (ALARM: {p['alarm']})" if p.get("alarm") else line.job,
                str(p.get("stage", "")),
                step,
                f"{rate:,.0f}" if isinstance(rate, float) and rate else "",
                f"{loss:.3f}" if isinstance(loss, float) else "",
                duration(p.get("eta_seconds")),
            )
        return table


def describe(progress: Mapping[str, float | int | str | None]) -> str:
    """One job in words."""
    if "steps" not in progress:
        return str(progress.get("note", "starting"))
    left = duration(progress.get("eta_seconds"))
    alarm = f"; ALARM: {progress['alarm']}" if progress.get("alarm") else ""
    return f"{progress['stage']} step {progress['step']} of {progress['steps']}, {left} left{alarm}"


def duration(seconds: float | int | str | None) -> str:
    """Seconds as "12 s", "3 min 20 s" or "2 h 05 min"; empty where unknown."""
    if not isinstance(seconds, int | float):
        return ""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
