"""`python -m experiments.evaluate --encoder open_clip:ViT-B-32 --weights FILE`: transfer an encoder you have."""

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

from experiments.command.exits import EXIT_DONE, EXIT_INCOMPLETE, ended
from experiments.command.one_run import do, is_done
from experiments.configuration.config import LLM, RunConfig
from experiments.configuration.corpora import TASKS, with_embedded
from experiments.configuration.overrides import ConfigError, apply, parse, suggest
from experiments.configuration.place import Place
from experiments.configuration.recipe import SCALES, get_scale
from experiments.planning.catalogue import Suite
from experiments.planning.resolver import Resolver
from experiments.planning.specs import PlannedRun, PretrainSpec, Written
from experiments.publishing.evaluated import SHUFFLED, SHUFFLED_TOO, Evaluated, page
from experiments.tables import TABLE1
from results import record
from results.details import items
from results.schema import BLIND, HELD_OUT, Mode, Row, Status
from results.statistics.resampling import metrics_of

# What the scores of test items are read by: the columns of all tasks, also for what is held out of a training set,
# and captions given to other images.
_NAMED = (*TABLE1.columns, *(replace(column, dataset=HELD_OUT) for column in TABLE1.columns))
COLUMNS = (
    *_NAMED,
    *(replace(column, metric=SHUFFLED + SHUFFLED_TOO) for column in _NAMED if column.metric == SHUFFLED_TOO),
)
BASELINE = "caption"  # the one task that a head can be trained for without an image

