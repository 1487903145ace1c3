"""`python -m data.toyworld DIR`: write the embedded dialogue corpus, to try things out on.

The embedded corpora of pre-training and transfer are written by a sweep where it needs them.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_args

from data.toyworld.dialogue import write_dialogue
from data.toyworld.spec import ToyDialogueSpec


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m data.toyworld",
        description="Write pictures of four things, or of one, with LLaVA's conversations about them and questions.",
    )
    made.add_argument("folder", type=Path, help="where to; it must not be there yet")
    for each in fields(ToyDialogueSpec):
        what = _ABOUT.get(each.name, f"pictures of {each.name}")
        choices = get_args(each.type) or None
        made.add_argument(
            f"--{each.name}",
            type=int,
            default=each.default,
            choices=choices,
            metavar=None if choices else "N",
            help=f"{what} (default: %(default)s)",
        )
    return made


_ABOUT = {"seed": "draw of the corpus", "things": "things in a picture: a corner each, or one alone"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    given = {each.name: getattr(options, each.name) for each in fields(ToyDialogueSpec)}
    for name, value in given.items():
        if value < (name != "seed"):
            print(f"error: --{name} is at least {int(name != 'seed')}, got {value}", file=sys.stderr)
            return 2
    try:
        write_dialogue(options.folder, ToyDialogueSpec(**given))
    except FileExistsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder}: {', '.join(f'{given[name]} pictures of {name}' for name in ('align', 'tune', 'test'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
