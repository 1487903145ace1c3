"""In which settings the runs differ from the paper's recipe, and rows from each other: computed from the runs' specs.

What the paper states and what this suite chose for the paper's scale is told apart by `Publication.stated`.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from results.compare import ABSENT, departures, settings
from results.frame import Filled
from results.page.markdown import DASH, escape, plain_value
from results.page.words import listed, times
from results.schema import Kind, Publication, Row, RunRecord, Slot, Status

PRETRAIN = Kind.PRETRAIN.value
AUGMENTED = ("classify",)  # tasks in which the paper augments pictures (A.2)
OBJECTIVE, MODEL = "objective.config.", "model."


class Change(NamedTuple):
    """A setting that is not the paper's, with both values as printed."""

    stage: str
    key: str  # dotted; options of an objective as `--set` spells them: objectives.lcl.contrast_weight
    paper: str
    here: str


REDUCED = "NOT THE PAPER'S RECIPE, not comparable with the paper"


def warning_of(filled: Filled) -> str:
    """What stands above the numbers wherever they are printed: the scale's warning, or that the recipe was changed."""
    return filled.publication.warning or (REDUCED if changes(filled) else "")


def given(publication: Publication) -> str:
    """The settings of the command line under which a table was swept, "" without any."""
    return ", ".join(f"{key}={value}" for key, value in publication.settings.items())


def changes(filled: Filled) -> dict[Change, list[str]]:
    """Settings in which runs differ from the paper's recipe, with the labels of the rows."""
    found: dict[Change, list[str]] = defaultdict(list)
    for slot, record in _first_runs(filled):
        reference = filled.publication.references.get(slot.row, {}).get(slot.stage)
        for key, pair in departures(reference, record).items() if reference is not None else ():
            paper, here = (DASH if value is ABSENT else plain_value(value) for value in pair)
            found[Change(slot.stage, _as_set(key, record.resolved), paper, here)].append(slot.row)
    return dict(found)


def recipe(filled: Filled) -> list[str]:
    """What the scale changes in the paper's recipe and what rows have of their own, as a short list."""
    everyone = _compared(filled)
    found = changes(filled)
    title = f"## What the {escape(filled.scale)} recipe changes"
    if not found:
        nothing = "Nothing: every setting of every run is that of the paper's recipe."
        return [title, "", nothing, "", *_own_settings(filled)] if everyone else []
    about = (
        "The paper's scale → here, in all rows unless some are named. What the paper states stands apart from what it "
        "leaves open, where the first value is this suite's choice (`experiments/configuration/recipe.py`)."
    )
    sizes, rest = _sizes(found)
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for change, rows in rest.items():
        whole = change.key.startswith("objectives.") or set(rows) >= everyone[change.stage]
        where = "" if whole else f" ({', '.join(map(escape, rows))})"
        said = "stated in the paper" if _stated(change, filled.publication.stated) else "the suite's choice"
        groups[change.stage, said].append(f"{escape(change.key)} {change.paper} → {change.here}{where}")
    ordered = sorted(
        groups.items(), key=lambda each: (each[0][0] != PRETRAIN, each[0][0], each[0][1] != "stated in the paper")
    )
    lines = [f"- {escape(stage)}, {said}: {'; '.join(parts)}" for (stage, said), parts in ordered]
    return [title, "", about, "", *sizes, *lines, *_cached(filled), *_own_settings(filled)]


def _sizes(found: Mapping[Change, Sequence[str]]) -> tuple[list[str], dict[Change, Sequence[str]]]:
    """One line for everything that follows from the size of the backbones, and what does not."""
    names = {(change.paper, change.here) for change in found if change.key == f"{MODEL}name"}
    if not names:
        return [], dict(found)
    count = len({change.key for change in found if change.key.startswith(MODEL)})
    sizes = listed(f"{paper} → {here}" for paper, here in sorted(names))
    line = (
        f"- sizes of the backbones: {sizes}, {times(count, 'setting')} below {MODEL.rstrip('.')} (`backbones/sizes.py`)"
    )
    return [line], {change: rows for change, rows in found.items() if not change.key.startswith(MODEL)}


def _stated(change: Change, stated: Mapping[str, Sequence[str]]) -> bool:
    keys = stated.get(change.stage, ())
    return any(change.key == key or (key.endswith(".") and change.key.startswith(key)) for key in keys)


