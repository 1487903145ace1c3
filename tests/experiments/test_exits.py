"""How a command ends where a machine refuses: one line, with the option that this command has."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.command.exits import EXIT_DONE, EXIT_FAILED, ended

ROOT = Path(__file__).parents[2]


def said(capsys: pytest.CaptureFixture[str], error: OSError, places: dict[str, Path | None]) -> str:
    def command() -> int:
        raise error

    assert ended(command, places) == EXIT_FAILED
    return capsys.readouterr().err


def test_another_place_is_chosen_with_the_option_that_named_this_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"--runs": tmp_path / "runs", "--out": tmp_path / "out"}
    for option, place in places.items():
        full = OSError(errno.ENOSPC, "No space left on device", str(place / "x.json"))
        asked = (
            f"error: No space left on device ({place}/x.json); free some space, or choose another place with {option}\n"
        )
        assert said(capsys, full, {**places, "--items": None}) == asked
    unnamed = said(capsys, OSError(errno.EROFS, "Read-only file system"), dict(places))
    assert f"({tmp_path}/runs); have it mounted for writing, or choose another place with --runs" in unnamed
    elsewhere = said(capsys, OSError(errno.EDQUOT, "Disk quota exceeded", "/elsewhere/x"), dict(places))
    assert elsewhere.endswith("(/elsewhere/x); your quota is used up; free some space\n")
    assert said(capsys, OSError(errno.EACCES, "Permission denied", "/elsewhere/x"), {}).endswith(
        "right to write there\n"
    )
    assert said(capsys, OSError(errno.EIO, "Input/output error", "/x"), dict(places)) == (
        "error: [Errno 5] Input/output error: '/x'\n"
    )


def test_a_file_that_may_not_be_read_asks_for_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "answers.jsonl"
    path.touch()
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.F_OK)  # root may read everything
    error = PermissionError(errno.EACCES, "Permission denied", str(path))
    asked = f"error: Permission denied ({path}); ask its owner for the right to read it\n"
    assert said(capsys, error, {"--runs": tmp_path}) == asked


def command(text: str, **variables: str) -> "subprocess.Popen[bytes]":
    script = (
        f"import sys; from experiments.command.exits import ended; sys.exit(ended(lambda: print({text}) or 0, {{}}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **variables},
    )


def test_who_reads_only_the_beginning_gets_no_complaint() -> None:
    process = command("'x' * 10**6")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()  # as `head` does
    assert process.stderr.read() == b"" and process.wait() == EXIT_FAILED
    process.stderr.close()


def test_a_sign_that_a_locale_lacks_is_no_error() -> None:
    out, err = command("'2 \\u00d7 3'", PYTHONIOENCODING="ascii").communicate()
    assert (out, err) == (b"2 ? 3\n", b"")


def test_a_command_that_ends_well_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert ended(lambda: EXIT_DONE, {}) == EXIT_DONE and capsys.readouterr() == ("", "")
