"""Where every number of a page comes from: files, commits by stage and seed, data, versions, machines."""

from collections import defaultdict
from collections.abc import Iterable

from results.frame import Filled
from results.page.markdown import escape
from results.page.settings import finished
from results.page.words import listed
from results.schema import RunRecord, Slot

Runs = list[tuple[Slot, RunRecord]]


def sources(filled: Filled) -> list[str]:
    """The last section of a page."""
    title = "## Where the numbers come from"
    runs: Runs = list({slot.run_id: (slot, record) for slot, record in finished(filled)}.values())
    if not runs:
        return [title, "", "No run of this table is finished."]
    name = filled.publication.name
    expected = {slot.run_id for slot in filled.publication.slots}
    about = (
        f"{len(runs)} finished runs of {len(expected)}. Beside this page: `{name}.csv` with one line a cell and "
        f"`{name}.long.csv` with one a cell and seed, commit included; in `../records/`, `{name}.jsonl` with one a run "
        f"and `{name}.items.csv.gz` with the scores of single test items."
    )
    records = [record for _, record in runs]
    lines = [f"- commit {commit}: {_which(filled, some)}" for commit, some in _by_commit(runs).items()]
    facts = {
        "data digests": (f"{slot.stage} {record.data_digest}" for slot, record in runs if record.data_digest),
        "protocol versions": (f"{slot.stage} {r.spec['protocol']}" for slot, r in runs if "protocol" in r.spec),
    }
    said = "; ".join(f"{fact}: {found}" for fact, values in facts.items() if (found := _distinct(values)))
    lines += [f"- {said}"] if said else []
    keys = sorted({key for record in records for key in record.env})
    environment = [f"{escape(key)} {_distinct(r.env[key] for r in records if key in r.env)}" for key in keys]
    return [title, "", about, "", *lines, f"- environment: {'; '.join(environment)}"]


def _by_commit(runs: Runs) -> dict[str, Runs]:
    found: dict[str, Runs] = defaultdict(list)
    for slot, record in runs:
        changed = " (with uncommitted changes)" if record.dirty else ""
        found[f"{escape(record.commit[:12])}{changed}"].append((slot, record))
    return dict(sorted(found.items()))


def _which(filled: Filled, runs: Runs) -> str:
    """Which runs these are: stages with their seeds, and their rows where not all rows of the stage are among them."""
    everyone: dict[str, set[str]] = defaultdict(set)
    for slot, _ in finished(filled):
        everyone[slot.stage].add(slot.row)
    seeds: dict[tuple[str, str], set[int]] = defaultdict(set)  # by stage and row
    for slot, _ in runs:
        seeds[slot.stage, slot.row].add(slot.seed)
    rows: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)  # by stage and seeds
    for (stage, row), found in seeds.items():
        rows[stage, tuple(sorted(found))].append(row)
    stages: dict[tuple[tuple[int, ...], str], list[str]] = defaultdict(list)  # by seeds and rows
    for (stage, numbers), labels in rows.items():
        others = sorted(everyone[stage] - set(labels))
        but = f" of all rows but {', '.join(map(escape, others))}" if others else ""
        who = but if len(others) < len(labels) else f" of {', '.join(map(escape, labels))}"
        stages[numbers, who].append(stage)
    return "; ".join(
        f"{listed(map(escape, names))}{who}, seed{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}"
        for (numbers, who), names in stages.items()
    )


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(map(escape, sorted(set(values))))
