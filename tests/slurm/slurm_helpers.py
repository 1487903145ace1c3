"""Small sweeps on a cluster of cluster.py, started and looked at as a user does."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

from cluster import Cluster
from sweep_helpers import BUDGET, ROOT, environment, statuses, tables, wait_for

from experiments.running import attempts
from experiments.running.attempts import Attempt
from results import record
from results.schema import Status

ROWS = ("clip", "lcl", "Random encoder")
FIELDS = ("mmc4", "laion", "imagenet", "retrieval_train", "caption_train", "coco", "flickr30k", "nocaps")
BUDGET_OF_MANY_STEPS = (
    *(change for change in BUDGET if not change.startswith("pretrain.images=")),
    "pretrain.images=960",  # 60 steps
)


@dataclass(frozen=True)
class Sweep:
    """A table at a very small scale, on data that lies in folders as a user's own does."""

    runs: Path
    corpus: Path
    cluster: Cluster | None = None
    changes: tuple[str, ...] = BUDGET_OF_MANY_STEPS
    seconds: float = 500.0  # that a command or the queue is waited for
    table: str = "table1"

    def command(self, *more: str, rows: Sequence[str] = ("clip",)) -> list[str]:
        """Arguments of experiments.sweep."""
        changes = [*(f"data.{name}={self.corpus / name}" for name in FIELDS), *self.changes]
        chosen = [word for row in rows for word in ("--only", row)]
        sets = [word for change in changes for word in ("--set", change)]
        return [self.table, "--runs", str(self.runs), "--out", str(self.runs / "out"), *chosen, *sets, *more]

    def start(self, module: str, *arguments: str, path: str = "") -> "subprocess.Popen[str]":
        """A command of ours, in a process of its own. path: folder of commands that stand before others."""
        env = {**environment(), **(self.cluster.environment if self.cluster else {})}
        env["PATH"] = f"{path}{os.pathsep}{env['PATH']}" if path else env["PATH"]
        return subprocess.Popen(
            [sys.executable, "-m", f"experiments.{module}", *arguments],
            cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def call(self, module: str, *arguments: str, path: str = "") -> "subprocess.CompletedProcess[str]":
        """The same, waited for."""
        process = self.start(module, *arguments, path=path)
        try:
            said = process.communicate(timeout=self.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        return subprocess.CompletedProcess(process.args, process.returncode, *said)

    def submit(self, *more: str, rows: Sequence[str] = ("clip",), path: str = "") -> str:
        """Submit it; what the command said until it had. On a busy machine Python takes longer to end than runs to
        train, which tests want to see training."""
        process = self.start("sweep", *self.command("--launcher", "slurm", *more, rows=rows), path=path)
        said = ""
        for line in process.stderr or ():
            said += line
            if " submitted" in line:
                Thread(target=process.communicate, daemon=True).start()
                return said
        assert process.wait() == 0, said
        return said

    def folder(self, start: str) -> Path:
        """The run folder whose name begins so."""
        (found,) = self.runs.glob(f"{start}-*/spec.json")
        return found.parent

    def attempts(self, start: str) -> list[Attempt]:
        """Who was at that run."""
        return attempts.every(self.folder(start))

    def training(self, start: str) -> Attempt:
        """The attempt at a run, once it is in its steps and alive."""

        def found() -> Attempt | None:
            last = attempts.newest(self.folder(start))
            path = self.folder(start) / "progress.json"
            working = path.exists() and '"step"' in path.read_text()
            return last if working and last and attempts.alive(self.folder(start), last) else None

        return wait_for(found, self.seconds)

    def done(self, start: str) -> None:
        """Wait for a run to be finished, and for its last owner to have said so."""

        def found() -> bool:
            return attempts.is_done(self.folder(start)) and bool(self.attempts(start)[-1].ended)

        wait_for(found, self.seconds)

    def over(self) -> None:
        """Wait until the queue is empty: nothing is pending for ever."""
        assert self.cluster is not None
        queue = self.cluster.queue
        wait_for(lambda: not queue(), self.seconds)

    def trained(self, start: str) -> tuple[bytes, bytes]:
        """What a pre-training left."""
        folder = self.folder(start)
        return (folder / "encoder.safetensors").read_bytes(), (folder / "metrics.jsonl").read_bytes()

    def statuses(self) -> dict[str, Status]:
        """Of the runs that have a record."""
        return statuses(self.runs)

    def reason(self, start: str) -> str:
        """What the record of a run says."""
        return record.read(self.folder(start) / "record.json").reason

    def tables(self) -> dict[str, bytes]:
        """As written."""
        return tables(self.runs)
