"""Where a number comes from: revision of the code, versions of the libraries, machine. Never imports torch."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

PACKAGES = ("torch", "transformers", "timm", "open_clip_torch", "numpy", "pandas", "tokenizers")

PRINTED = (":(exclude)results/tables", ":(exclude)results/records")  # as git's pathspecs


class Revision(NamedTuple):
    """A commit and whether the files differed from it."""

    commit: str  # 40 hexadecimal digits, or "unknown" outside a repository
    dirty: bool


def revision(root: Path) -> Revision:
    """The commit checked out at `root`; dirty when a tracked file was edited or an untracked one is not ignored.

    Tables and records are no code: a sweep that printed one leaves the next run as clean as it was.
    """
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return Revision(commit, bool(_git(root, "status", "--porcelain", "--", ".", *PRINTED)))
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, or no commit yet
        return Revision("unknown", True)


def environment(device: str, threads: int, packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """What a result may depend on besides the code: Python, library versions, processor, `device` and threads.

    device: the accelerator's name as torch reports it, or "cpu".
    """
    found = {"python": platform.python_version(), "machine": platform.machine(), "cpu": cpu_name()}
    found |= {"device": device, "threads": str(threads)}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def cpu_name() -> str:
    """Model name of the processor, as the kernel gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []  # not Linux
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _git(root: Path, *arguments: str) -> str:
    plain_locale = {**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"}
    done = subprocess.run(
        ("git", "-C", str(root), *arguments), capture_output=True, text=True, check=True, env=plain_locale, timeout=60
    )
    return done.stdout.strip()
