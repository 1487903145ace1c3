"""The page of one evaluated encoder: each score with its interval over test images, and what it is worth.

A captioning score stands beside those of two baselines: the same captions given to other images, and the captions of a
head that never got an image, where that one was run. The differences are over the same images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from experiments.configuration.config import LLM
from results.page.markdown import DASH, table
from results.schema import RunRecord, metric_key
from results.statistics.resampling import Spread, Sums, compare, spread

SHUFFLED = "shuffled_"
SHUFFLED_TOO = "cider"  # the score that a captioning run has by image for its shuffled captions as well


@dataclass(frozen=True)
class Evaluated:
    """A transfer and its metrics by key, as sums over the images of its test sets."""

    record: RunRecord
    sums: Mapping[str, Sums]


def page(title: str, found: Sequence[Evaluated], blind: Evaluated | None) -> list[str]:
    """A line for every declared metric of every task, and what it was measured under.

    blind: the captioning run without an image that belongs to these, None where it was not run.
    """
    from transfer.registry import get  # imports torch

    lines, notes = [], []
    for each in found:
        record, task = each.record, each.record.resolved["task"]
        for key, value in record.metrics.items():
            dataset, _, metric = key.partition("/")
            if metric in get(task).metrics:
                chance = f"{record.chance[key]:.1f}" if key in record.chance else DASH
                certain = _range(spread(each.sums[key])) if key in each.sums else DASH
                lines.append([task, dataset, metric, f"{value:.2f}", certain, chance, str(record.items[dataset])])
        notes += _baselines(each, blind)
        notes += _conditions(record)
    header = ["task", "test set", "metric", "value", "95 % over images", "chance", "images"]
    return [f"# {title}", "", *table(header, lines, left=3), "", *notes]


def _baselines(each: Evaluated, blind: Evaluated | None) -> list[str]:
    notes = []
    for key, sums in each.sums.items():
        dataset, _, metric = key.partition("/")
        if metric.startswith(SHUFFLED):
            continue
        others = {"with the captions of another image": each.sums.get(metric_key(dataset, SHUFFLED + metric))}
        if blind is not None and blind.record.run_id != each.record.run_id:
            others["without an image"] = blind.sums.get(key)
        for what, other in others.items():
            if other is not None:
                pair = compare(sums, replace(other, metric=sums.metric))
                by = f"{pair.difference.value:+.2f} {_range(pair.difference)}"
                notes.append(f"- {key} {what}: {pair.second:.2f}; the difference is {by}")
    return notes


def _conditions(record: RunRecord) -> list[str]:
    spec, task = record.resolved, record.resolved["task"]
    return [
        *([f"- {task}: written by {spec['inputs'][LLM]}"] if LLM in spec["inputs"] else []),
        *(f"- {key}: {why}" for key, why in record.unavailable.items()),
        *([f"- {task}: {record.reason}"] if record.reason else []),
        f"- {task}: {spec['mode']}, {spec['recipe']['pictures']} pictures, seed {record.seed}, record {record.run_id}",
    ]


def _range(found: Spread) -> str:
    return f"[{found.low:.2f}, {found.high:.2f}]"