EPILOG = """\
encoders:
  open_clip:ViT-B-32 --weights FILE      a checkpoint of open_clip's training, or a .safetensors of its model
  open_clip:ViT-L-14/laion400m_e32       weights that open_clip has fetched before; nothing is downloaded here
  timm:vit_base_patch16_224 --weights F  a state dict of that timm model
  hf:DIR                                 a folder of transformers: a CLIP or SigLIP vision tower
  lcl: --weights FILE                    the released LCL checkpoint (.pt)
  runs/pretrain-lcl-...                  an encoder pre-trained here

--mode blind --tasks caption, without an encoder, trains the same captions without an image: what a caption score is
worth. Later pages with the same settings print the difference.

The same command again does only what is missing. Exit codes are those of experiments.sweep.
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.evaluate",
        description="Transfer one vision encoder to tasks and print its scores.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--encoder", metavar="SOURCE", help="where it is from; see below")
    made.add_argument("--weights", type=Path, metavar="FILE", help="its weights: only tensors are read from it")
    made.add_argument("--tasks", default=",".join(TASKS), help="some of %(default)s (default: all)")
    made.add_argument("--llm", metavar="SOURCE", help="captions are written by it: a folder, .gguf or cached hub name")
    made.add_argument("--mode", default="frozen", choices=get_args(Mode), help="default: %(default)s")
    made.add_argument("--scale", default="tiny", help=f"{', '.join(SCALES)}: recipe and data (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, metavar="N", help="of the transfer (default: %(default)s)")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    made.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    return ended(partial(evaluate, options), {"--runs": options.runs})


def evaluate(options: argparse.Namespace) -> int:
    """Take the encoder in, do the transfers that are missing, print their scores."""
    tasks = _tasks(options.tasks)
    _refuse_unread(options, tasks)
    if options.seed < 0:
        raise ConfigError(f"--seed is a whole number from 0 on, got {options.seed}")
    scale = get_scale(options.scale)
    config = apply(scale.config, _settings(options, tasks))
    if config.transfer_seed is not None:
        raise ConfigError(f"--set transfer_seed={config.transfer_seed}: here it is --seed {config.transfer_seed}")
    from experiments.launching import preflight  # imports torch: what a typo can be told without comes before

    config, known = with_embedded(preflight.with_precision(config), options.runs.resolve(), uses_it=scale.embedded)
    place = Place(runs=options.runs.resolve(), data=config.data)
    encoder = None if options.mode == BLIND else _encoder(options, place, config)
    title = options.encoder or "No encoder"
    row = Row(label=title, objective=None, data="mmc4", mode=options.mode)
    resolver = Resolver(config, Suite(), known)
    transfers: list[PlannedRun] = []
    others: dict[str, PlannedRun] = {}
    for task in tasks:
        run, extra = resolver.transfer(config, row, task, encoder, options.seed)
        transfers.append(run)
        others |= {each.run_id: each for each in extra.values()}
    runs = [*([] if encoder is None else [encoder]), *others.values(), *transfers]
    if problems := dict.fromkeys(run.problem for run in runs if run.problem):
        raise ConfigError(f"{'; '.join(problems)}: set the folders with --set, or choose other --tasks")
    preflight.check([run for run in runs if not is_done(place, run)], place)
    for run in runs:
        do(place, run, scale.name)
    found = [_evaluated(place, run) for run in transfers]
    blind = None
    if BASELINE in tasks:
        baseline, _ = resolver.transfer(config, replace(row, mode=BLIND), BASELINE, None, options.seed)
        blind = _evaluated(place, baseline) if is_done(place, baseline) else None
    print("\n".join(page(title, found, blind)))
    return EXIT_DONE if all(each.record.status is Status.DONE for each in found) else EXIT_INCOMPLETE


def _refuse_unread(options: argparse.Namespace, tasks: Sequence[str]) -> None:
    """Raises ConfigError where an encoder is missing, or given and not read."""
    if options.mode != BLIND:
        if options.encoder is None:
            raise ConfigError(f"--mode {options.mode} transfers an encoder: add --encoder SOURCE (see --help)")
        return
    for name in ("encoder", "weights"):
        if (given := getattr(options, name)) is not None:
            raise ConfigError(f"--{name} {given} is not read: --mode {BLIND} trains a head without an image")
    if list(tasks) != [BASELINE]:
        raise ConfigError(f"--mode {BLIND} is for captions, and --tasks is {','.join(tasks)}; add --tasks {BASELINE}")


def _settings(options: argparse.Namespace, tasks: Sequence[str]) -> Mapping[str, Any]:
    """What --set and --llm say. Raises ConfigError where --llm is given and nothing writes captions."""
    settings = dict(parse(options.set))
    if options.llm is not None:
        if "caption" not in tasks:
            raise ConfigError(f"--llm {options.llm} is not read: it writes captions, and --tasks is {','.join(tasks)}")
        here = Path(options.llm)
        settings |= {"language.caption": LLM, "data.llm": str(here.resolve()) if here.exists() else options.llm}
    return settings


def _tasks(given: str) -> list[str]:
    names = [name.strip() for name in given.split(",") if name.strip()]
    aliases = {"retrieval": "retrieve", "classification": "classify", "captioning": "caption"}
    for name in names:
        if name not in TASKS:
            raise ConfigError(suggest(aliases.get(name, name), TASKS, "transfer task"))
    if not names:
        raise ConfigError(f"--tasks names none; there are {', '.join(TASKS)}")
    return list(dict.fromkeys(names))


def _encoder(options: argparse.Namespace, place: Place, config: RunConfig) -> PlannedRun:
    folder = Path(options.encoder)
    if not folder.is_dir():
        from experiments.running.stages.foreign import take_in

        return take_in(options.encoder, options.weights, place, Suite().size(config.size).language)
    if options.weights is not None:
        raise ConfigError(f"--weights {options.weights} is not read: {folder} has its own")
    if folder.resolve().parent != place.runs:
        raise ConfigError(f"{folder} is no run of {place.runs}; add --runs {folder.resolve().parent}")
    parts = Written.load(folder)
    if not isinstance(parts.whole, PretrainSpec):
        raise ConfigError(f"{folder} is a {parts.whole.kind.value} run; give the folder of a pre-training")
    encoder = PlannedRun(spec=parts.whole, written=parts, needs=(), problem="", used_by=(), weight=0)
    if not is_done(place, encoder):
        raise ConfigError(f"{folder} is no finished run; finish it by the command that began it")
    return encoder


def _evaluated(place: Place, run: PlannedRun) -> Evaluated:
    folder = place.runs / run.run_id
    scores = items.of_run(folder / record.ITEMS_FILE, COLUMNS) if (folder / record.ITEMS_FILE).exists() else {}
    return Evaluated(record.read(folder / record.RECORD_FILE), {each.metric: each for each in metrics_of(scores)})


if __name__ == "__main__":
    sys.exit(main())
