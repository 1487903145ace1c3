"""`make mutate`: break one property at a time and run the tests that should notice.

The mutants are meaningful (a mask that leaks, a denominator that is off, a detach that is missing), hence written by
hand; a mutation tool would try thousands of accidental ones and miss these. Nothing here touches the working tree: each
of two processes at a time works on a copy of it. Libraries are imported once and every mutant is tried in a fork,
because importing them takes longer than the tests.

Exits with 1 where a mutant survives without a stated reason, or one stated to be equivalent is noticed after all.
"""

import argparse
import importlib
import multiprocessing as mp
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

import pytest

from tests.mutants.catalogue import ROOT, Mutant, load

LIBRARIES = (
    "torch", "timm.models.vision_transformer", "transformers.models.opt.modeling_opt", "open_clip.loss", "hypothesis",
    "beartype", "jaxtyping", "safetensors.torch", "pandas", "PIL.Image",
)  # fmt: skip
OURS = ("backbones", "data", "experiments", "objectives", "results", "transfer", "tests")
WORKERS = 2
SLIPS = ("NameError", "SyntaxError", "ImportError", "UnboundLocalError")  # the mutant itself is wrong
SECONDS = 240  # a mutant that never ends is noticed as well


class First:
    """A pytest plugin that remembers the first failure."""

    failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._remember(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._remember(report)

    def _remember(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if report.failed and not self.failed:
            slip = next((each for each in SLIPS if each in report.longreprtext), "")
            self.failed = f"{report.nodeid}{f' by {slip}, so it is no mutant' if slip else ''}"


def ask(folder: Path, tests: Sequence[str], answer: Connection) -> None:
    """In a fork: run these tests of a copy, answer with the first that fails, "" where none does."""
    os.chdir(folder)
    sys.path[:] = [str(folder), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    for name in [name for name in sys.modules if name.split(".")[0] in OURS]:
        del sys.modules[name]
    first = First()
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), *tests], plugins=[first])
    used = Path(importlib.import_module("objectives").__file__ or "").resolve()
    if not used.is_relative_to(folder.resolve()):
        raise RuntimeError(f"the tests ran on {used}, not on the copy in {folder}")
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        raise RuntimeError(f"pytest stopped with {code!r}")
    answer.send(first.failed)


@dataclass
class Trial:
    """Tests that are running on a copy in a process of their own."""

    folder: Path
    mutant: Mutant | None  # None: the copy is whole
    text: str  # of the file that is broken, before
    process: mp.process.BaseProcess
    answer: Connection
    began: float

    @classmethod
    def start(cls, folder: Path, tests: Sequence[str], mutant: Mutant | None = None) -> "Trial":
        """Break the copy and run the tests."""
        text = ""
        if mutant is not None:
            text = (folder / mutant.file).read_text(encoding="utf-8")
            (folder / mutant.file).write_text(mutant.broken(text), encoding="utf-8")
        hears, says = mp.Pipe(duplex=False)
        process = mp.get_context("fork").Process(target=ask, args=(folder, tests, says))
        process.start()
        says.close()
        return cls(folder, mutant, text, process, hears, time.monotonic())

    def finish(self) -> str:
        """Repair the copy; the first test that failed. Raises RuntimeError where the tests could not be run."""
        try:
            failed = str(self.answer.recv()) if self.answer.poll() else f"no end within {SECONDS} s"
        except EOFError:
            raise RuntimeError(f"the tests of {self.mutant} could not be run; the reason stands above") from None
        finally:
            self.process.kill()
            self.process.join()
            if self.mutant is not None:
                (self.folder / self.mutant.file).write_text(self.text, encoding="utf-8")
        return failed


def copies(below: Path) -> Iterator[Path]:
    """Copies of what the tests need, one for each worker."""
    for number in range(WORKERS):
        folder = below / str(number)
        for name in OURS:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "records"))
        shutil.copy2(ROOT / "pyproject.toml", folder)
        yield folder


def outcomes(mutants: Sequence[Mutant], free: list[Path]) -> Iterator[tuple[Mutant, str, float]]:
    """Each mutant with the first test that failed and the seconds it took, as they finish."""
    waiting, running = list(mutants), list[Trial]()
    while waiting or running:
        while waiting and free:
            mutant = waiting.pop(0)
            running.append(Trial.start(free.pop(), mutant.tests, mutant))
        left = max(0.0, min(trial.began for trial in running) + SECONDS - time.monotonic())
        answered = wait([trial.answer for trial in running], left)
        for trial in list(running):
            if trial.answer in answered or time.monotonic() - trial.began > SECONDS:
                running.remove(trial)
                failed = trial.finish()
                free.append(trial.folder)
                if trial.mutant is not None:
                    yield trial.mutant, failed, time.monotonic() - trial.began


def judge(mutant: Mutant, failed: str) -> tuple[str, bool]:
    """The outcome in words, and whether it is as it should be."""
    if failed.endswith("no mutant"):
        return f"WRONG, stops {failed}", False
    if failed and mutant.equivalent:
        return f"NOT EQUIVALENT, noticed by {failed}", False
    if failed:
        return f"killed by {failed.removeprefix('tests/')}", True
    if mutant.equivalent:
        return f"equivalent: {mutant.equivalent}", True
    return "SURVIVED", False


def main(arguments: Sequence[str]) -> int:
    """Print two lines for each mutant and a count; 0 where every outcome is as it should be."""
    parser = argparse.ArgumentParser(prog="make mutate", description="Break each property once; a test must notice.")
    parser.add_argument("--only", default="", metavar="WORD", help="mutants whose row, file or words contain this")
    word = parser.parse_args(arguments).only
    mutants = [each for each in load() if word in each.row or word in each.file or word in each.breaks]
    if not mutants:
        print(f"no mutant has {word!r} in its row, file or words; leave --only out to try all", file=sys.stderr)
        return 2
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.dont_write_bytecode = True  # a file of equal size and second would be taken from the cache
    began, wrong = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="mutants-") as below:
        free = list(copies(Path(below)))
        whole = Trial.start(free[0], list(dict.fromkeys(test for mutant in mutants for test in mutant.tests)))
        whole.answer.poll(SECONDS)
        if failed := whole.finish():
            print(f"with nothing broken, {failed} fails already; repair it first", file=sys.stderr)
            return 2
        for mutant, failed, seconds in outcomes(mutants, free):
            outcome, right = judge(mutant, failed)
            wrong += [] if right else [mutant]
            print(f"{mutant.row:10} {mutant.breaks} ({mutant.file})\n{'':10} {outcome}, {seconds:.0f} s", flush=True)
    equivalent = sum(bool(mutant.equivalent) for mutant in mutants)
    minutes = (time.monotonic() - began) / 60
    print(
        f"\n{len(mutants)} mutants, {equivalent} equivalent, {len(wrong)} not as they should be; {minutes:.1f} minutes"
    )
    for mutant in wrong:
        print(f"  look at: {mutant.row}: {mutant.breaks}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
