"""`python -m experiments.evaluate --encoder open_clip:ViT-B-32 --weights FILE`: transfer an encoder you have."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from experiments.configuration.config import RunConfig
from experiments.configuration.corpora import TASKS
from experiments.configuration.overrides import ConfigError, apply, parse, suggest
from experiments.configuration.place import Place
from experiments.configuration.recipe import SCALES, get_scale
from experiments.planning.catalogue import Suite
from experiments.planning.plan import Resolver
from experiments.planning.specs import PlannedRun, PretrainSpec, Written
from experiments.running.stopping import Stopped, stoppable
from experiments.sweep import EXIT_DONE, EXIT_FAILED, EXIT_INCOMPLETE, EXIT_STOPPED, EXIT_USAGE, with_embedded
from results import record
from results.markdown import table as markdown_table
from results.schema import BLIND, Mode, Row, RunRecord, Status, metric_key

MODES = tuple(mode for mode in get_args(Mode) if mode != BLIND)

EPILOG = """\
encoders:
  open_clip:ViT-B-32 --weights FILE      a checkpoint of open_clip's training, or a .safetensors of its model
  open_clip:ViT-L-14/laion400m_e32       weights that open_clip has fetched before; nothing is downloaded here
  timm:vit_base_patch16_224 --weights F  a state dict of that timm model
  hf:DIR                                 a folder of transformers: a CLIP or SigLIP vision tower
  lcl: --weights FILE                    the released LCL checkpoint (.pt)
  runs/pretrain-lcl-...                  an encoder pre-trained here

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
    made.add_argument("--encoder", required=True, metavar="SOURCE", help="where it is from; see below")
    made.add_argument("--weights", type=Path, metavar="FILE", help="its weights: only tensors are read from it")
    made.add_argument("--tasks", default=",".join(TASKS), help="some of %(default)s (default: all)")
    made.add_argument("--mode", default="frozen", choices=MODES, help="default: %(default)s")
    made.add_argument("--scale", default="tiny", help=f"{', '.join(SCALES)}: recipe and data (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, metavar="N", help="of the transfer (default: %(default)s)")
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    made.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        with stoppable():
            return evaluate(options)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except (KeyboardInterrupt, Stopped):
        print("stopped; run the same command again to continue", file=sys.stderr)
        return EXIT_STOPPED


def evaluate(options: argparse.Namespace) -> int:
    """Take the encoder in, do the transfers that are missing, print their scores."""
    tasks = _tasks(options.tasks)
    if options.seed < 0:
        raise ConfigError(f"--seed is a whole number from 0 on, got {options.seed}")
    scale = get_scale(options.scale)
    config = apply(scale.config, parse(options.set))
    if config.transfer_seed is not None:
        raise ConfigError(f"--set transfer_seed={config.transfer_seed}: here it is --seed {config.transfer_seed}")
    from experiments.launching import preflight  # imports torch: what a typo can be told without comes before

    config, known = with_embedded(preflight.with_precision(config), options.runs.resolve(), uses_it=scale.embedded)
    place = Place(runs=options.runs.resolve(), data=config.data)
    encoder = _encoder(options, place, config)
    row = Row(label=options.encoder, objective=None, data="mmc4", mode=options.mode)
    resolver = Resolver(config, Suite(), known)
    transfers: list[PlannedRun] = []
    others: dict[str, PlannedRun] = {}
    for task in tasks:
        run, extra = resolver.transfer(config, row, task, encoder, options.seed)
        transfers.append(run)
        others |= {each.run_id: each for each in extra.values()}
    runs = [encoder, *others.values(), *transfers]
    if problems := dict.fromkeys(run.problem for run in runs if run.problem):
        raise ConfigError(f"{'; '.join(problems)}: set the folders with --set, or choose other --tasks")
    preflight.check([run for run in runs if not _done(place, run)], place)
    for run in runs:
        _do(place, run, scale.name)
    records = [record.read(place.runs / run.run_id / record.RECORD_FILE) for run in transfers]
    print("\n".join(_page(options.encoder, records)))
    return EXIT_DONE if all(each.status is Status.DONE for each in records) else EXIT_INCOMPLETE


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
        from experiments.running.foreign import take_in

        return take_in(options.encoder, options.weights, place, Suite().size(config.size).language)
    if options.weights is not None:
        raise ConfigError(f"--weights {options.weights} is not read: {folder} has its own")
    if folder.resolve().parent != place.runs:
        raise ConfigError(f"{folder} is no run of {place.runs}; add --runs {folder.resolve().parent}")
    parts = Written.load(folder)
    if not isinstance(parts.whole, PretrainSpec):
        raise ConfigError(f"{folder} is a {parts.whole.kind.value} run; give the folder of a pre-training")
    return PlannedRun(spec=parts.whole, written=parts, needs=(), problem="", used_by=(), weight=0)


def _done(place: Place, run: PlannedRun) -> bool:
    path = place.runs / run.run_id / record.RECORD_FILE
    return path.exists() and record.read(path).status is Status.DONE


def _do(place: Place, run: PlannedRun, scale: str) -> None:
    from experiments.running.lifecycle import execute

    if _done(place, run):
        return
    run.written.save(place.runs / run.run_id)
    print(run.run_id, file=sys.stderr, flush=True)
    execute(run.run_id, place, scale, bar=True)


def _page(encoder: str, records: Sequence[RunRecord]) -> list[str]:
    """A line for every declared metric of every task, and what it was measured under."""
    lines, notes = [], []
    for found in records:
        spec = found.resolved
        task, pictures = spec["task"], spec["recipe"]["pictures"]
        known = _metrics_of(task)
        for key, value in found.metrics.items():
            dataset, _, metric = key.partition("/")
            if metric in known:
                chance = f"{found.chance[key]:.1f}" if key in found.chance else "–"
                lines.append([task, dataset, metric, f"{value:.2f}", chance, str(found.items[dataset])])
            if (twin := metric_key(dataset, f"shuffled_{metric}")) in found.metrics:
                notes.append(f"- {key} with the captions of another image: {found.metrics[twin]:.2f}")
        notes += [f"- {key}: {why}" for key, why in found.unavailable.items()]
        notes += [f"- {task}: {found.reason}"] if found.reason else []
        notes.append(f"- {task}: {spec['mode']}, {pictures} pictures, seed {found.seed}, record {found.run_id}")
    header = ["task", "test set", "metric", "value", "chance", "images"]
    return [f"# {encoder}", "", *markdown_table(header, lines, left=3), "", *notes]


def _metrics_of(task: str) -> tuple[str, ...]:
    from transfer.registry import get

    return get(task).metrics


if __name__ == "__main__":
    sys.exit(main())
