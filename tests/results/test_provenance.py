"""Revision and environment, without torch."""

import subprocess
import sys
from pathlib import Path

from results.provenance import environment, revision


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.invalid", "-c", "commit.gpgsign=false")
    done = subprocess.run(("git", "-C", str(root), *identity, *arguments), capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_revision_is_dirty_from_the_first_change(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("runs/\n")
    git(tmp_path, "add", ".")
    assert revision(tmp_path) == ("unknown", True)  # no commit yet
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = git(tmp_path, "rev-parse", "HEAD"), False
    assert revision(tmp_path) == clean
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "record.json").touch()
    assert revision(tmp_path) == clean  # ignored files change nothing
    for folder in ("tables", "records"):
        (tmp_path / "results" / folder).mkdir(parents=True)
        (tmp_path / "results" / folder / "table1").touch()
    assert revision(tmp_path) == clean  # nor does what a sweep prints
    (tmp_path / "new.py").touch()
    assert revision(tmp_path) == (clean[0], True)


def test_outside_a_repository_nothing_is_claimed(tmp_path: Path) -> None:
    assert revision(tmp_path / "none") == ("unknown", True)


def test_the_environment_is_text_and_names_what_is_not_installed() -> None:
    found = environment("NVIDIA H200", 4, packages=("pandas", "no-such-package"))
    assert found["device"] == "NVIDIA H200" and found["threads"] == "4" and found["no-such-package"] == "not installed"
    assert found["pandas"][0].isdigit() and all(isinstance(value, str) and value for value in found.values())


def test_results_never_import_torch() -> None:
    modules = "results.page.printed, results.publish, results.provenance, results.record"
    code = f"import sys, {modules}; results.provenance.environment('cpu', 1); sys.exit('torch' in sys.modules)"
    assert subprocess.run((sys.executable, "-c", code), cwd=Path(__file__).parents[2]).returncode == 0
