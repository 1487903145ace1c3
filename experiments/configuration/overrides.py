"""`--set a.b=c`: one field of a configuration, typed by its dataclass. A typo is an error with a suggestion.

Keys are those of `experiments.configuration.config.RunConfig`. `objectives.<name>.<field>` and
`transfer.<task>.<field>` reach the Config of an objective or of a transfer task, `full.<task>.<field>` that of a task
in rows of full transfer, `dialogue.<stage>.<field>` a stage of multimodal dialogue; the module is imported when such a
key is met and not before.
"""

import difflib
import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass, replace
from typing import Any, TypeVar, cast

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
    "dialogue": "dialogue.tune.epochs=2",
}
# Where their Configs are registered.
REGISTRIES = {
    "objectives": "objectives",
    "transfer": "transfer",
    "full": "transfer",
    "dialogue": "transfer.dialogue",
}


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
    look_up: (group, name) -> Config class of an objective, transfer task or stage; default: the registries.

    Raises ConfigError naming the key for an unknown key, a value of another type, or one that the config refuses.
    """
    own = {key: value for key, value in changes.items() if key.partition(".")[0] not in NAMED}
    for key, value in changes.items():
        if key not in own:
            config = _set_named(config, key, value, look_up or _registered)
    return change(config, own)


def change(config: C, changes: Mapping[str, Any], prefix: str = "") -> C:
    """A copy of a dataclass with dotted fields changed; `prefix` is how errors call the dataclass itself.

    All at once: what a dataclass checks, it checks of the result, whatever the order of the changes. Raises ConfigError
    as `apply` does.
    """
    above = prefix.split(".") if prefix else []
    typed = {key: _typed(type(config), above, key, value) for key, value in changes.items()}
    changed: C = _replaced(config, typed, {".".join([*above, key]): value for key, value in changes.items()}, above)
    return changed


def _replaced(config: Any, typed: Mapping[str, Any], given: Mapping[str, Any], here: Sequence[str]) -> Any:
    """given: the same changes under their whole keys, as the user wrote them."""
    new = {key: value for key, value in typed.items() if "." not in key}
    for name in dict.fromkeys(key.partition(".")[0] for key in typed if key not in new):
        below = {key.partition(".")[2]: value for key, value in typed.items() if key.startswith(f"{name}.")}
        new[name] = _replaced(getattr(config, name), below, given, [*here, name])
    try:
        return replace(config, **new)
    except ValueError as error:  # the config's own __post_init__
        keys = [".".join([*here, key]) for key in typed]
        raise ConfigError(f"{' '.join(f'--set {key}={given[key]}' for key in keys)}: {error}") from None


def _typed(cls: type, above: Sequence[str], key: str, value: Any) -> Any:
    """The value as its field has it: the type is found along the key, below what stands above."""
    whole, here = ".".join([*above, key]), list(above)
    hint: Any = cls
    for part in key.split("."):
        if not is_dataclass(hint):
            raise ConfigError(f"--set {whole}: {'.'.join(here)!r} is {describe(hint)} and has no keys below it")
        known = hints(cast(type, hint))
        if part not in known:
            below = f"below {'.'.join(here)!r}: " if here else ""
            raise ConfigError(f"--set {whole}: {below}{suggest(part, known, 'key')}")
        hint = known[part]
        here.append(part)
    if is_dataclass(hint):
        below = ", ".join(f"{whole}.{each}" for each in hints(cast(type, hint)))
        raise ConfigError(f"--set {whole}: it is a group; set one of {below}")
    try:
        return parse_text(hint, value) if isinstance(value, str) else from_plain(hint, plain(value))
    except TypeMismatch:
        raise ConfigError(f"--set {whole}={value}: {value!r} is not {describe(hint)}") from None


def _set_named(config: RunConfig, key: str, value: Any, look_up: LookUp) -> RunConfig:
    group, *path = key.split(".", 2)
    if len(path) < 2:
        raise ConfigError(f"--set {key}: write {group}.<name>.<field>=<value>, for example {NAMED[group]}")
    name, field = path
    try:
        cls = look_up(group, name)
    except ValueError as error:
        raise ConfigError(f"--set {key}: {error}") from None
    typed = _typed(cls, [group, name], field, value)
    held: Mapping[str, Mapping[str, Any]] = getattr(config, group)
    changed: dict[str, Any] = {group: {**held, name: {**held.get(name, {}), field: typed}}}
    return replace(config, **changed)


def _registered(group: str, name: str) -> type:
    registry = importlib.import_module(
        f"{REGISTRIES[group]}.registry"
    )  # imports torch, hence only when such a key is met
    found: type = registry.get(name).Config
    return found
