"""Run records on disk: written once and whole, read strictly.

runs/<run_id>/record.json is the mark that a run is finished; items.jsonl beside it holds the scores of single test
items, samples.jsonl what was said of a few of them. Every file appears under its name only when complete (temporary
file in the same folder, fsync, rename, fsync of the folder), so that no reader ever takes half a file for a whole one.
"""

import contextlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from results.canonical import canonical_json, plain, spec_hash
from results.schema import SCHEMA_VERSION, Kind, RunRecord, Status

RECORD_FILE = "record.json"
ITEMS_FILE = "items.jsonl"
SAMPLES_FILE = "samples.jsonl"


class RecordError(ValueError):
    """A record or records file that cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Problem:
    """A run folder whose record was left out, and why."""

    path: Path
    message: str


def write_atomic(path: Path, content: str | bytes) -> None:
    """Put bytes, or text in UTF-8, at `path`: after a crash the path holds the old content or the new, never a part.

    Raises OSError when the folder cannot be written; the old content stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)  # mkstemp's 0600 would keep colleagues from reading shared runs
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write(
    record: RunRecord, folder: Path, items: Iterable[Mapping[str, Any]] = (), samples: Iterable[Mapping[str, Any]] = ()
) -> Path:
    """Write a run's per-item scores, its samples and then its record into `folder`; the path of the record.

    Raises RecordError when the record contradicts itself or holds a number that is not finite, OSError when the disk
    refuses.
    """
    path = folder / RECORD_FILE
    try:
        text = json.dumps(as_json(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        beside = {
            name: "".join(f"{canonical_json(line)}\n" for line in lines)
            for name, lines in ((ITEMS_FILE, items), (SAMPLES_FILE, samples))
        }
    except ValueError as error:
        raise RecordError(f"{path}: {error}") from None
    parse(json.loads(text), str(path))
    for name, lines in beside.items():
        if lines:
            write_atomic(folder / name, lines)
    write_atomic(path, text)
    return path


def as_json(record: RunRecord) -> dict[str, Any]:
    """A record as JSON values. Raises ValueError as `results.canonical.plain` does."""
    found: dict[str, Any] = plain(record, "record")
    for name in (
        "fitted_by",
        "lm_tokens",
        "busy_seconds",
    ):  # of later versions: records they do not apply to keep their bytes
        if found[name] in ("", None):
            del found[name]
    return found


def read(path: Path) -> RunRecord:
    """Read one record.json. Raises RecordError naming the file and every wrong field, OSError when it is not there."""
    return parse(decode(path.read_bytes(), str(path)), str(path))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file. A last line without its line break was cut by a crash and is left out.

    Raises RecordError naming file and line when another line is no JSON object.
    """
    lines = path.read_bytes().split(b"\n")[:-1]
    return [decode(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def decode(text: bytes, where: str) -> dict[str, Any]:
    """One JSON object. Raises RecordError naming `where` for anything else, NaN and infinities included."""
    try:
        found = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{where}: not JSON ({error})") from None
    if not isinstance(found, dict):
        raise RecordError(f"{where}: {type(found).__name__}, expected an object")
    return found


def load_all(runs: Path) -> tuple[list[RunRecord], list[Problem]]:
    """Every finished run below `runs`, by run_id, and the records that cannot be used with the reason.

    A folder without record.json is a run in progress and no problem. A missing `runs` holds nothing.
    """
    records: list[RunRecord] = []
    problems: list[Problem] = []
    for path in sorted(runs.glob(f"*/{RECORD_FILE}")):
        try:
            record = read(path)
            if record.run_id != path.parent.name:
                raise RecordError(f"{path}: run_id is {record.run_id!r}, but the folder is {path.parent.name!r}")
        except (RecordError, OSError) as error:
            problems.append(Problem(path, str(error)))
        else:
            records.append(record)
    return records, problems


def parse(found: Mapping[str, Any], where: str) -> RunRecord:
    """A record from decoded JSON.

    Raises RecordError naming `where` and all of its unknown, missing and mistyped fields, a schema newer than this
    code, a hash in run_id that is not the spec's, and a status without its reason.
    """
    check_version(found, where)
    known = {f.name: f for f in fields(RunRecord)}
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    complaints = [f"missing {name}" for name in known if name in required - found.keys()]
    complaints += [f"unknown {name}" for name in sorted(found.keys() - known.keys())]
    complaints += [
        f"{name} is {found[name]!r}, expected {_TYPES[name].name}"
        for name in known
        if name in found and not _TYPES[name].accepts(found[name])
    ]
    if complaints:
        raise RecordError(f"{where}: {'; '.join(complaints)}")
    values = {**found, "kind": Kind(found["kind"]), "status": Status(found["status"])}
    values["train_flops"], values["seconds"] = float(found["train_flops"]), float(found["seconds"])
    for name in ("metrics", "chance"):
        values[name] = {key: float(value) for key, value in found.get(name, {}).items()}
    record = RunRecord(**values)
    if not record.run_id.endswith(spec_hash(record.spec)):
        raise RecordError(
            f"{where}: run_id {record.run_id!r} does not end in the hash of its spec, {spec_hash(record.spec)!r}; "
            "the spec was edited after the run"
        )
    if (record.status is Status.DONE) == bool(record.reason):
        raise RecordError(f"{where}: status {record.status.value!r} with reason {record.reason!r}")
    return record


def check_version(found: Mapping[str, Any], where: str) -> None:
    """Raises RecordError when `found` was written by code with a newer schema than this."""
    version = found.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise RecordError(
            f"{where}: schema version {version}, but this code knows versions up to {SCHEMA_VERSION}; update the suite"
        )


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


class _Type(NamedTuple):
    """A type of the schema, as it stands in JSON."""

    name: str
    accepts: Callable[[Any], bool]


def _object_of(entry: _Type) -> _Type:
    return _Type(
        f"an object whose values are each {entry.name}",
        lambda value: isinstance(value, dict) and all(map(entry.accepts, value.values())),
    )


_TEXT = _Type("text", lambda value: isinstance(value, str))
_WHOLE = _Type("a whole number >= 0", lambda value: type(value) is int and value >= 0)
_NUMBER = _Type("a finite number", lambda value: type(value) in (int, float) and math.isfinite(value))

_TYPES: Mapping[str, _Type] = {
    **dict.fromkeys(("run_id", "scale", "commit", "data_digest", "finished_at", "reason", "fitted_by"), _TEXT),
    **dict.fromkeys(("seed", "images_seen", "lm_passes", "schema_version"), _WHOLE),
    **dict.fromkeys(("train_flops", "seconds"), _NUMBER),
    **dict.fromkeys(("metrics", "chance"), _object_of(_NUMBER)),
    **dict.fromkeys(("coverage", "items"), _object_of(_WHOLE)),
    **dict.fromkeys(("env", "unavailable"), _object_of(_TEXT)),
    "kind": _Type("one of " + ", ".join(Kind), lambda value: value in tuple(Kind)),
    "status": _Type("one of " + ", ".join(Status), lambda value: value in tuple(Status)),
    **dict.fromkeys(("spec", "defaults"), _Type("an object", lambda value: isinstance(value, dict))),
    "parent": _Type("text or null", lambda value: value is None or isinstance(value, str)),
    "lm_tokens": _Type("a whole number >= 0 or null", lambda value: value is None or _WHOLE.accepts(value)),
    "busy_seconds": _Type("a finite number or null", lambda value: value is None or _NUMBER.accepts(value)),
    "dirty": _Type("true or false", lambda value: isinstance(value, bool)),
}
