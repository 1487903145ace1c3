"""`python -m experiments.dialogue --encoder RUN --data DIR`: LLaVA-1.5's two stages on an encoder, scored.

The first stage is one run whether the second is frozen or full. The same command again does only what is missing.
"""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

from experiments.command.exits import EXIT_DONE, EXIT_INCOMPLETE, ended
from experiments.command.one_run import do
from experiments.configuration.config import LLM, TEXT_LM, RunConfig
from experiments.configuration.corpora import with_embedded
from experiments.configuration.dialogue import key
from experiments.configuration.overrides import ConfigError, apply, parse
from experiments.configuration.place import Place
from experiments.configuration.recipe import SCALES, get_scale
from experiments.planning.catalogue import Suite
from experiments.planning.dialogue import Start, planned_stages
from experiments.planning.resolver import Resolver
from experiments.planning.specs import PlannedRun
from results import record
from results.page.markdown import table as markdown_table
from results.schema import BLIND, Mode, RunRecord, Status, metric_key
from transfer.dialogue.scoring.base import NAMES
from transfer.dialogue.scoring.registry import BENCHMARKS


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.dialogue", description="Train LLaVA-1.5's two stages on an encoder and score them."
    )
    made.add_argument(
        "--encoder",
        type=Path,
        required=True,
        metavar="RUN",
        help="an encoder trained here, or taken in; its folder holds the runs",
    )
    made.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="align.json, tune.json, images/, a folder a benchmark"
    )
    made.add_argument("--mode", default="frozen", choices=get_args(Mode), help="default: %(default)s")
    made.add_argument("--llm", metavar="SOURCE", help="a folder, .gguf or cached hub name (default: the captioning LM)")
    made.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change a setting, as dialogue.tune.epochs=1; repeatable",
    )
    made.add_argument("--scale", default="tiny", choices=tuple(SCALES), help="whose recipe (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    return ended(partial(run, options), {"--encoder": options.encoder.parent})


def run(options: argparse.Namespace) -> int:
    """Plan the runs, do those that are missing, print the scores."""
    from experiments.launching import preflight  # imports torch: what a typo can be told without comes before
    from experiments.launching.dialogue import check_dialogue

    if options.seed < 0:
        raise ConfigError(f"--seed is a whole number from 0 on, got {options.seed}")
    path = options.encoder / record.RECORD_FILE
    if not path.is_file() or record.read(path).status is not Status.DONE:
        raise ConfigError(f"--encoder {options.encoder} is no finished run; give the folder of a pre-training")
    scale, runs = get_scale(options.scale), options.encoder.resolve().parent
    _refuse_twice(parse(options.set))
    config = apply(scale.config, {**parse(options.set), "data.dialogue": str(options.data.resolve())})
    if options.llm is not None:
        config = apply(config, {"data.llm": _local(options.llm), "language.dialogue": LLM})
    config, known = with_embedded(preflight.with_precision(config), runs, uses_it=scale.embedded)
    place = Place(runs=runs, data=config.data)
    planned = _planned(options, config, known)
    if config.language.dialogue == TEXT_LM:  # which learns from the embedded corpus
        preflight.check(planned, place)
    else:
        check_dialogue(planned, place)
    for each in planned:
        do(place, each, scale.name)
    found = record.read(runs / planned[-1].run_id / record.RECORD_FILE)
    print("\n".join(_page(options, found)))
    return EXIT_DONE if found.status is Status.DONE else EXIT_INCOMPLETE


def _refuse_twice(settings: Mapping[str, Any]) -> None:
    """Raises ConfigError for settings that options of this command give."""
    for name, option in _OPTIONS.items():
        if name in settings:
            raise ConfigError(f"--set {name}={settings[name]}: here it is {option}")


_OPTIONS = {
    "transfer_seed": "--seed",
    "data.dialogue": "--data",
    "data.llm": "--llm",
    "language.dialogue": "--llm, or without it the captioning language model",
}


def _local(source: str) -> str:
    return str(Path(source).resolve()) if Path(source).exists() else source


_FIXED = {"dialogue.tune.vision.": "only --mode full trains the encoder"}
# Settings that a mode does not read, and why.
_UNREAD: Mapping[Mode, Mapping[str, str]] = {
    "full": {},
    "frozen": _FIXED,
    "blind": {"dialogue.align.": "--mode blind has no stage 1", **_FIXED},
}


def _planned(options: argparse.Namespace, config: RunConfig, known: Mapping[str, str]) -> list[PlannedRun]:
    """The runs in the order in which they are done: language model, first stage, second stage."""
    unread = _UNREAD[options.mode]
    if ignored := [name for name in parse(options.set) if name.startswith(tuple(unread))]:
        why = "; ".join(unread[each] for each in unread if any(name.startswith(each) for name in ignored))
        raise ConfigError(f"{', '.join(ignored)} would change nothing: {why}; leave it out")
    if not any(key(name) in known for name in NAMES):
        raise ConfigError(f"--data {options.data} has no folder of a benchmark; they are called {', '.join(NAMES)}")
    inputs: dict[str, str] = {} if options.mode == BLIND else {"encoder": options.encoder.resolve().name}
    needs: list[PlannedRun] = []
    if config.language.dialogue == TEXT_LM:
        text_lm = Resolver(config, Suite(), known).text_lm(config, options.seed)
        if text_lm.problem:
            raise ConfigError(f"{text_lm.problem}; or name a language model with --llm")
        needs, inputs = [text_lm], inputs | {TEXT_LM: text_lm.run_id}
    elif LLM not in known:
        raise ConfigError(f"the {options.scale} scale tunes a language model that is named; add --llm SOURCE")
    else:
        inputs[LLM] = known[LLM]
    start = Start(inputs, tuple(inputs[each] for each in ("encoder", TEXT_LM) if each in inputs))
    runs = planned_stages(config, Suite(), known, start, mode=options.mode, seed=options.seed, benchmarks=NAMES)
    return [*needs, *runs]


def _page(options: argparse.Namespace, found: RunRecord) -> list[str]:
    """A line a benchmark: its number, and that of answers about another picture."""
    lines = []
    for name in (each for each in NAMES if each in found.items):
        benchmark = BENCHMARKS[name]
        asked, whole = found.items[name], next(iter(benchmark.splits.values())).sizes
        keys = (benchmark.metric, f"shuffled_{benchmark.metric}")
        values = [found.metrics.get(metric_key(name, key)) for key in keys]
        called = name if asked in whole else f"own set in the form of {name}"
        lines.append(
            [called, benchmark.metric, *("–" if each is None else f"{each:.2f}" for each in values), str(asked)]
        )
    notes = [f"- {found.reason}"] if found.reason else []
    notes.append(f"- {options.mode}, seed {found.seed}, record and answers in {found.run_id}")
    header = ["benchmark", "number", "value", "another picture", "questions"]
    return [f"# {options.encoder.name}", "", *markdown_table(header, lines, left=2), "", *notes]


if __name__ == "__main__":
    sys.exit(main())
