"""What the options of a sweep ask for: checked, and said with both values where it cannot work."""

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from experiments.configuration.config import RunConfig
from experiments.configuration.corpora import FOLDERS
from experiments.configuration.overrides import ConfigError, apply, parse, suggest
from experiments.configuration.recipe import Scale
from results import publish
from results.schema import FULL, Table


def check(options: Namespace) -> None:
    """Raises ConfigError for what cannot work, before anything is loaded or written."""
    for name, what in (("workers", "processes"), ("threads", "threads of a process")):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is the number of {what}, at least 1, got {value}")
    if options.workers is not None and options.launcher == "slurm":
        raise ConfigError(f"--workers {options.workers} is not read by --launcher slurm, which submits every run")
    if (options.workers or 1) > 1 and options.launcher == "inline":
        raise ConfigError(f"--workers {options.workers} is not read by --launcher inline, which does one run at a time")
    for name in ("runs", "out"):
        path = getattr(options, name)
        file = next((each for each in (path, *path.absolute().parents) if each.is_file()), None) if path else None
        if file is not None:
            raise ConfigError(f"--{name} {path}: {file} is a file; a folder is needed, which need not exist yet")


def seeds(given: str) -> range:
    """The seeds of "3", which are 0 to 2, or of "10-14". Raises ConfigError for anything else."""
    first, dash, last = given.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise ConfigError(f"--seeds is a number of seeds or a range like 10-14, got {given!r}")
    found = range(int(first), int(last) + 1) if dash else range(int(first))
    if not found:
        raise ConfigError(f"--seeds is the number of seeds, at least 1, or a range like 10-14, got {given!r}")
    return found


def rows_and_settings(
    tables: Sequence[Table], scale: Scale, changes: Mapping[str, str], options: Namespace
) -> tuple[list[Table], RunConfig]:
    """The rows asked for, and the settings. Raises ConfigError for a table without rows at that scale."""
    for table in tables:
        if not table.rows_at(scale.name):
            known = ", ".join(sorted({name for row in table.rows for name in row.only_at}))
            raise ConfigError(f"{table.name} has no row at scale {scale.name!r}; add --scale with one of {known}")
    chosen = [_only(table, options.only) for table in tables]
    for table in chosen:
        if not table.rows_at(scale.name):
            rows = ", ".join(row.label for row in table.rows)
            raise ConfigError(f"--only: {table.name} has {rows} at other scales, and not at {scale.name!r}")
    return chosen, apply(scale.config, changes)


def unread(tables: Sequence[Table], changes: Mapping[str, str], launcher: str) -> list[str]:
    """Settings that no row asked for reads: one list of them may serve several tables, so they are only said."""
    rows = [row for table in tables for row in table.rows]
    read = {f"objectives.{row.objective}." for row in rows}
    read |= {"full."} if any(row.mode == FULL for row in rows) else set()
    read |= {"slurm."} if launcher == "slurm" else set()
    asked = [key for key in changes if key.startswith(("objectives.", "full.", "slurm."))]
    return [key for key in asked if not key.startswith(tuple(read))]


def _only(table: Table, wanted: Sequence[str]) -> Table:
    """The table with the rows asked for, by objective or by label."""
    names = {name for row in table.rows for name in (row.label, row.objective) if name}
    for name in wanted:
        if name not in names:
            raise ConfigError(f"--only: {suggest(name, names, f'row of {table.name}')}")
    rows = tuple(row for row in table.rows if not wanted or {row.label, row.objective} & set(wanted))
    return replace(table, rows=rows)


def check_precision(config: RunConfig) -> None:
    """Raises ConfigError where the machine that submits would decide what the nodes multiply in."""
    given = {"pretrain": config.pretrain.optim.precision, "text_lm": config.text_lm.optim.precision}
    if undecided := [name for name, precision in given.items() if precision == "auto"]:
        said = " ".join(f"--set {name}.optim.precision=bf16" for name in undecided)
        raise ConfigError(f"--launcher slurm: what the nodes multiply in is not known here; add {said}, or =fp32")


def published_settings(options: Namespace) -> dict[str, str]:
    """Settings of the command line that are published with a table: not where data lies, nor those of a cluster."""
    places = {f"data.{name}" for name in (*FOLDERS, "tokenizer", "dialogue", "llm")}
    private = ("slurm.", "data.called.")
    changes = parse(options.set).items()
    return {key: value for key, value in changes if key not in places and not key.startswith(private)}


def out(options: Namespace) -> Path:
    """Where tables go. What is committed in results/ is replaced by the same table only, never by a changed one."""
    changed = options.only or options.objectives or any(not key.startswith("slurm.") for key in parse(options.set))
    found: Path = options.out or (options.runs if changed else publish.ROOT)
    return found