def _compared(filled: Filled) -> dict[str, set[str]]:
    """Rows with a counterpart in the paper's recipe, by stage; an initial encoder has hardly any settings."""
    rows: dict[str, set[str]] = defaultdict(set)
    for slot, record in _first_runs(filled):
        if slot.stage in filled.publication.references.get(slot.row, {}) and record.spec.get("objective", ABSENT):
            rows[slot.stage].add(slot.row)
    return rows


def _cached(filled: Filled) -> list[str]:
    """Tasks whose pictures were seen as they are though the paper augments them; before there was a choice all were."""
    here, everyone = defaultdict[str, dict[str, None]](dict), defaultdict[str, set[str]](set)
    for slot, record in finished(filled):
        everyone[slot.stage].add(slot.row)
        if _saw_cached(slot, record):
            here[slot.stage][slot.row] = None
    return [
        f"- {escape(task)}: cached features of pictures as they are; the paper augments them"
        + (f" ({', '.join(map(escape, rows))})" if set(rows) < everyone[task] else "")
        for task, rows in sorted(here.items())
    ]


def _saw_cached(slot: Slot, record: RunRecord) -> bool:
    recipe = record.resolved.get("recipe")
    return slot.stage in AUGMENTED and recipe is not None and recipe.get("pictures", "cached") == "cached"


def _own_settings(filled: Filled) -> list[str]:
    """Settings of pre-training in which two rows with a trained encoder differ, in one line."""
    rows = {row.label: row for row in filled.rows}
    records = {
        slot.row: record
        for slot, record in _first_runs(filled)
        if slot.stage == PRETRAIN and slot.row in rows and record.spec.get("objective") is not None
    }
    leaves = {
        row: {_as_set(key, record.resolved): value for key, value in settings(record.resolved).items()}
        for row, record in records.items()
    }
    defaults = {row: {_as_set(key, record.resolved) for key in record.defaults} for row, record in records.items()}
    found = []
    for key in sorted({key for each in leaves.values() for key in each} - {"objective.name"}):
        having = [row for row, each in leaves.items() if key in each]
        if len(having) < len(leaves) and all(key in defaults[row] for row in having):
            continue  # newer than the other records, which were made when there was nothing but its default
        groups: dict[str, list[str]] = defaultdict(list)
        for row, each in leaves.items():
            if not key.startswith("objective") or key in _shared(leaves, rows, row):
                groups[plain_value(each[key]) if key in each else DASH].append(row)
        if len(groups) > 1:
            values = ", ".join(f"{value} ({', '.join(map(escape, labels))})" for value, labels in groups.items())
            found.append(f"{escape(key)} {values}")
    return [f"- pretrain, besides their objective and its options rows differ in: {'; '.join(found)}"] if found else []


def _shared(leaves: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Row], row: str) -> set[str]:
    """Settings of a row whose objective another row of the table has too."""
    twins = [other for other in leaves if other != row and rows[other].objective == rows[row].objective]
    return set(leaves[row]).union(*(leaves[twin] for twin in twins)) if twins else set()


def _as_set(key: str, spec: Mapping[str, Any]) -> str:
    """A dotted key of a spec, an objective's own options under its name."""
    if not key.startswith(OBJECTIVE):
        return key
    return f"objectives.{spec['objective']['name']}.{key.removeprefix(OBJECTIVE)}"


def _first_runs(filled: Filled) -> list[tuple[Slot, RunRecord]]:
    """The finished run with the smallest seed of every row and stage, in order of the slots."""
    first: dict[tuple[str, str], tuple[Slot, RunRecord]] = {}
    for slot, record in sorted(finished(filled), key=lambda each: each[0].seed):
        first.setdefault((slot.row, slot.stage), (slot, record))
    order = {(slot.row, slot.stage): n for n, slot in reversed(list(enumerate(filled.publication.slots)))}
    return [first[key] for key in sorted(first, key=lambda key: order[key])]


def finished(filled: Filled) -> Iterator[tuple[Slot, RunRecord]]:
    """Slots whose run is done, with its record."""
    for slot in filled.publication.slots:
        record = filled.publication.records.get(slot.run_id)
        if record is not None and record.status is Status.DONE:
            yield slot, record
