"""`python -m experiments.sweep table1`: from a table's declaration to its printed form, doing only what is missing."""

import argparse
import errno
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from experiments.configuration.config import Precision, RunConfig
from experiments.configuration.corpora import FOLDERS, digests, embedded_corpus
from experiments.configuration.overrides import ConfigError, apply, parse, suggest
from experiments.configuration.place import Place
from experiments.configuration.recipe import SCALES, Scale, get_scale
from experiments.launching import manifest
from experiments.launching.board import duration
from experiments.launching.launchers import NAMES, get_launcher
from experiments.launching.machine import Launched, Machine, ordered
from experiments.planning.catalogue import Suite
from experiments.planning.migrate import rename_folders, renamed
from experiments.planning.plan import Plan, build_plan, listing
from experiments.planning.price import committed, price
from experiments.running.stopping import Stopped, stoppable
from experiments.tables import TABLES, get_table
from results import curves, items, publish
from results.record import load_all
from results.schema import Kind, Publication, RunRecord, Status, Table, published_name

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_INCOMPLETE, EXIT_STOPPED = 0, 1, 2, 3, 130

EPILOG = """\
examples:
  python -m experiments.sweep table1                        the whole comparison on the embedded corpus
  python -m experiments.sweep table1 --dry-run              what would run, and what is there already
  python -m experiments.sweep table1 --seeds 3              mean and s.d. over three seeds
  python -m experiments.sweep table1 --seeds 10-14          five seeds that no choice of the recipe has seen
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
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    options.command = given
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        with stoppable():
            return sweep(options)
    except ValueError as error:  # settings, corpora, records: what the user gave
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except OSError as error:
        print(f"error: {_said(error, options.runs)}", file=sys.stderr)
        return EXIT_FAILED
    except (KeyboardInterrupt, Stopped):
        print("stopped; run the same command again to continue", file=sys.stderr)
        return EXIT_STOPPED


def _said(error: OSError, runs: Path) -> str:
    if error.errno != errno.ENOSPC:
        return str(error)
    return f"{error.strerror} ({error.filename or runs}); free some space, or choose another place with --runs"


def sweep(options: argparse.Namespace) -> int:
    """Plan, run what is missing, collate."""
    _check(options)
    seeds_asked = _seeds(options.seeds)
    scale = get_scale(options.scale)
    tables = [get_table(name) for name in options.tables]
    changes = parse(options.set)
    if not options.objectives:  # with further objectives, rows and settings can have names that are not known yet
        tables, config = _given(tables, scale, changes, options)
    from experiments.launching import preflight  # imports torch: what a typo can be told without comes before

    if options.objectives:
        preflight.add_objectives(options.objectives)
        tables, config = _given(tables, scale, changes, options)
    if options.launcher == "slurm":
        _check_precision(config)
    published = _published(options.tables, options.scale, _out(options))
    config = preflight.with_precision(config, _made_in(published) if options.collate or options.migrate else None)
    runs = options.runs.resolve()
    config, known = with_embedded(config, runs, uses_it=scale.embedded)
    tables = [preflight.with_labels(table, config.data, known) for table in tables]
    plan_of = partial(build_plan, tables, scale=scale, config=config, catalogue=Suite(), digests=known)
    plan = plan_of(seeds_asked)
    records, problems = load_all(runs)
    for problem in problems:
        print(f"warning: {problem.message}; it is left out", file=sys.stderr)
    known_seeds = {*seeds_asked, *(slot.seed for held in published.values() for slot in held.slots)}
    older = renamed(plan_of(sorted(known_seeds)).runs, [*records, *_records(published)])
    if older and not options.migrate:
        raise ConfigError(
            f"{len(older)} finished runs have the settings asked for under the names of an older version, for example "
            f"{next(iter(older))}; run the same command with --migrate once and they are used"
        )
    if options.dry_run:
        print(listing(plan, records))
        print(price(plan, [*records, *_records(published)], committed(scale.name)))
        return EXIT_DONE
    place = Place(runs=runs, data=config.data)
    began = time.monotonic()
    if options.migrate:
        moved = rename_folders(runs, older)
        names = {old: record.run_id for old, record in older.items()}
        for name in published:
            for kept in (items, curves):
                kept.rename(_out(options) / "records" / f"{name}{kept.SUFFIX}", names)
        published = {name: _with_names(held, older) for name, held in published.items()}
        print(f"{len(older)} finished runs have new names, {moved} of them in {runs}")
    elif not options.collate and _run(plan, records, place, config, options) == "submitted":
        return EXIT_DONE
    if not options.collate:
        records, _ = load_all(runs)
    seconds = time.monotonic() - began
    print(_stages(plan, records, seconds))
    merged = _merged(records, published)
    seeds = sorted([*seeds_asked, *_other_seeds(plan_of, seeds_asked, published, merged)])
    return _collate(plan_of(seeds), tables, merged, published, options)


def _check(options: argparse.Namespace) -> None:
    """Raises ConfigError for what cannot work, before anything is loaded or written."""
    for name, what in (("workers", "processes"), ("threads", "threads of a process")):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is the number of {what}, at least 1, got {value}")
    for name in ("runs", "out"):
        path = getattr(options, name)
        file = next((each for each in (path, *path.absolute().parents) if each.is_file()), None) if path else None
        if file is not None:
            raise ConfigError(f"--{name} {path}: {file} is a file; a folder is needed, which need not exist yet")


def _seeds(given: str) -> range:
    """The seeds of "3", which are 0 to 2, or of "10-14". Raises ConfigError for anything else."""
    first, dash, last = given.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise ConfigError(f"--seeds is a number of seeds or a range like 10-14, got {given!r}")
    found = range(int(first), int(last) + 1) if dash else range(int(first))
    if not found:
        raise ConfigError(f"--seeds is the number of seeds, at least 1, or a range like 10-14, got {given!r}")
    return found


def _check_precision(config: RunConfig) -> None:
    """Raises ConfigError where the machine that submits would decide what the nodes multiply in."""
    given = {"pretrain": config.pretrain.optim.precision, "text_lm": config.text_lm.optim.precision}
    if undecided := [name for name, precision in given.items() if precision == "auto"]:
        said = " ".join(f"--set {name}.optim.precision=bf16" for name in undecided)
        raise ConfigError(f"--launcher slurm: what the nodes multiply in is not known here; add {said}, or =fp32")


def _given(
    tables: Sequence[Table], scale: Scale, changes: Mapping[str, str], options: argparse.Namespace
) -> tuple[list[Table], RunConfig]:
    """The rows asked for, and the settings. Raises ConfigError for a table without rows at that scale."""
    for table in tables:
        if not table.rows_at(scale.name):
            known = ", ".join(sorted({name for row in table.rows for name in row.only_at}))
            raise ConfigError(f"{table.name} has no row at scale {scale.name!r}; add --scale with one of {known}")
    return [_only(table, options.only) for table in tables], apply(scale.config, changes)


def _out(options: argparse.Namespace) -> Path:
    """Where tables go. What is committed in results/ is replaced by the same table only, never by a changed one."""
    changed = options.only or options.objectives or any(not key.startswith("slurm.") for key in parse(options.set))
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


def with_embedded(config: RunConfig, runs: Path, uses_it: bool) -> tuple[RunConfig, Mapping[str, str]]:
    """Data folders the user did not set point into the embedded corpus, at the scale that uses it; digests of all.

    The embedded corpus is known by its specification, so that planning does not need it written.
    """
    given = digests(config.data)
    if not uses_it:
        return config, given
    spec = embedded_corpus(config.data)
    folder = runs / "shared" / "corpora" / spec.folder_name
    free = [name for name in FOLDERS if getattr(config.data, name) is None and name != "mmc4_pair"]
    folders: dict[str, Any] = {name: folder / name for name in free}
    known = {**given, **{name: f"{spec.folder_name}/{name}" for name in free}}
    return replace(config, data=replace(config.data, **folders)), known


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
    from experiments.running.hardware import multiplies_in

    preflight.check(missing, place)
    for run in missing:
        run.written.save(place.runs / run.run_id)
    cores = len(os.sched_getaffinity(0))
    workers = options.workers or preflight.accelerators() or max(1, cores // options.threads)
    machine = Machine(
        place=place,
        scale=plan.scale.name,
        workers=workers,
        threads=options.threads,
        objectives=options.objectives.resolve() if options.objectives is not None else None,
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
        print(f"{workers} at a time; {forecast(plan, missing, workers, multiplies_in())}", file=sys.stderr)
    return get_launcher(options.launcher)(ordered(missing), machine)


def _published(tables: Sequence[str], scale: str, out: Path) -> Mapping[str, Publication]:
    """What the folder written to holds of these tables, by name. Raises RecordError where that cannot be read."""
    names = [published_name(table, scale) for table in tables]
    paths = {name: out / "records" / f"{name}.jsonl" for name in names}
    return {name: publish.load(path) for name, path in paths.items() if path.exists()}


def _made_in(published: Mapping[str, Publication]) -> Precision | None:
    """The precision of all published runs: any machine can collate them, whatever it multiplies in itself."""
    found = {record.resolved["precision"] for record in _records(published) if record.kind is Kind.TRANSFER}
    return found.pop() if len(found) == 1 else None


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
        publication = replace(plan.publication(table.name, records), settings=_settings(options.set))
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
        curves.export(publication, options.runs, out / "records")
        paths = publish.collate(table, publication, out / "tables")
        finished = {r.run_id for r in publication.records.values() if r.status is Status.DONE}
        missing = [slot for slot in publication.slots if slot.run_id not in finished]
        complete = complete and not missing
        print(f"{table.title}: {paths[0]}" + (f" ({len(missing)} runs missing, see its notes)" if missing else ""))
    return EXIT_DONE if complete else EXIT_INCOMPLETE


def _settings(given: Sequence[str]) -> dict[str, str]:
    """Settings of the command line that are published with a table: not where data lies, nor those of a cluster."""
    places = {f"data.{name}" for name in (*FOLDERS, "tokenizer")}
    private = ("slurm.", "data.called.")
    return {key: value for key, value in parse(given).items() if key not in places and not key.startswith(private)}


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
