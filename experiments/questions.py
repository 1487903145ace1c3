"""`python -m experiments.questions pope --data DIR --out FILE`: a benchmark as a question file, to be answered."""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from experiments.command.benchmarks import add_release, kind_of, releases, split_of
from experiments.command.exits import EXIT_DONE, ended
from experiments.configuration.overrides import ConfigError
from results.record import write_atomic
from transfer.dialogue.scoring.mmbench import MMBench, tsv_of, unpacked


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.questions",
        description="Write a benchmark of multimodal dialogue as LLaVA's question file: question_id, image, text.",
        epilog="\n".join(releases()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_release(made)
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to, as JSON lines")
    made.add_argument("--unpack", type=Path, metavar="DIR", help="write the pictures of mmbench, which are in its TSV")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    return ended(partial(write, options), {"--out": options.out, "--unpack": options.unpack})


def write(options: argparse.Namespace) -> int:
    """Read the release, write its questions and, of MMBench, its pictures."""
    benchmark, split = kind_of(options)(), split_of(options)
    if options.unpack is not None and not isinstance(benchmark, MMBench):
        raise ConfigError(f"--unpack {options.unpack}: the pictures of {options.benchmark} are {benchmark.pictures}")
    questions = benchmark.read(options.data, split)
    lines = (json.dumps(benchmark.line(item, question)) for item, question in questions.items())
    write_atomic(options.out, "".join(f"{line}\n" for line in lines))
    if options.unpack is not None:
        for name, content in unpacked(tsv_of(options.data, split)):
            write_atomic(options.unpack / name, content)
    print(f"{options.out}: {len(questions)} questions of {options.benchmark} {split}")
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
