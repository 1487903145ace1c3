"""How long a sweep will take, said before it starts: from the seconds of the same runs in the committed records."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from experiments.launching.board import duration
from experiments.planning.plan import Plan
from experiments.planning.price import committed
from experiments.planning.specs import PlannedRun, PretrainSpec
from experiments.running.hardware import FP32_OVER_BF16
from results import publish
from results.schema import RunRecord


def forecast(
    plan: Plan,
    missing: Sequence[PlannedRun],
    workers: int,
    multiplies_in: str,
    records: Path = publish.ROOT / "records",
) -> str:
    """One sentence: what the machine multiplies in, and how long the missing runs will take on so many workers.

    A run is as long as its counterparts in committed tables (experiments/planning/price.py), pre-training in
    proportion to its images, and longer by a measured factor where those ran in bf16 and this machine has none.
    """
    said = f"this machine multiplies in {multiplies_in}"
    known = committed(plan.scale.name, records)
    found = [(run, counterparts) for run in missing if (counterparts := known.of(run))]
    if len(found) < len(missing) / 2:
        return f"{said}; how long it takes is not known beforehand, as the committed records hold too few such runs"
    seconds = [mean(_seconds(run, record) for record in counterparts) for run, counterparts in found]
    total = sum(seconds) * len(missing) / len(found)
    machines = sorted({record.env.get("multiplies_in", "an unknown format") for _, each in found for record in each})
    factor, slower = 1.0, ""
    if multiplies_in.startswith("fp32") and any(each.startswith("bf16") for each in machines):
        factor, slower = FP32_OVER_BF16, f" × {FP32_OVER_BF16:g} for fp32"
    expected = duration(factor * max(total / workers, *seconds))
    return f"{said}; about {expected} expected (committed runs: {duration(total)} on {', '.join(machines)}{slower})"


def _seconds(run: PlannedRun, record: RunRecord) -> float:
    images = run.spec.images if isinstance(run.spec, PretrainSpec) else 0
    return record.seconds * (images / record.images_seen if images and record.images_seen else 1.0)
