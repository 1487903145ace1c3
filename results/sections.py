"""The parts of a report that are computed from run records: orderings, cost, recipe, differences, provenance."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from results.compare import ABSENT, differences, settings
from results.frame import mean_sd
from results.markdown import DASH, escape, plain_value, spread
from results.markdown import table as markdown_table
from results.paper import value as paper_value
from results.ranking import Ranked, Verdict
from results.ranking import orderings as rank
from results.schema import COVERAGE_COUNTS, Cell, Column, Publication, Row, RunRecord, Slot, Status, Table

PRETRAIN = "pretrain"

# Metrics of a pre-training record that are printed, with their headings.
DIAGNOSTICS = {
    "probe_feature_std_ratio": "std ratio of features",
    "probe_mean_cosine": "mean cosine",
    "probe_rankme": "effective rank",
    "probe_con_acc": "contrastive accuracy",
    "probe_text_nll": "text loss",
    "probe_visual_use_shuffled": "visual use, other images",
    "probe_visual_use_zeroed": "visual use, black images",
}


def orderings(table: Table, publication: Publication, cells: Mapping[tuple[str, str], Cell]) -> list[str]:
    """Which of the paper's orderings of two methods come out, per column, and every one that does not."""
    rows = [row for row in table.rows_at(publication.scale) if not row.control]
    lines, close, against = [], [], []
    one_seed = False
    for column in table.columns:
        title = column.title(publication.scale)
        ranked = [
            Ranked(row.label, cells[row.label, column.key].values, paper_value(table.paper_csv, row.paper, column.key))
            for row in rows
        ]
        verdicts = rank(ranked, column.higher_is_better)
        within = [each for each in verdicts if each.within_noise]
        turned = [each for each in verdicts if not each.within_noise and each.gap < 0]
        one_seed |= any(each.noise is None for each in verdicts)
        holds = len(verdicts) - len(within) - len(turned)
        lines.append([title, *map(str, (len(verdicts), holds, len(within), len(turned)))])
        close += [f"- {title}: {'; '.join(map(_pair, within))}"] if within else []
        against += [f"- {title}: {'; '.join(map(_pair, turned))}"] if turned else []
    header = ["column", "pairs the paper ranks", "come out", "within s.d.", "reversed"]
    about = (
        "Every two methods that the paper ranks in a column and that were measured here. *Within s.d.*: the means "
        "differ by no more than √(s₁² + s₂²), s the s.d. over seeds of either row."
    )
    if one_seed:
        about += " A row with one seed has no s.d.; its pairs are counted by the sign of the difference alone."
    gaps = "the paper's order first, with the gap in the paper and the gap here:"
    lists = (["", f"Reversed, {gaps}", "", *against] if against else []) + (
        ["", f"Within s.d., {gaps}", "", *close] if close else []
    )
    return ["## Orderings of the paper", "", about, "", *markdown_table(header, lines), *lists]


def cost(table: Table, publication: Publication) -> list[str]:
    """Images, language-model passes, training FLOPs and data coverage of every row."""
    records = {row.label: _done(publication, row.label, PRETRAIN) for row in table.rows_at(publication.scale)}
    reference = _mean([record.train_flops for record in records.get(table.cost_reference, [])])
    lines = []
    for row, runs in records.items():
        if not runs:
            lines.append([escape(row), *[DASH] * 8])
            continue
        flops = _mean([run.train_flops for run in runs])
        used, images, skipped = (spread([run.coverage.get(key, 0) for run in runs]) for key in COVERAGE_COUNTS)
        causes = sorted({cause for run in runs for cause in run.coverage} - set(COVERAGE_COUNTS))
        why = [f"{escape(cause)} {spread([run.coverage.get(cause, 0) for run in runs])}" for cause in causes]
        lines.append(
            [escape(row), spread([run.images_seen for run in runs]), spread([run.lm_passes for run in runs])]
            + [f"{flops:.2e}" if flops else "0", f"{flops / reference:.2f}" if reference else DASH]
            + [used, images, skipped, ", ".join(why) or "none"]
        )
    header = ["method", "images seen", "LM passes", "training FLOPs", f"× {escape(table.cost_reference)}"]
    header += ["documents read", "images read", "documents skipped", "causes met"]
    about = "Pre-training of one seed; FLOPs are counted over forward and backward (multiply-add 2), never timed."
    return ["## Cost and data coverage", "", about, "", *markdown_table(header, lines)]


