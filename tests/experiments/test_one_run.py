"""Commands that train a few runs: one that another process is at is waited for."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from experiments.command import one_run
from experiments.command.exits import EXIT_INCOMPLETE, ended
from experiments.running import lifecycle
from experiments.running.attempts import Held, claim


def test_a_run_that_another_process_is_at_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lease, done = claim(tmp_path / "one"), []

    def execute(run_id: str, *_: object, **__: object) -> None:
        claim(tmp_path / run_id)
        done.append(run_id)

    def passes(seconds: float) -> None:
        if len(slept) == 2:
            lease.end("done")
        slept.append(seconds)

    slept: list[float] = []
    monkeypatch.setattr(lifecycle, "execute", execute)
    monkeypatch.setattr("experiments.command.one_run.time", SimpleNamespace(sleep=passes))
    run = SimpleNamespace(run_id="one", written=SimpleNamespace(save=lambda folder: None))
    one_run.do(SimpleNamespace(runs=tmp_path), run, "tiny")  # type: ignore[arg-type]
    assert done == ["one"] and len(slept) == 3
    assert capsys.readouterr().err.count("waiting: one is being done by process") == 1


def test_a_command_that_meets_another_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lease = claim(tmp_path / "one")

    def command() -> int:
        raise Held(tmp_path / "one", lease.attempt)

    assert ended(command, {"--runs": tmp_path}) == EXIT_INCOMPLETE
    assert capsys.readouterr().err.startswith("error: one is being done by process")
