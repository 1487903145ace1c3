"""`python -m experiments.sweep table1`: from a table's declaration to its printed form, doing only what is missing."""

import argparse
import logging
import os
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from experiments.command import asked
from experiments.command.exits import EXIT_DONE, EXIT_INCOMPLETE, ended
from experiments.configuration.config import RunConfig
from experiments.configuration.corpora import with_embedded
from experiments.configuration.overrides import ConfigError, parse
from experiments.configuration.place import Place
from experiments.configuration.recipe import SCALES, get_scale
from experiments.launching import manifest
from experiments.launching.launchers import NAMES, get_launcher
from experiments.launching.machine import Launched, Machine, ordered
from experiments.planning.catalogue import Suite
from experiments.planning.cluster import on_clusters
from experiments.planning.dialogue_cost import of_dialogue
from experiments.planning.listing import listing
from experiments.planning.migrate import rename_folders, renamed
from experiments.planning.plan import Plan, build_plan
from experiments.planning.price import finished, price
from experiments.planning.settings import list_settings
from experiments.publishing import held
from experiments.publishing.collate import collate, stages
from experiments.tables import TABLES, get_table
from results.record import load_all
from results.schema import RunRecord, Status

EPILOG = """\
examples:
  python -m experiments.sweep table1                        the whole comparison on the embedded corpus
  python -m experiments.sweep table1 --dry-run              what would run, and what is there already
  python -m experiments.sweep table1 --seeds 3              mean and s.d. over three seeds
  python -m experiments.sweep table1 --seeds 10-14          five seeds that no choice of the recipe has seen
  python -m experiments.sweep table1 --only clip --only lcl two rows
  python -m experiments.sweep table1 --set data.mmc4=DIR    on your own documents
  python -m experiments.sweep table6b --set pretrain.images=60000
  python -m experiments.sweep --list-settings pretrain      what --set can change

A run is named by the hash of everything that decides its result, so running the same command again does only what is
missing, and rows that two tables share are trained once. Exit codes: 0 done, 1 failed, 2 wrong usage or input,
3 finished with missing cells, 130 stopped (run again to continue).
"""


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m experiments.sweep",
        description="Pre-train every row of a table, transfer it to every task, and print the table.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("tables", nargs="*", metavar="TABLE", help=f"one or more of {', '.join(TABLES)}")
    made.add_argument("--scale", default="tiny", help=f"{', '.join(SCALES)} (default: %(default)s, minutes on a CPU)")
    made.add_argument("--seeds", default="1", help="N: seeds 0 to N-1; A-B: seeds A to B (default: %(default)s)")
    made.add_argument(
        "--only", action="append", default=[], metavar="ROW", help="objective or label of a row; repeatable"
    )
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    made.add_argument("--launcher", default="local", choices=NAMES, help="default: %(default)s")
    made.add_argument("--workers", type=int, metavar="N", help="processes at once (default: one a core, or one a GPU)")
    made.add_argument("--threads", type=int, default=1, metavar="N", help="threads of a process (default: %(default)s)")
    made.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="default: %(default)s")
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="tables/ and records/ are written here (default: results/; with --only, --set or --objectives --runs)",
    )
    made.add_argument("--objectives", type=Path, metavar="DIR", help="a folder of further objectives, one file each")
    mode = made.add_mutually_exclusive_group()
    mode.add_argument("--dry-run", action="store_true", help="print the plan and its price, and stop")
    mode.add_argument("--collate", action="store_true", help="only write the tables from the records there are")
    mode.add_argument(
        "--migrate", action="store_true", help="give finished runs the names of this version, and collate"
    )
    mode.add_argument(
        "--list-settings",
        nargs="?",
        const="",
        metavar="PREFIX",
        help="print every setting below PREFIX, or all, with its values, its type and what it means",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    if not options.tables and options.list_settings is None:
        parser().error(f"which table? There are {', '.join(TABLES)}")
    options.command = given
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    command = _settings if options.list_settings is not None else sweep
    return ended(partial(command, options), {"--runs": options.runs, "--out": options.out})


def _settings(options: argparse.Namespace) -> int:
    """Print the settings. Raises ConfigError for options that would change nothing."""
    plain = parser().parse_args([])
    used = ("list_settings", "objectives", "command")
    if ignored := [name for name, value in vars(plain).items() if name not in used and value != getattr(options, name)]:
        raise ConfigError(
            f"--list-settings prints the settings of all tables and scales; leave out {', '.join(ignored)}, or say "
            f"--dry-run in its place"
        )
    if options.objectives:
        from experiments.launching import preflight

        preflight.add_objectives(options.objectives)
    print(list_settings(options.list_settings, Suite()))
    return EXIT_DONE


def sweep(options: argparse.Namespace) -> int:
    """Plan, run what is missing, collate."""
    asked.check(options)
    seeds_asked = asked.seeds(options.seeds)
    scale = get_scale(options.scale)
    tables = [get_table(name) for name in options.tables]
    changes = parse(options.set)
    if not options.objectives:  # with further objectives, rows and settings can have names that are not known yet
        tables, config = asked.rows_and_settings(tables, scale, changes, options)
    from experiments.launching import preflight  # imports torch: what a typo can be told without comes before

    if options.objectives:
        preflight.add_objectives(options.objectives)
        tables, config = asked.rows_and_settings(tables, scale, changes, options)
    if options.launcher == "slurm":
        asked.check_precision(config)
    if unread := asked.unread(tables, changes, options.launcher):
        print(f"warning: no run asked for reads {', '.join(unread)}", file=sys.stderr)
    out = asked.out(options)
    published = held.load(options.tables, options.scale, out)
    config = preflight.with_precision(config, held.made_in(published) if options.collate or options.migrate else None)
    runs = options.runs.resolve()
    config, known = with_embedded(config, runs, uses_it=scale.embedded)
    tables = [preflight.with_labels(table, config.data, known) for table in tables]
    plan_of = partial(build_plan, tables, scale=scale, config=config, catalogue=Suite(), digests=known)
    plan = plan_of(seeds_asked)
    records, problems = load_all(runs)
    for problem in problems:
        print(f"warning: {problem.message}; it is left out", file=sys.stderr)
    known_seeds = {*seeds_asked, *(slot.seed for each in published.values() for slot in each.slots)}
    older = renamed(plan_of(sorted(known_seeds)).runs, [*records, *held.records_of(published)])
    if older and not options.migrate:
        raise ConfigError(
            f"{len(older)} finished runs have the settings asked for under the names of an older version, for example "
            f"{next(iter(older))}; run the same command with --migrate once and they are used"
        )
    if options.dry_run:
        print(listing(plan, records))
        measured = [*records, *held.records_of(published)]
        print(price(plan, records, finished(scale.name, measured)))
        if not scale.embedded:
            said = (on_clusters(plan, records, config.distributed), of_dialogue(plan, records))
            print("\n".join(filter(None, said)))
        return EXIT_DONE
    began = time.monotonic()
    if options.migrate:
        moved = rename_folders(runs, older)
        published = held.with_names(published, older, out)
        print(f"{len(older)} finished runs have new names, {moved} of them in {runs}")
    elif not options.collate:
        place = Place(runs=runs, data=config.data)
        if _run(plan, records, place, config, options) == "submitted":
            return EXIT_DONE
    if not options.collate:
        records, _ = load_all(runs)
    print(stages(plan, records, time.monotonic() - began))
    merged = held.merged(records, published)
    seeds = sorted([*seeds_asked, *held.other_seeds(plan_of, seeds_asked, published, merged)])
    settings = asked.published_settings(options)
    complete = collate(plan_of(seeds), tables, merged, published, settings, options.runs, out)
    return EXIT_DONE if complete else EXIT_INCOMPLETE


def _run(
    plan: Plan, records: Sequence[RunRecord], place: Place, config: RunConfig, options: argparse.Namespace
) -> Launched:
    """Bring about what is missing; whether that is over, or was handed to a scheduler."""
    done = {record.run_id for record in records if record.status is Status.DONE}
    missing = [run for run in plan.runs if run.run_id not in done and not run.problem]
    if not missing:
        return "over"
    from experiments.launching import preflight
    from experiments.launching.forecast import forecast
    from experiments.running.hardware import environment

    if options.launcher != "slurm":
        preflight.check_ranks(config.distributed)
    preflight.check(missing, place)
    for run in missing:
        run.written.save(place.runs / run.run_id)
    cores = len(os.sched_getaffinity(0))
    together = config.distributed.ranks
    workers = options.workers or max(1, (preflight.accelerators() or cores // options.threads) // together)
    machine = Machine(
        place=place,
        scale=plan.scale.name,
        workers=workers,
        threads=options.threads,
        objectives=options.objectives.resolve() if options.objectives is not None else None,
        distributed=config.distributed,
        slurm=config.slurm,
        sweeps=tuple(
            manifest.write(place.runs, table, options.launcher, options.command, slots).name
            for table, slots in plan.slots.items()
        ),
        command=tuple(options.command),
    )
    reused = f", {len(plan.runs) - len(missing)} reused" if len(missing) < len(plan.runs) else ""
    print(f"{len(missing)} runs{reused}; logs and records in {place.runs}", file=sys.stderr)
    if options.launcher != "slurm":  # this machine says nothing about the nodes
        timing = finished(plan.scale.name, records).timing
        print(f"{workers} at a time; {forecast(missing, workers, environment(), timing)}", file=sys.stderr)
    return get_launcher(options.launcher)(ordered(missing), machine)


if __name__ == "__main__":
    sys.exit(main())