def pretraining(table: Table, publication: Publication) -> list[str]:
    """How far the encoders collapsed, and what their language models gain from images, mean over seeds."""
    found = {row.label: _done(publication, row.label, PRETRAIN) for row in table.rows_at(publication.scale)}
    keys = [key for key in DIAGNOSTICS if any(key in run.metrics for runs in found.values() for run in runs)]
    lines = []
    for row, runs in found.items():
        values = [[run.metrics[key] for run in runs if key in run.metrics] for key in keys]
        if any(values):
            lines.append([escape(row), *(f"{_mean(each):.3g}" if each else DASH for each in values)])
    about = (
        "On batches that no step trains on, mean over seeds. A collapsed encoder has a std ratio near 0, a mean "
        "cosine near 1 and a small rank; visual use is the text loss with other or black images minus that with the "
        "true ones. "
        "A dash: the objective has no such quantity."
    )
    header = ["method", *(DIAGNOSTICS[key] for key in keys)]
    return ["## At the end of pre-training", "", about, "", *markdown_table(header, lines)] if lines else []


def changes(publication: Publication) -> dict[tuple[str, str, str, str], list[str]]:
    """Settings in which the runs differ from the paper's recipe.

    (stage, setting, the paper's value, value here) -> labels of the rows, both values as printed.
    """
    found: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)
    for slot, record in _first_runs(publication):
        reference = publication.references.get(slot.row, {}).get(slot.stage)
        if reference is None:
            continue
        for key, pair in differences(reference, record.resolved).items():
            paper, here = (DASH if value is ABSENT else plain_value(value) for value in pair)
            found[slot.stage, key, paper, here].append(slot.row)
    return dict(found)


def recipe(publication: Publication) -> list[str]:
    """What the scale changes in the paper's recipe, computed from the specs of the runs."""
    rows_of: dict[str, set[str]] = defaultdict(set)
    for slot, record in _first_runs(publication):
        if record.spec.get("objective", ABSENT) is not None:  # an initial encoder has hardly any settings
            rows_of[slot.stage].add(slot.row)
    lines = []
    for (stage, key, paper, here), rows in changes(publication).items():
        who = "all" if set(rows) >= rows_of[stage] else ", ".join(map(escape, rows))
        lines.append([escape(stage), escape(key), paper, here, who])
    title = f"## What the {escape(publication.scale)} recipe changes"
    if not lines:
        return [title, "", "Nothing: every setting of every run is that of the paper's recipe."] if rows_of else []
    about = (
        "Settings of the runs above that differ from this suite's recipe for the paper (stated values as stated, the "
        "rest as documented in `experiments/configuration/recipe.py`)."
    )
    lines.sort(key=lambda line: (line[0] != PRETRAIN, line))
    return [title, "", about, "", *markdown_table(["stage", "setting", "paper", "here", "rows"], lines, left=5)]


def row_differences(table: Table, publication: Publication) -> list[str]:
    """Every setting of pre-training in which two rows of the table differ."""
    rows = {row.label: row for row in table.rows_at(publication.scale)}
    specs = {
        slot.row: record.resolved
        for slot, record in _first_runs(publication)
        if slot.stage == PRETRAIN and slot.row in rows and record.spec.get("objective") is not None
    }
    leaves = {row: settings(spec) for row, spec in specs.items()}
    lines = []
    for key in sorted({key for each in leaves.values() for key in each}):
        groups: dict[str, list[str]] = defaultdict(list)
        for row, each in leaves.items():
            if not key.startswith("objective.") or key in leaves_shared(leaves, rows, row):
                groups[plain_value(each[key]) if key in each else DASH].append(row)
        if len(groups) > 1:
            lines += [[escape(key), value, ", ".join(map(escape, labels))] for value, labels in groups.items()]
    about = (
        "Pre-training settings that are not equal in all rows with a trained encoder. Every other setting is equal, "
        "both backbones and the seeds included; settings that only one objective has are left out."
    )
    if not lines:
        return []
    return [
        "## Differences between the rows",
        "",
        about,
        "",
        *markdown_table(["setting", "value", "rows"], lines, left=3),
    ]


def leaves_shared(leaves: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Row], row: str) -> set[str]:
    """Settings of a row whose objective another row of the table has too."""
    twins = [other for other in leaves if other != row and rows[other].objective == rows[row].objective]
    return set(leaves[row]).union(*(leaves[twin] for twin in twins)) if twins else set()


