"""A very small embedded corpus, and sweeps over it that take seconds: for tests that train.

`small_suite` changes the suite inside this process. `start` does the same in a process of its own and sweeps there, so
that launcher, jobs and exit code are those a user gets.
"""

import ctypes
import multiprocessing
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from data.toyworld.spec import ToyworldSpec
from data.toyworld.write import ensure_toyworld
from experiments import sweep
from experiments.columns import ALL_NINE
from experiments.configuration import corpora
from experiments.configuration.overrides import apply, parse
from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.launching import preflight
from experiments.launching.inline import inline
from experiments.launching.machine import Launched, Machine
from experiments.planning.catalogue import Suite
from experiments.planning.plan import build_plan
from experiments.planning.specs import PlannedRun
from experiments.tables import TABLES
from results import record
from results.schema import Row, Status, Table

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
SIZES = dict(
    documents=60,
    documents_per_shard=40,
    laion_pairs=48,
    transfer_train=48,
    transfer_val=8,
    classification_test=24,
    caption_test=24,
)
SMALL = ToyworldSpec(**SIZES)
BUDGET = (
    "pretrain.optim.precision=fp32",
    "text_lm.optim.precision=fp32",
    "data.vocabulary=600",  # whole words, or documents would not fit their rows
    "pretrain.images=48",
    "pretrain.images_per_step=16",
    "text_lm.steps=2",
    "text_lm.batch=8",
    "transfer.classify.epochs=1",
    "transfer.retrieve.epochs=1",
    "transfer.caption.epochs=1",
)
CLIP = Row(label="CLIP", objective="clip", data="mmc4-pair", task="Con.")
LCL = Row(label="LCL", objective="lcl", data="mmc4", task="Con. + Gen.")
TABLE = Table(
    name="small",
    title="Small table",
    caption="Two rows for tests.",
    columns=ALL_NINE,
    rows=(CLIP, LCL),
    paper_csv="table1.csv",
    cost_reference="CLIP",
)


def small_suite(patch: pytest.MonkeyPatch, table: Table = TABLE) -> None:
    """Make SMALL the embedded corpus and add `table` to the tables there are."""
    patch.setattr(corpora, "ToyworldSpec", partial(ToyworldSpec, **SIZES))
    patch.setitem(TABLES, table.name, table)


def arguments(runs: Path, *more: str, table: str = TABLE.name) -> list[str]:
    """The command line of a small sweep by one worker; its tables go to runs/out. `more` goes before BUDGET."""
    given = {argument.partition("=")[0] for argument in more}
    changes = [part for change in BUDGET if change.partition("=")[0] not in given for part in ("--set", change)]
    return [table, "--runs", str(runs), "--out", str(runs / "out"), "--workers", "1", *changes, *more]


def environment() -> dict[str, str]:
    """Of a process that imports the suite and these helpers."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


def obeys_permissions() -> None:
    """For a new process: what may not be written is not, by root either (capabilities(7))."""
    drop_from_bounding_set, override_permissions = 24, 1
    ctypes.CDLL(None).prctl(drop_from_bounding_set, override_permissions)


def start(runs: Path, *more: str) -> "subprocess.Popen[str]":
    """A small sweep in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", "import sweep_helpers; sweep_helpers.main()", *arguments(runs, *more)],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=obeys_permissions,
    )


def small_place(root: Path, runs: Path, changes: Sequence[str] = BUDGET) -> Place:
    """Runs in `runs`, on the small corpus below `root`, which is written if it is not there."""
    folder = ensure_toyworld(root, SMALL)
    config = apply(get_scale("tiny").config, parse(changes)).data
    names = ("mmc4", "laion", "imagenet", "retrieval_train", "caption_train", "coco", "flickr30k", "nocaps")
    return Place(runs=runs, data=replace(config, **{name: folder / name for name in names}))


def plan_pretraining(place: Place, row: Row, changes: Sequence[str] = BUDGET, seed: int = 0) -> str:
    """Write spec.json of a row's pre-training into its run folder; the run_id."""
    table = replace(TABLE, rows=(row,), cost_reference=row.label)
    config = preflight.with_precision(replace(apply(get_scale("tiny").config, parse(changes)), data=place.data))
    known = {name: SMALL.folder_name for name in asdict(place.data)}
    run = build_plan([table], [seed], get_scale("tiny"), config, Suite(), known).runs[0]
    run.written.save(place.runs / run.run_id)
    return run.run_id


def with_corpus(runs: Path, corpus: Path) -> Path:
    """A runs folder in which the small corpus is there already."""
    (runs / "shared" / "corpora").mkdir(parents=True)
    (runs / "shared" / "corpora" / corpus.name).symlink_to(corpus)
    return runs


def statuses(runs: Path) -> dict[str, Status]:
    return {path.parent.name: record.read(path).status for path in runs.glob("*/record.json")}


def tables(runs: Path) -> dict[str, bytes]:
    """The tables as written, but for the revision of the code, which may change while the tests run."""
    written = {path.name: path.read_bytes() for path in sorted((runs / "out" / "tables").iterdir())}
    return {name: re.sub(rb"(?m)^- commit: .*$", b"", content) for name, content in written.items()}


def wait_for(condition: Callable[[], T], seconds: float = 240.0) -> T:
    """What the condition gives, once that is something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def alone() -> None:
    """A small sweep in which every run has a process of its own, forked before any run."""
    patch = pytest.MonkeyPatch()

    def apart(runs: Sequence[PlannedRun], machine: Machine) -> Launched:
        for run in runs:
            child = multiprocessing.get_context("fork").Process(
                target=inline, args=([run], replace(machine, workers=1))
            )
            child.start()
            child.join()
        return "over"

    patch.setattr(sweep, "get_launcher", lambda name: apart)
    small_suite(patch)
    sys.exit(sweep.main())


def main() -> None:
    """What `start` runs."""
    small_suite(pytest.MonkeyPatch())
    sys.exit(sweep.main())
