"""`python -m experiments.score pope --answers FILE --data DIR`: score answers to a benchmark of multimodal dialogue."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np

from experiments.command.benchmarks import add_release, kind_of, releases, split_of
from experiments.command.exits import EXIT_DONE, ended
from experiments.configuration.overrides import ConfigError
from results.page.markdown import table as markdown_table
from results.record import write_atomic
from results.statistics.resampling import DRAWS, Sums, spread
from transfer.dialogue.scoring.answers import check_join, read_answers
from transfer.dialogue.scoring.base import Benchmark, Floats, Submitted, Verdict
from transfer.dialogue.scoring.registry import BENCHMARKS
from transfer.dialogue.scoring.vqa import SoftAccuracy
from transfer.dialogue.scoring.vqa_norm import Normalisation

STANDARD: Normalisation = "standard"
ANSWERS = "answers: LLaVA's JSON lines (question_id, text), or a JSON list in VQA's or GQA's layout"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.score",
        description="Score answers to a benchmark of multimodal dialogue, or write what its server takes.",
        epilog="\n".join([ANSWERS, "", *releases()]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_release(made)
    made.add_argument("--answers", type=Path, required=True, metavar="FILE", help="one answer to every question")
    made.add_argument(
        "--norm",
        choices=get_args(Normalisation),
        help=f"how answers to vqav2 and vizwiz are normalised (default: {STANDARD})",
    )
    made.add_argument("--called", metavar="NAME", help="what the questions are where they are not the whole benchmark")
    made.add_argument("--items", type=Path, metavar="FILE", help="write the score of every question, as JSON lines")
    made.add_argument("--submit", type=Path, metavar="FILE", help="write the server's file, for a split it scores")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    return ended(partial(score, options), {"--items": options.items, "--submit": options.submit})


def score(options: argparse.Namespace) -> int:
    """Join answers with questions, then score them or write them for the server."""
    benchmark = _benchmark(options)
    split = split_of(options)
    submits = benchmark.splits[split].scored == "server"
    _refuse_unread(options, submits, split)
    questions = benchmark.read(options.data, split)
    _refuse_incomplete(options, benchmark, split, len(questions))
    answers = read_answers(options.answers, benchmark.key)
    check_join(questions, answers, options.data, options.answers)
    if submits:
        assert isinstance(benchmark, Submitted)
        write_atomic(options.submit, benchmark.submission(options.data, split, answers))
        print(f"{options.submit}: {len(answers)} answers to {options.benchmark} {split}")
        return EXIT_DONE
    verdicts = benchmark.judge(questions, answers)
    if options.items:
        lines = (json.dumps(_item(verdict)) for verdict in verdicts)
        write_atomic(options.items, "".join(f"{line}\n" for line in lines).encode())
    title = f"{options.called or options.benchmark} {split}"
    print("\n".join(_page(title, benchmark, verdicts, options)))
    return EXIT_DONE


def _benchmark(options: argparse.Namespace) -> Benchmark:
    kind = kind_of(options)
    if issubclass(kind, SoftAccuracy):
        return kind(options.norm or STANDARD)
    if options.norm:
        raise ConfigError(f"--norm {options.norm} is not read: {options.benchmark} has one normalisation")
    return kind()


def _refuse_unread(options: argparse.Namespace, submits: bool, split: str) -> None:
    """Raises ConfigError for an option that would be ignored, and for a split that nothing is done with."""
    if submits and not options.submit:
        raise ConfigError(
            f"the right answers of {options.benchmark} {split} are on its server; add --submit FILE to write what it "
            "takes"
        )
    if submits and options.items:
        raise ConfigError(f"--items {options.items} cannot be written: the server scores {options.benchmark} {split}")
    if options.submit and not submits:
        raise ConfigError(f"--submit {options.submit} is not written: {options.benchmark} {split} is scored here")


def _refuse_incomplete(options: argparse.Namespace, benchmark: Benchmark, split: str, asked: int) -> None:
    """Raises ConfigError where part of a benchmark would bear its name, or the whole of it another one."""
    sizes = benchmark.splits[split].sizes
    published = " or ".join(map(str, sizes))
    if asked not in sizes and options.called is None:
        raise ConfigError(
            f"{options.data} holds {asked} questions, {options.benchmark} {split} has {published}. Complete the "
            "download, or say what this set is with --called NAME; its score then bears that name"
        )
    if options.called is not None and options.called.casefold() in BENCHMARKS:
        raise ConfigError(f"--called {options.called}: a set of your own needs a name of its own")
    if asked in sizes and options.called is not None:
        raise ConfigError(f"--called {options.called}: these are the {asked} questions of {options.benchmark} {split}")


def _item(verdict: Verdict) -> Mapping[str, object]:
    return {name: getattr(verdict, name) for name in ("item_id", "group_id", "parsed", "score")}


def _page(title: str, benchmark: Benchmark, verdicts: Sequence[Verdict], options: argparse.Namespace) -> list[str]:
    """The number with its interval over images, and what else is known of the answers."""
    groups: dict[str, Floats] = {}
    for verdict in verdicts:
        sums = np.asarray(verdict.sums)
        groups[verdict.group_id] = groups.get(verdict.group_id, np.zeros_like(sums)) + sums
    stacked = np.stack(list(groups.values()))
    found = spread(Sums(f"{title}/{benchmark.metric}", tuple(groups), stacked, benchmark.value, False, None))
    header = ["number", "value", "95 % interval"]
    lines = [[benchmark.metric, f"{found.value:.2f}", f"{found.low:.2f} to {found.high:.2f}"]]
    lines += [[name, f"{value:.2f}", "–"] for name, value in benchmark.more(stacked.sum(axis=0)).items()]
    notes = [f"- {len(verdicts)} questions; the interval is over {DRAWS} draws of the {len(groups)} {benchmark.drawn}"]
    notes += [f"- answers normalised as {benchmark.norm}"] if isinstance(benchmark, SoftAccuracy) else []
    notes += [f"- {options.answers}"]
    return [f"# {title}", "", *markdown_table(header, lines, left=1), "", *notes]


if __name__ == "__main__":
    sys.exit(main())
