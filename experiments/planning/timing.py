"""How long runs take, from finished runs: medians over seeds, and a ratio between devices.

On a processor the seconds of a run are those that its process, of one thread, was at work, where its record has them:
so long it takes where nothing else runs. Elsewhere they are the clock's, of which a busy machine makes some several
times too long, never too short. Of the runs that are alike (seeds, for the most part) the median counts, of two the
shorter. Pre-training counts by image. What was never run on a device takes as long as on another one, times the ratio
of the two over everything that both have run. How busy a machine will be is nothing that records say.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median, median_low
from typing import Any

from experiments.configuration.corpora import get_corpus
from experiments.planning.specs import PlannedRun, PretrainSpec
from results.schema import Kind, RunRecord

Likeness = tuple[object, ...]


def likenesses(spec: Mapping[str, Any]) -> tuple[Likeness, Likeness]:
    """What a run's cost for each image depends on, as far as a spec says it: exactly, and on any corpus of its kind.

    Both hold the sizes of the model and of rows, and how long a transfer is trained on what.
    """
    objective, data, recipe = spec.get("objective"), spec.get("data") or {}, spec.get("recipe") or {}
    corpus = data.get("name")
    task = spec.get("task", spec.get("stage"))
    common = (
        *(spec["kind"], objective and objective["name"], task, spec.get("mode")),
        (spec.get("model") or {}).get("name"),
        *(data.get(key) for key in ("seq_len", "text_len")),
        *(recipe.get(key) for key in ("epochs", "steps", "pictures")),
    )
    return (*common, corpus), (*common, corpus and get_corpus(corpus).pairs)


def device(env: Mapping[str, str]) -> str:
    """What a run ran on, in words: how many of what, the accelerator or the processor, and what it multiplies in."""
    name = env.get("cpu", "an unknown processor") if env.get("device", "cpu") == "cpu" else env["device"]
    several = f"{env['ranks']} × {name}" if "ranks" in env else name
    return f"{several}, {env['multiplies_in']}" if "multiplies_in" in env else several


@dataclass(frozen=True)
class Expected:
    """Seconds of a run on a device, and the device they were measured on, which may be another one."""

    seconds: float
    measured_on: str


class Timing:
    """Seconds of finished runs by device."""

    def __init__(self, records: Iterable[RunRecord]) -> None:
        clock: dict[str, dict[Likeness, list[float]]] = defaultdict(lambda: defaultdict(list))
        busy: dict[str, dict[Likeness, list[float]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            images = record.images_seen if record.kind is Kind.PRETRAIN else 0
            where = device(record.env)
            single = record.env.get("device", "cpu") == "cpu" and record.env.get("threads") == "1"
            for like in likenesses(record.resolved):
                clock[where][like].append(record.seconds / (images or 1))
                if record.busy_seconds is not None and single:
                    busy[where][like].append(record.busy_seconds / (images or 1))
        found = {where: {**held, **busy[where]} for where, held in clock.items()}
        self._held = {name: {key: median_low(each) for key, each in held.items()} for name, held in found.items()}
        self._sizes = {name: sum(map(len, held.values())) for name, held in clock.items()}

    @property
    def devices(self) -> list[str]:
        """Devices by number of finished runs, most first."""
        return sorted(self._held, key=lambda name: (-self._sizes[name], name))

    def ratio(self, here: str, there: str) -> float | None:
        """How many times as long a run takes here as there: the median over what both have run; None where nothing."""
        ours, theirs = self._held.get(here, {}), self._held.get(there, {})
        both = [ours[key] / theirs[key] for key in ours.keys() & theirs.keys() if ours[key] and theirs[key]]
        return median(both) if both else None

    def expected(self, run: PlannedRun, here: str) -> Expected | None:
        """What a run will take on a device; None where nothing like it was finished there or on one to compare with."""
        images = run.spec.images if isinstance(run.spec, PretrainSpec) else 0
        for key in likenesses(run.plain):
            for name in (here, *self.devices):
                ratio = 1.0 if name == here else self.ratio(here, name)
                if key in self._held.get(name, {}) and ratio is not None:
                    return Expected(self._held[name][key] * (images or 1) * ratio, name)
        return None
