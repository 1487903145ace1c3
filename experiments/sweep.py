"""`python -m experiments.sweep table1`: from a table's declaration to its printed form, doing only what is missing."""

import argparse
import errno
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from data.errors import CorpusError
from data.toyworld.spec import ToyworldSpec
from experiments.configuration.config import RunConfig
from experiments.configuration.corpora import FOLDERS, digests
from experiments.configuration.overrides import ConfigError, apply, parse, suggest
from experiments.configuration.recipe import SCALES, get_scale
from experiments.launching import launch, preflight
from experiments.launching.board import duration
from experiments.launching.forecast import forecast
from experiments.planning.catalogue import Suite
from experiments.planning.migrate import rename_folders, renamed
from experiments.planning.plan import Plan, build_plan, listing
from experiments.planning.specs import SPEC_FILE
from experiments.running.fit import Stopped
from experiments.running.hardware import multiplies_in
from experiments.running.world import Place
from experiments.tables import TABLES, get_table
from results import items, publish
from results.canonical import plain
from results.record import load_all, write_atomic
from results.schema import Publication, RunRecord, Status, Table

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INCOMPLETE, EXIT_STOPPED = 0, 1, 2, 3, 130

EPILOG = """\
examples:
  python -m experiments.sweep table1                        the whole comparison on the embedded corpus
  python -m experiments.sweep table1 --dry-run              what would run, and what is there already
  python -m experiments.sweep table1 --seeds 3              mean and s.d. over three seeds
  python -m experiments.sweep table1 --only clip --only lcl two rows
  python -m experiments.sweep table1 --set data.mmc4=DIR    on your own documents
  python -m experiments.sweep table6b --set pretrain.images=60000

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
    made.add_argument("tables", nargs="+", metavar="TABLE", help=f"one or more of {', '.join(TABLES)}")
    made.add_argument("--scale", default="tiny", help=f"{', '.join(SCALES)} (default: %(default)s, minutes on a CPU)")
    made.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds 0 to N-1 (default: %(default)s)")
    made.add_argument(
        "--only", action="append", default=[], metavar="ROW", help="objective or label of a row; repeatable"
    )
    made.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    made.add_argument("--launcher", default="local", choices=sorted(launch.LAUNCHERS), help="default: %(default)s")
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
    mode.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    mode.add_argument("--collate", action="store_true", help="only write the tables from the records there are")
    mode.add_argument(
        "--migrate", action="store_true", help="give finished runs the names of this version, and collate"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        return sweep(options)
    except (ConfigError, CorpusError, preflight.NotReady, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        said = f"{error.strerror} ({error.filename})" if error.errno == errno.ENOSPC else str(error)
        print(f"error: {said}", file=sys.stderr)
        return EXIT_FAILED
    except (KeyboardInterrupt, Stopped):
        print("stopped; run the same command again to continue", file=sys.stderr)
        return EXIT_STOPPED


def sweep(options: argparse.Namespace) -> int:
    """Plan, run what is missing, collate."""
    if options.objectives is not None:
        preflight.add_objectives(options.objectives)
    if options.seeds < 1:
        raise ConfigError(f"--seeds is the number of seeds, at least 1, got {options.seeds}")
    scale = get_scale(options.scale)
    changes = parse(options.set)
    config = preflight.with_precision(apply(scale.config, changes))
    tables = [_only(get_table(name), options.only) for name in options.tables]
    runs = options.runs.resolve()
    config, known = _with_embedded(config, runs, uses_it=scale.embedded)
    tables = [preflight.with_labels(table, config.data, known) for table in tables]
    plan_of = partial(build_plan, tables, scale=scale, config=config, catalogue=Suite(), digests=known)
    plan = plan_of(range(options.seeds))
    published = _published(plan, tables, _out(options))
    records, problems = load_all(runs)
    for problem in problems:
        print(f"warning: {problem.message}; it is left out", file=sys.stderr)
    known_seeds = {*range(options.seeds), *(slot.seed for held in published.values() for slot in held.slots)}
    older = renamed(plan_of(sorted(known_seeds)).runs, [*records, *_records(published)])
    if older and not options.migrate:
        raise ConfigError(
            f"{len(older)} finished runs have the settings asked for under the names of an older version, for example "
            f"{next(iter(older))}; run the same command with --migrate once and they are used"
        )
    if options.dry_run:
        print(listing(plan, records))
        return EXIT_DONE
    place = Place(runs=runs, data=config.data)
    began = time.monotonic()
    if options.migrate:
        moved = rename_folders(runs, older)
        names = {old: record.run_id for old, record in older.items()}
        for name in published:
            items.rename(_out(options) / "records" / f"{name}{items.SUFFIX}", names)
        published = {name: _with_names(held, older) for name, held in published.items()}
        records, _ = load_all(runs)
        print(f"{len(older)} finished runs have new names, {moved} of them in {runs}")
    elif not options.collate:
        _run(plan, records, place, options)
        records, _ = load_all(runs)
    seconds = time.monotonic() - began
    print(_stages(plan, records, seconds))
    merged = _merged(records, published)
    seeds = [*range(options.seeds), *_other_seeds(plan_of, range(options.seeds), published, merged)]
    return _collate(plan_of(seeds), tables, merged, published, options)


def _out(options: argparse.Namespace) -> Path:
    """Where tables go. What is committed in results/ is replaced by the same table only, never by a changed one."""
    changed = options.only or options.set or options.objectives
    out: Path = options.out or (options.runs if changed else publish.ROOT)
    return out


def _only(table: Table, wanted: Sequence[str]) -> Table:
    """The table with the rows asked for, by objective or by label."""
    names = {name for row in table.rows for name in (row.label, row.objective) if name}
    for name in wanted:
        if name not in names:
            raise ConfigError(f"--only: {suggest(name, names, f'row of {table.name}')}")
    rows = tuple(row for row in table.rows if not wanted or {row.label, row.objective} & set(wanted))
    return replace(table, rows=rows)


def _with_embedded(config: RunConfig, runs: Path, uses_it: bool) -> tuple[RunConfig, Mapping[str, str]]:
    """Data folders the user did not set point into the embedded corpus, at the scale that uses it; digests of all.

    The embedded corpus is known by its specification, so that planning does not need it written.
    """
    given = digests(config.data)
    if not uses_it:
        return config, given
    spec = ToyworldSpec(seed=config.data.toyworld_seed)
    folder = runs / "shared" / "corpora" / spec.folder_name
    free = [name for name in FOLDERS if getattr(config.data, name) is None and name != "mmc4_pair"]
    folders: dict[str, Any] = {name: folder / name for name in free}
    known = {**given, **{name: f"{spec.folder_name}/{name}" for name in free}}
    return replace(config, data=replace(config.data, **folders)), known


def _run(plan: Plan, records: Sequence[RunRecord], place: Place, options: argparse.Namespace) -> None:
    done = {record.run_id for record in records if record.status is Status.DONE}
    missing = [run for run in plan.runs if run.run_id not in done and not run.problem]
    if not missing:
        return
    preflight.check(plan, missing, place)
    place.runs.mkdir(parents=True, exist_ok=True)
    for run in missing:
        folder = place.runs / run.run_id
        # A record that is not "done" is of an earlier attempt.
        (folder / "record.json").unlink(missing_ok=True)
        (folder / "progress.json").unlink(missing_ok=True)
        write_atomic(folder / SPEC_FILE, json.dumps(plain(run.written), indent=1) + "\n")
    cores = len(os.sched_getaffinity(0))
    workers = options.workers or preflight.accelerators() or max(1, cores // options.threads)
    machine = launch.Machine(
        place=place,
        scale=plan.scale.name,
        workers=workers,
        threads=options.threads,
        objectives=options.objectives.resolve() if options.objectives is not None else None,
    )
    reused = f", {len(plan.runs) - len(missing)} reused" if len(missing) < len(plan.runs) else ""
    print(f"{len(missing)} runs{reused}; {workers} at a time, logs and records in {place.runs}", file=sys.stderr)
    print(forecast(plan, missing, workers, multiplies_in()), file=sys.stderr)
    launch.LAUNCHERS[options.launcher](launch.ordered(missing), machine)


def _published(plan: Plan, tables: Sequence[Table], out: Path) -> Mapping[str, Publication]:
    """What the folder written to holds of these tables, by name. Raises RecordError where that cannot be read."""
    names = [plan.publication(table.name, ()).name for table in tables]
    paths = {name: out / "records" / f"{name}.jsonl" for name in names}
    return {name: publish.load(path) for name, path in paths.items() if path.exists()}


def _records(published: Mapping[str, Publication]) -> list[RunRecord]:
    return [record for held in published.values() for record in held.records.values()]


def _with_names(held: Publication, older: Mapping[str, RunRecord]) -> Publication:
    records = [older.get(run_id, record) for run_id, record in held.records.items()]
    return replace(held, records={record.run_id: record for record in records})


def _merged(records: Sequence[RunRecord], published: Mapping[str, Publication]) -> list[RunRecord]:
    """Records of this machine and published ones by run; of two, the one that is done, and ours where both are."""
    merged = {record.run_id: record for record in _records(published)}
    for record in records:
        if record.status is Status.DONE or record.run_id not in merged:
            merged[record.run_id] = record
    return list(merged.values())


def _other_seeds(
    plan_of: Callable[[Sequence[int]], Plan],
    asked: Sequence[int],
    published: Mapping[str, Publication],
    records: Sequence[RunRecord],
) -> list[int]:
    """Published seeds beyond those asked for that are complete under this very configuration; they stay in a table."""
    done = {record.run_id for record in records if record.status is Status.DONE}
    others = {slot.seed for held in published.values() for slot in held.slots} - set(asked)
    return [seed for seed in sorted(others) if all(run.run_id in done for run in plan_of([seed]).runs)]


def _collate(
    plan: Plan,
    tables: Sequence[Table],
    records: Sequence[RunRecord],
    published: Mapping[str, Publication],
    options: argparse.Namespace,
) -> int:
    complete = True
    for table in tables:
        publication = plan.publication(table.name, records)
        out = _out(options)
        held = published.get(publication.name)
        if held is not None and _finished(publication) < _finished(held):  # nothing is ever replaced by less
            said = f"{out / 'records'} holds {_finished(held)} finished runs of {table.title}, here are"
            out = options.runs
            print(f"{said} {_finished(publication)}: written to {out}, --out chooses another place", file=sys.stderr)
        publish.export(publication, out / "records")
        if lost := items.export(table, publication, options.runs, out / "records"):
            said = f"{len(lost)} finished runs of {table.title} have no scores of single items here, first {lost[0]}"
            print(f"{said}; their records stay", file=sys.stderr)
        paths = publish.collate(table, publication, out / "tables")
        finished = {r.run_id for r in publication.records.values() if r.status is Status.DONE}
        missing = [slot for slot in publication.slots if slot.run_id not in finished]
        complete = complete and not missing
        print(f"{table.title}: {paths[0]}" + (f" ({len(missing)} runs missing, see its notes)" if missing else ""))
    return EXIT_DONE if complete else EXIT_INCOMPLETE


def _finished(publication: Publication) -> int:
    return sum(record.status is Status.DONE for record in publication.records.values())


def _stages(plan: Plan, records: Sequence[RunRecord], seconds: float) -> str:
    """Where the time went: process seconds by stage over all runs of the plan, and what this command took."""
    wanted = {run.run_id for run in plan.runs}
    spent: dict[str, float] = {}
    for record in records:
        if record.run_id in wanted:
            stage = str(record.spec.get("task") or record.kind.value)
            spent[stage] = spent.get(stage, 0.0) + record.seconds
    parts = ", ".join(f"{stage} {duration(value)}" for stage, value in spent.items())
    return f"process time of all runs: {parts or 'none'}; this command took {duration(seconds)}"


if __name__ == "__main__":
    sys.exit(main())
