"""A plan as text: what there is to do."""

from collections import Counter
from collections.abc import Iterable, Mapping

from experiments.planning.plan import Plan
from experiments.planning.specs import PlannedRun, PretrainSpec, stage_of
from results.schema import Kind, RunRecord, Status


def listing(plan: Plan, records: Iterable[RunRecord]) -> str:
    """The plan as text: what there is to do for each row and stage, by seed, and a count. `records`: runs there are."""
    done = {record.run_id: record.status for record in records}
    groups: dict[tuple[Kind, str, tuple[str, ...]], list[PlannedRun]] = {}
    for run in plan.runs:
        stage = stage_of(run.spec)
        groups.setdefault((run.kind, stage, run.used_by), []).append(run)
    lines: list[tuple[str, ...]] = [("stage", "images", "reuse", "run", "cannot", "used by")]
    for (_, stage, used_by), runs in groups.items():
        images = sum(run.spec.images for run in runs if isinstance(run.spec, PretrainSpec))
        seeds = {state: [str(run.spec.seed) for run in runs if _state(run, done) == state] for state in _STATES}
        reasons = "; ".join(dict.fromkeys(run.problem for run in runs if _state(run, done) == "cannot"))
        first, *others = used_by
        users = (f"{first} and {len(others)} more" if others else first) + (f" ({reasons})" if reasons else "")
        marks = [" ".join(f"s{seed}" for seed in seeds[state]) for state in _STATES]
        lines.append((stage, f"{images:,}" if images else "", *marks, users))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]) - 1)]
    text = ["  ".join([*map(str.ljust, line[:-1], widths), line[-1]]) for line in lines]
    counts = Counter(_state(run, done) for run in plan.runs)
    total = ", ".join(f"{counts[state]} {words}" for state, words in _STATES.items() if counts[state])
    return "\n".join([*text, "", f"{len(plan.runs)} runs: {total}"])


_STATES = {"reuse": "done and reused", "run": "to run", "cannot": "that cannot run"}


def _state(run: PlannedRun, done: Mapping[str, Status]) -> str:
    if done.get(run.run_id) is Status.DONE:
        return "reuse"
    return "cannot" if run.problem else "run"
