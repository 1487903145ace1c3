"""`--list-settings`: everything `--set` changes, with its value at each scale, its type, and what it means.

Values come from the scales and the declared Configs, types from the annotations, meanings from the comments of the
fields (experiments/configuration/meanings.py): nothing of a setting is said a second time here.
"""

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from typing import Any

from experiments.configuration.config import RunConfig
from experiments.configuration.meanings import about, meanings
from experiments.configuration.overrides import NAMED, REGISTRIES, ConfigError, change, suggest
from experiments.configuration.recipe import SCALES
from experiments.configuration.typed import describe, hints
from experiments.planning.catalogue import Catalogue


@dataclass(frozen=True)
class Setting:
    """One key of `--set`."""

    key: str
    hint: Any
    meaning: str  # "" where the name and its group say it all
    values: Mapping[str, Any]  # by scale
    group: str  # key of the dataclass it is a field of, "" for the whole
    about: str  # what that dataclass is


def list_settings(prefix: str, catalogue: Catalogue) -> str:
    """The settings below a prefix, "" for all, as text. Raises ConfigError where there is none.

    Objectives and transfer tasks, which import torch, are asked only where the prefix reaches them.
    """
    found = list(settings(prefix.partition(".")[0], catalogue))
    chosen = [each for each in found if not prefix or f"{each.key}.".startswith(f"{prefix}.")]
    if not chosen:
        raise _unknown(prefix, [each.key for each in found])
    lines, group = [], None
    for each in chosen:
        if each.group != group:
            group = each.group
            lines += ["", f"{group or 'all'}: {each.about}"]
        lines += [
            f"  {each.key} = {_values(each)}",
            f"      {'; '.join(filter(None, (describe(each.hint), each.meaning)))}",
        ]
    return "\n".join(lines[1:])


def settings(first: str, catalogue: Catalogue) -> Iterator[Setting]:
    """Every setting; of objectives and transfer tasks those of one group, or of all groups for first="" ."""
    yield from _below("", RunConfig, {name: scale.config for name, scale in SCALES.items()})
    for group in NAMED:
        if first in ("", group):
            for name in importlib.import_module(f"{REGISTRIES[group]}.registry").available():
                held = {scale: _config(group, name, SCALES[scale].config, catalogue) for scale in SCALES}
                yield from _below(f"{group}.{name}", catalogue.config_class(group, name), held)


def _config(group: str, name: str, config: RunConfig, catalogue: Catalogue) -> Any:
    """The Config of an objective, a transfer task or a stage of dialogue as a scale has it."""
    if group == "dialogue":
        return change(catalogue.stage(name).default, config.dialogue.get(name, {}), f"dialogue.{name}")
    if group == "objectives":
        return change(catalogue.objective(name).default, config.objectives.get(name, {}), f"objectives.{name}")
    task = catalogue.task(name)
    full = group == "full"
    made = change(task.default, {**(task.in_full if full else {}), **config.transfer.get(name, {})}, f"transfer.{name}")
    return change(made, config.full.get(name, {}), f"full.{name}") if full else made


def _below(group: str, cls: type, held: Mapping[str, Any]) -> Iterator[Setting]:
    """The fields of a dataclass, then those of the dataclasses in it. held: one instance a scale."""
    nested = {}
    for name, hint in hints(cls).items():
        if name in NAMED and cls is RunConfig:
            continue
        key = f"{group}.{name}" if group else name
        values = {scale: getattr(config, name) for scale, config in held.items()}
        if is_dataclass(hint):
            nested[key] = (hint, values)
        else:
            yield Setting(key, hint, meanings(cls).get(name, ""), values, group, about(cls))
    for key, (inner, values) in nested.items():
        yield from _below(key, inner, values)  # type: ignore[arg-type]


def _values(setting: Setting) -> str:
    """As `--set` takes it; scale by scale where they differ."""
    shown = {scale: text_of(value) for scale, value in setting.values.items()}
    if len(set(shown.values())) == 1:
        return next(iter(shown.values()))
    return ", ".join(f"{text} at {scale}" for scale, text in shown.items())


def text_of(value: Any) -> str:
    """A value in the words that `--set` takes."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(text_of, value))
    return str(value.value if isinstance(value, Enum) else value)


def _unknown(prefix: str, keys: list[str]) -> ConfigError:
    if whole := next((key for key in keys if prefix.startswith(f"{key}.")), None):
        return ConfigError(f"--list-settings {prefix}: {whole!r} is a setting and has none below it")
    parts = prefix.split(".")
    depth = max(d for d in range(len(parts)) if not d or any(key.startswith(".".join(parts[:d]) + ".") for key in keys))
    known = {key.split(".")[depth] for key in keys if key.split(".")[:depth] == parts[:depth]} | (
        set() if depth else {*NAMED}
    )
    return ConfigError(f"--list-settings {prefix}: {suggest(parts[depth], known, 'setting')}")
