"""How a command ends: its exit code, and one line about what went wrong."""

import errno
import sys
from collections.abc import Callable
from pathlib import Path

from experiments.running.attempts import Held, LeaseLost
from experiments.running.stopping import Stopped, stoppable

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INCOMPLETE, EXIT_STOPPED = 0, 1, 2, 3, 130

# What helps where a file cannot be written; anything else is said as the system says it.
_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another place with --runs",
    errno.EDQUOT: "your quota is used up; free some space, or choose another place with --runs",
    errno.EROFS: "choose a place that can be written with --runs",
    errno.EACCES: "ask its owner for the right to write there, or choose another place with --runs",
    errno.EPERM: "ask its owner for the right to write there, or choose another place with --runs",
}


def ended(command: Callable[[], int], runs: Path) -> int:
    """Do what a command does; its exit code, whatever happens. runs: where it writes, for errors that name no file.

    Inside, signals raise Stopped. What a user gave is a ValueError, what a machine lacks an OSError.
    """
    try:
        with stoppable():
            return command()
    except ValueError as error:  # settings, corpora, records
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"error: {_said(error, runs)}", file=sys.stderr)
        return EXIT_FAILED
    except (Held, LeaseLost) as error:
        print(f"error: {error}; run the same command again when that has ended", file=sys.stderr)
        return EXIT_INCOMPLETE
    except (KeyboardInterrupt, Stopped):
        print("stopped; run the same command again to continue", file=sys.stderr)
        return EXIT_STOPPED


def _said(error: OSError, runs: Path) -> str:
    if error.errno not in _REMEDIES:
        return str(error)
    return f"{error.strerror} ({error.filename or runs}); {_REMEDIES[error.errno]}"
