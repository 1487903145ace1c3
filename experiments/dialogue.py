"""`python -m experiments.dialogue --encoder RUN --data DIR`: LLaVA-1.5's two stages on an encoder, scored.

The first stage is one run whether the second is frozen or full. The same command again does only what is missing.
"""

import argparse
import hashlib
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from experiments.command.exits import EXIT_DONE, EXIT_INCOMPLETE, ended
from experiments.configuration.config import LLM, TEXT_LM, RunConfig
from experiments.configuration.corpora import with_embedded
from experiments.configuration.overrides import ConfigError, apply, change
from experiments.configuration.place import Place
from experiments.configuration.recipe import DIALOGUE, SCALES, get_scale
from experiments.planning.catalogue import Suite
from experiments.planning.resolver import Resolver
from experiments.planning.specs import DialogueSpec, PlannedRun, written
from results import record
from results.canonical import plain
from results.markdown import table as markdown_table
from results.schema import BLIND, Mode, RunRecord, Status, metric_key
from transfer.dialogue.recipe import ALIGN, PICTURES, TUNE, Stage
from transfer.dialogue.scoring.base import NAMES, BenchmarkName
from transfer.dialogue.scoring.registry import BENCHMARKS

PROTOCOL = 1  # bump when equal specs would train other weights or score otherwise
StageName = Literal["align", "tune"]
PAPER: Mapping[StageName, Stage] = {"align": ALIGN, "tune": TUNE}


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
    made.add_argument("--scale", default="tiny", choices=tuple(SCALES), help="whose recipe (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    return ended(partial(run, options), options.encoder.parent)


def run(options: argparse.Namespace) -> int:
    """Plan the runs, do those that are missing, print the scores."""
    from experiments.launching import preflight  # imports torch: what a typo can be told without comes before

    if not (options.encoder / record.RECORD_FILE).is_file():
        raise ConfigError(f"--encoder {options.encoder} is no finished run; give the folder of a pre-training")
    scale, runs = get_scale(options.scale), options.encoder.resolve().parent
    settings = {} if options.llm is None else {"data.llm": _local(options.llm)}
    config = apply(scale.config, settings)
    config, known = with_embedded(preflight.with_precision(config), runs, uses_it=scale.embedded)
    place = Place(runs=runs, data=config.data, dialogue=options.data.resolve())
    planned = _planned(options, config, known)
    if options.llm is None:  # its language model learns from the embedded corpus
        preflight.check([], place)
    for each in planned:
        _do(place, each, scale.name)
    found = record.read(runs / planned[-1].run_id / record.RECORD_FILE)
    print("\n".join(_page(options, found)))
    return EXIT_DONE if found.status is Status.DONE else EXIT_INCOMPLETE


def _local(source: str) -> str:
    return str(Path(source).resolve()) if Path(source).exists() else source


def _planned(options: argparse.Namespace, config: RunConfig, known: Mapping[str, str]) -> list[PlannedRun]:
    """The runs in the order in which they are done: language model, first stage, second stage."""
    benchmarks = tuple(name for name in NAMES if (options.data / name).is_dir())
    if not benchmarks:
        raise ConfigError(f"--data {options.data} has no folder of a benchmark; they are called {', '.join(NAMES)}")
    for name in benchmarks:
        _check_pictures(name, options.data / name)
    inputs: dict[str, str] = {} if options.mode == BLIND else {"encoder": options.encoder.resolve().name}
    needs: list[PlannedRun] = []
    if options.llm is None:
        text_lm = Resolver(config, Suite(), known).text_lm(config, options.seed)
        if text_lm.problem:
            raise ConfigError(f"{text_lm.problem}; or name a language model with --llm")
        needs, inputs = [text_lm], inputs | {TEXT_LM: text_lm.run_id}
    else:
        from backbones.llm import check_llm

        check_llm(str(config.data.llm))
        inputs[LLM] = known[LLM]

    def stage(name: StageName, mode: Mode, more: Mapping[str, str], scored: tuple[str, ...]) -> PlannedRun:
        recipe = change(PAPER[name], DIALOGUE.get(options.scale, {}).get(name, {}), prefix=f"dialogue.{name}")
        spec = DialogueSpec(
            protocol=PROTOCOL,
            stage=name,
            mode=mode,
            recipe=plain(recipe),
            precision=config.pretrain.optim.precision,
            language="text_lm" if options.llm is None else "llm",
            benchmarks=scored,
            seed=options.seed,
            inputs={**inputs, "data": _digest(options.data / f"{name}.json"), **more},
        )
        parents = tuple(spec.inputs[each] for each in ("encoder", TEXT_LM, "align") if each in spec.inputs)
        return PlannedRun(
            spec=spec, written=written(spec, {"recipe": recipe}), needs=parents, problem="", used_by=(), weight=0
        )

    tests: dict[str, str] = {name: _release(options.data / name) for name in benchmarks}
    if options.mode == BLIND:  # there is no picture to align
        return [*needs, stage("tune", BLIND, tests, benchmarks)]
    align = stage("align", "frozen", {}, ())
    return [*needs, align, stage("tune", options.mode, {"align": align.run_id, **tests}, benchmarks)]


def _check_pictures(name: BenchmarkName, folder: Path) -> None:
    """Raises ValueError where the release cannot be read, or a picture that it asks about is not there."""
    benchmark = BENCHMARKS[name]()
    questions = benchmark.read(folder, next(iter(benchmark.splits)))
    images = {question.asked.image for question in questions.values()} - {None}
    missing = sorted(str(image) for image in images if not (folder / PICTURES / str(image)).is_file())
    if missing:
        raise ConfigError(
            f"{folder / PICTURES} lacks {len(missing)} of {len(images)} pictures that {name} asks about, first "
            f"{missing[0]}; put or link there: {benchmark.pictures}"
        )


def _release(folder: Path) -> str:
    """A fingerprint of a benchmark's files, which name its pictures."""
    return _digest(*sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".tsv", ".txt")))


def _digest(*paths: Path) -> str:
    """Of the files' content. Raises ConfigError for one that is not there."""
    found = hashlib.sha256()
    for path in paths:
        if not path.is_file():
            raise ConfigError(
                f"there is no {path}; --data is a folder with align.json and tune.json, as docs/dialogue.md says"
            )
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _do(place: Place, planned: PlannedRun, scale: str) -> None:
    from experiments.running.lifecycle import execute

    planned.written.save(place.runs / planned.run_id)
    print(planned.run_id, file=sys.stderr, flush=True)
    execute(planned.run_id, place, scale, bar=True)


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


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
