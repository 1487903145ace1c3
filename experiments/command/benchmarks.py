"""Which benchmark and split a command is asked about."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from experiments.configuration.overrides import ConfigError, suggest
from transfer.dialogue.scoring.base import NAMES, Benchmark
from transfer.dialogue.scoring.registry import BENCHMARKS


def add_release(made: ArgumentParser) -> None:
    """The options that name a release."""
    made.add_argument("benchmark", help="; ".join(NAMES))
    made.add_argument("--data", type=Path, required=True, metavar="DIR", help="the release, as below")
    made.add_argument("--split", metavar="NAME", help="default: the first of those below")


def kind_of(options: Namespace) -> type[Benchmark]:
    """The benchmark named. Raises ConfigError with the nearest name for an unknown one."""
    if options.benchmark not in BENCHMARKS:
        raise ConfigError(suggest(options.benchmark, BENCHMARKS, "benchmark"))
    return BENCHMARKS[options.benchmark]


def split_of(options: Namespace) -> str:
    """The split named, or the benchmark's first. Raises ConfigError with the nearest name for an unknown one."""
    splits = kind_of(options).splits
    if options.split is not None and options.split not in splits:
        raise ConfigError(f"--split: {suggest(options.split, splits, f'split of {options.benchmark}')}")
    return options.split or next(iter(splits))


def releases() -> list[str]:
    """What the folder of each release holds, for --help."""
    lines = ["releases:"]
    for name, benchmark in BENCHMARKS.items():
        splits = ", ".join(
            f"{split} ({'server' if release.scored == 'server' else 'scored'})"
            for split, release in benchmark.splits.items()
        )
        lines += [f"  {name:10} {benchmark.files}", f"  {'':10} splits: {splits}; pictures: {benchmark.pictures}"]
    return lines
