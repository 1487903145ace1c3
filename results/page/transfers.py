"""How encoders were transferred: frozen and full apart, each protocol with its numbers, from the specs of the runs."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from results.frame import Filled
from results.page.markdown import escape, plain_value
from results.page.settings import finished
from results.page.words import listed
from results.schema import BLIND, COVERAGE_COUNTS, FULL, Column, Kind, Mode, Row, RunRecord, Table

TITLES: Mapping[Mode, str] = {"frozen": "Frozen transfer", "full": "Full transfer"}
# What is said of a protocol, in this order; of the encoder in full transfer only.
NUMBERS = ("epochs", "steps", "batch", "lr", "lr_pretrained", "weight_decay", "label_smoothing")
VISION = ("lr", "layer_decay", "weight_decay", "drop_path")


def by_mode(filled: Filled) -> dict[Mode, Filled]:
    """The rows of each mode as a table of their own; captions without an image stand with the frozen encoders."""
    modes: dict[Mode, list[Row]] = defaultdict(list)
    for row in filled.rows:
        modes["frozen" if row.mode == BLIND else row.mode].append(row)

    def part(rows: Sequence[Row]) -> Table:
        def asked(columns: tuple[Column, ...]) -> tuple[Column, ...]:
            return tuple(column for column in columns if any(map(column.asked_of, rows)))

        table = filled.table
        return replace(table, rows=tuple(rows), columns=asked(table.columns), more_columns=asked(table.more_columns))

    return {mode: Filled(part(rows), filled.publication) for mode, rows in modes.items()}


ABOUT = (
    "The paper augments the pictures of classification; features that were computed once cannot be augmented, so "
    "`cached` is another protocol. Rows of different protocols stand in different tables."
)


def protocols(filled: Filled) -> list[tuple[str, str]]:
    """Tasks, each with how encoders were transferred to it; captions without an image are none."""
    specs = [record.resolved for _, record in _runs(filled)]
    return sorted({(spec["task"], _said(spec)) for spec in specs if spec["mode"] != BLIND})


def transfers(filled: Filled) -> list[str]:
    """The section of a page; nothing for a table whose every row reads cached features that lost nothing."""
    records = dict(_runs(filled))
    left_out: dict[str, Counter[str]] = {}
    special = False
    for record in records.values():
        spec = record.resolved
        special = special or spec["mode"] == FULL or _pictures(spec) == "augmented"
        if record.coverage.get("skipped"):
            causes = {cause: n for cause, n in record.coverage.items() if cause not in COVERAGE_COUNTS}
            left_out[spec["task"]] = Counter(causes)
    if not special and not left_out:
        return []
    lines = [f"- {escape(task)}: {said}" for task, said in protocols(filled)]
    for task, causes in sorted(left_out.items()):
        why = ", ".join(f"{escape(cause)} {count}" for cause, count in sorted(causes.items()))
        lines.append(f"- left out of the training set of {escape(task)}: {why}")
    return ["## How encoders were transferred", "", ABOUT, "", *lines]


def _runs(filled: Filled) -> Iterator[tuple[str, RunRecord]]:
    for slot, record in finished(filled):
        if record.kind is Kind.TRANSFER and "recipe" in record.spec:
            yield slot.run_id, record


def _pictures(spec: Mapping[str, Any]) -> str:
    """Runs from before there was a choice read cached features."""
    return str(spec["recipe"].get("pictures", "cached"))


def _said(spec: Mapping[str, Any]) -> str:
    recipe = spec["recipe"]
    pictures = "cached features of unaugmented pictures"
    if _pictures(spec) == "augmented":
        low, high = recipe["crop"]
        pictures = f"augmented pictures (crops of {low:g} to {high:g} of the area, mirrored {recipe['flip']:g}"
        pictures += f", RandAugment {recipe['rand_augment']:g})" if recipe.get("rand_augment") else ")"
    # 0 is off, and is not there in records from before there was a choice
    numbers = listed(f"{name} {plain_value(recipe[name])}" for name in NUMBERS if recipe.get(name))
    said = f"{spec['mode']}, {pictures}, {numbers}"
    if spec["mode"] == FULL:
        encoder = listed(f"{name} {plain_value(recipe['vision'][name])}" for name in VISION)
        said += f"; encoder: {encoder}"
    return said
