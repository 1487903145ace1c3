"""How a command ends: its exit code, and one line about what went wrong."""

import errno
import os
import sys
from collections.abc import Callable, Mapping
from io import TextIOWrapper
from pathlib import Path

from experiments.running.attempts import Held, LeaseLost
from experiments.running.stopping import Stopped, stoppable

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INCOMPLETE, EXIT_STOPPED = 0, 1, 2, 3, 130

# What helps where a file cannot be written; anything else is said as the system says it.
_REMEDIES = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "your quota is used up; free some space",
    errno.EROFS: "have it mounted for writing",
    errno.EACCES: "ask its owner for the right to write there",
    errno.EPERM: "ask its owner for the right to write there",
}


def ended(command: Callable[[], int], places: Mapping[str, Path | None]) -> int:
    """Do what a command does; its exit code, whatever happens.

    places: where it writes, by the option that says so; the first is meant by errors that name no file. Inside, signals
    raise Stopped. What a user gave is a ValueError, what a machine lacks an OSError.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # of a locale without a sign that is printed
    try:
        with stoppable():
            return command()
    except ValueError as error:  # settings, corpora, records
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except BrokenPipeError:  # who reads what is printed has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except OSError as error:
        print(f"error: {_said(error, places)}", file=sys.stderr)
        return EXIT_FAILED
    except (Held, LeaseLost) as error:
        print(f"error: {error}; run the same command again when that has ended", file=sys.stderr)
        return EXIT_INCOMPLETE
    except (KeyboardInterrupt, Stopped):
        print("stopped; run the same command again to continue", file=sys.stderr)
        return EXIT_STOPPED


def _said(error: OSError, places: Mapping[str, Path | None]) -> str:
    if error.errno not in _REMEDIES:
        return str(error)
    given = {option: path for option, path in places.items() if path is not None}
    place = Path(error.filename or next(iter(given.values()), ""))
    if os.access(place, os.F_OK) and not os.access(place, os.R_OK):
        return f"{error.strerror} ({place}); ask its owner for the right to read it"
    options = [option for option, path in given.items() if place.absolute().is_relative_to(path.absolute())]
    other = [f"choose another place with {option}" for option in options[-1:]]
    return f"{error.strerror} ({place}); {', or '.join([_REMEDIES[error.errno], *other])}"