def legend(table: Table, publication: Publication, cells: Mapping[tuple[str, str], Cell]) -> list[str]:
    """What each column measures here, what it stands for in the paper, and how finely its test set can tell."""
    lines = []
    for column in (*table.columns, *table.more_columns):
        analogue = column.analogue.get(publication.scale)
        items = {
            record.items[column.dataset]
            for slot, record in _finished(publication)
            if slot.stage == column.task and column.dataset in record.items
        }
        means = [mean_sd(cell.values)[0] for (_, key), cell in cells.items() if key == column.key and cell.values]
        lines.append(
            [
                column.title(publication.scale),
                analogue.meaning if analogue else column.meaning,
                DASH if column in table.more_columns else column.label if analogue else "itself",
                spread(sorted(items)),
                _half_width(means, min(items)) if column.share_of_items and means and items else DASH,
            ]
        )
    header = ["column", "measures", "stands for in the paper", "test items", "95 % half-width"]
    about = (
        "*95 % half-width*: how far the finite test set alone may move a value of this column, at most (binomial, at "
        "the measured value nearest 50, images as items). The s.d. over seeds, which share the test set, leaves it out."
    )
    return ["## Columns", "", about, "", *markdown_table(header, lines, left=3)]


def _half_width(percentages: Sequence[float], items: int) -> str:
    nearest = min(percentages, key=lambda value: abs(value - 50)) / 100
    return f"± {196 * math.sqrt(max(0.0, nearest * (1 - nearest)) / items):.1f}"


def chance(publication: Publication, column: Column) -> str:
    """The value of an encoder that knows nothing, as the task computed it."""
    values = [
        record.chance[column.metric_key]
        for slot, record in _finished(publication)
        if slot.stage == column.task and column.metric_key in record.chance
    ]
    return spread(values, "{:.1f}")


def provenance(publication: Publication) -> list[str]:
    """Revisions, data, seeds, versions and machines of all runs of the table."""
    runs = {slot.run_id: (slot, record) for slot, record in _finished(publication)}.values()
    records = [record for _, record in runs]
    if not records:
        return ["## Provenance", "", "No run of this table is finished."]
    commits = sorted({f"{r.commit[:12]}{' (with uncommitted changes)' if r.dirty else ''}" for r in records})
    protocols = sorted({f"{slot.stage} {r.spec['protocol']}" for slot, r in runs if "protocol" in r.spec})
    digests = sorted({f"{slot.stage} {r.data_digest}" for slot, r in runs if r.data_digest})
    seeds = sorted({r.seed for r in records})
    lines = {
        "commit": commits,
        "data digests": digests,
        "seeds": [str(seed) for seed in seeds],
        "protocol versions": protocols,
    }
    for key in sorted({key for r in records for key in r.env}):
        lines[key] = sorted({r.env[key] for r in records if key in r.env})
    expected = {slot.run_id for slot in publication.slots}
    count = f"{len(records)} finished runs of {len(expected)}; each run is a line of "
    count += f"`results/records/{publication.name}.jsonl`."
    about = ["## Provenance", "", count, ""]
    return [*about, *(f"- {escape(key)}: {', '.join(map(escape, values))}" for key, values in lines.items() if values)]


def _pair(verdict: Verdict) -> str:
    names = f"{escape(verdict.better)} over {escape(verdict.worse)}"
    return f"{names} ({verdict.paper_gap:+.1f}, {verdict.gap:+.1f})"


def _finished(publication: Publication) -> Iterator[tuple[Slot, RunRecord]]:
    for slot in publication.slots:
        record = publication.records.get(slot.run_id)
        if record is not None and record.status is Status.DONE:
            yield slot, record


def _done(publication: Publication, row: str, stage: str) -> list[RunRecord]:
    return [record for slot, record in _finished(publication) if slot.row == row and slot.stage == stage]


def _first_runs(publication: Publication) -> list[tuple[Slot, RunRecord]]:
    """The finished run with the smallest seed of every row and stage, in order of the slots."""
    first: dict[tuple[str, str], tuple[Slot, RunRecord]] = {}
    for slot, record in sorted(_finished(publication), key=lambda each: each[0].seed):
        first.setdefault((slot.row, slot.stage), (slot, record))
    order = {(slot.row, slot.stage): number for number, slot in reversed(list(enumerate(publication.slots)))}
    return [first[key] for key in sorted(first, key=lambda key: order[key])]


def _mean(values: Sequence[float]) -> float:
    return mean_sd(tuple(values))[0] if values else 0.0
