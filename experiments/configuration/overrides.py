"""`--set a.b=c`: one field of a configuration, typed by its dataclass. A typo is an error with a suggestion.

Keys are those of `experiments.configuration.config.RunConfig`. `objectives.<name>.<field>` and
`transfer.<task>.<field>` reach the Config of an objective or of a transfer task, `full.<task>.<field>` that of a task
in rows of full transfer; its module is imported when such a key is met and not before.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, TypeVar

from experiments.configuration.config import RunConfig
from experiments.configuration.typed import TypeMismatch, describe, from_plain, hints, parse_text
from results.canonical import plain

C = TypeVar("C")
LookUp = Callable[[str, str], type]

# Groups whose fields other packages declare, with an example of each.
NAMED = {
    "objectives": "objectives.lcl.contrast_weight=1.0",
    "transfer": "transfer.classify.epochs=5",
    "full": "full.classify.vision.lr=3e-5",
}
# Where their Configs are registered.
REGISTRIES = {"objectives": "objectives", "transfer": "transfer", "full": "transfer"}


class ConfigError(ValueError):
    """A configuration that cannot be used; the message names the key, the value and what would do."""


def suggest(name: str, known: Iterable[str], what: str) -> str:
    """Words for an error: "unknown <what> 'x'; did you mean 'y'? There are y, z"."""
    names = sorted(known)
    folded = {each.casefold(): each for each in names}  # LCL is nearer to lcl than to CLIP
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
    return f"unknown {what} {name!r}.{hint} There are {', '.join(names)}"


def parse(assignments: Sequence[str]) -> dict[str, str]:
    """`["a.b=c"]` as {"a.b": "c"}. Raises ConfigError for a missing "=" and for a key given twice with two values."""
    found: dict[str, str] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key, text = key.strip(), text.strip()
        if not equals or not key:
            raise ConfigError(
                f"--set {assignment!r} is no assignment; write key=value, for example pretrain.images=1000"
            )
        if found.setdefault(key, text) != text:
            raise ConfigError(f"--set {key} is given twice, as {found[key]!r} and as {text!r}; keep one")
    return found


def apply(config: RunConfig, changes: Mapping[str, Any], look_up: LookUp | None = None) -> RunConfig:
    """The configuration with these dotted keys changed.

    changes: text is parsed by the type of its field; other values must be of that type already.
    look_up: (group, name) -> Config class of an objective or transfer task; default: the registries.

    Raises ConfigError naming the key for an unknown key, a value of another type, or one that the config refuses.
    """
    for key, value in changes.items():
        group, *rest = key.split(".")
        if group in NAMED:
            config = _set_named(config, group, rest, key, value, look_up or _registered)
        else:
            config = set_field(config, key, value)
    return config


def set_field(config: C, key: str, value: Any, prefix: str = "") -> C:
    """A copy of a dataclass with one dotted field changed; `prefix` is how errors call the dataclass itself.

    Raises ConfigError as `apply` does.
    """
    above = prefix.split(".") if prefix else []
    changed: C = _set(config, above, key.split("."), ".".join([*above, key]), value)
    return changed


def _set(config: Any, here: list[str], parts: list[str], key: str, value: Any) -> Any:
    name, *rest = parts
    known = hints(type(config))
    if name not in known:
        raise ConfigError(f"--set {key}: {_below(here)}{suggest(name, known, 'key')}")
    inner = getattr(config, name)
    try:
        if rest:
            if not is_dataclass(inner):
                raise ConfigError(
                    f"--set {key}: {'.'.join([*here, name])!r} is {describe(known[name])} and has no keys below it"
                )
            return replace(config, **{name: _set(inner, [*here, name], rest, key, value)})
        if is_dataclass(inner):
            below = ", ".join(f"{key}.{each}" for each in hints(type(inner)))
            raise ConfigError(f"--set {key}: it is a group; set one of {below}")
        return replace(config, **{name: _typed(known[name], value)})
    except TypeMismatch as error:
        raise ConfigError(f"--set {key}={value}: {value!r} is not {error.expected}") from None
    except ConfigError:
        raise
    except ValueError as error:  # the config's own __post_init__
        raise ConfigError(f"--set {key}={value}: {error}") from None


def _set_named(config: RunConfig, group: str, path: list[str], key: str, value: Any, look_up: LookUp) -> RunConfig:
    if len(path) < 2:
        raise ConfigError(f"--set {key}: write {group}.<name>.<field>=<value>, for example {NAMED[group]}")
    name, *parts = path
    try:
        hint: Any = look_up(group, name)
    except ValueError as error:
        raise ConfigError(f"--set {key}: {error}") from None
    for depth, part in enumerate(parts):
        above = [group, name, *parts[:depth]]
        if not (is_dataclass(hint) and isinstance(hint, type)):
            raise ConfigError(f"--set {key}: {'.'.join(above)!r} is {describe(hint)} and has no keys below it")
        known = hints(hint)
        if part not in known:
            raise ConfigError(f"--set {key}: {_below(above)}{suggest(part, known, 'key')}")
        hint = known[part]
    try:
        typed = _typed(hint, value)
    except TypeMismatch as error:
        raise ConfigError(f"--set {key}={value}: {value!r} is not {error.expected}") from None
    held: Mapping[str, Mapping[str, Any]] = getattr(config, group)
    changed: dict[str, Any] = {group: {**held, name: {**held.get(name, {}), ".".join(parts): typed}}}
    return replace(config, **changed)


def _below(above: Sequence[str]) -> str:
    return f"below {'.'.join(above)!r}: " if above else ""


def _typed(hint: Any, value: Any) -> Any:
    return parse_text(hint, value) if isinstance(value, str) else from_plain(hint, plain(value))


def _registered(group: str, name: str) -> type:
    registry = importlib.import_module(
        f"{REGISTRIES[group]}.registry"
    )  # imports torch, hence only when such a key is met
    found: type = registry.get(name).Config
    return found
