"""How long a sweep will take, said before it starts: from the seconds of runs like its own that are finished."""

from collections.abc import Mapping, Sequence

from experiments.launching.board import duration
from experiments.planning.specs import PlannedRun
from experiments.planning.timing import Timing, device
from experiments.running.hardware import FP32_OVER_BF16


def forecast(missing: Sequence[PlannedRun], workers: int, env: Mapping[str, str], timing: Timing) -> str:
    """One sentence: what the machine multiplies in, and how long the missing runs will take on so many workers.

    env: of this machine, as its records will have it. Runs take what runs like them took on this device, or on another
    one times the ratio of both (experiments/planning/timing.py). A device without any finished run is taken for the
    best known one, or for slower by a measured factor where that one has bf16 and this one has not; this is said.
    """
    here, said = device(env), f"this machine multiplies in {env['multiplies_in']}"
    known = here in timing.devices
    like = here if known else next(iter(timing.devices), here)
    expected = [found for run in missing if (found := timing.expected(run, like)) is not None]
    if len(expected) < len(missing) / 2:
        return f"{said}; how long it takes is not known beforehand, as too few such runs are finished"
    seconds = [each.seconds for each in expected]
    total = sum(seconds) * len(missing) / len(expected)
    factor, why = 1.0, ""
    if not known:
        why = "; nothing was ever run on this machine, which may be faster or slower"
        if env["multiplies_in"].startswith("fp32") and ", bf16" in like:
            factor, why = FP32_OVER_BF16, f" × {FP32_OVER_BF16:g} for fp32{why}"
    for other in sorted({each.measured_on for each in expected} - {like}):
        why = f", in part of {other} × {timing.ratio(like, other):.2f}{why}"
    about = duration(factor * max(total / workers, *seconds))
    return f"{said}; about {about} expected (finished runs: {duration(total)} on {like}{why})"
