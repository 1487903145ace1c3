"""What the report shows, as plain data: text stays text here, and only the templates make markup of it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from results.alarms import DIAGNOSTICS
from results.details.curves import Curves
from results.details.items import Scores
from results.details.samples import Samples
from results.frame import Filled, mean_sd
from results.html.charts import Chart
from results.html.figures import Figure, budget_figure, compute_charts, curve_charts
from results.html.grid import Cell, Grid
from results.html.intervals import intervals
from results.html.samples import Gallery, galleries
from results.page.markdown import DASH
from results.page.measured import leads, paper_lines
from results.page.pretraining import alarms, encoders
from results.page.settings import given, warning_of
from results.page.transfers import TITLES, by_mode, protocols
from results.record import as_json
from results.schema import Column, Row, RunRecord
from results.scorecard import DECISIVE, interval, next_step, p_value
from results.statistics.hypotheses import Judged, Verdict
from results.statistics.t_tests import CONFIDENCE, t_quantile


@dataclass(frozen=True)
class Claimed:
    """A line of the scorecard with its parts."""

    name: str
    says: str
    section: str
    verdict: str
    decisive: bool
    held: str
    weakest: str
    effect: str
    seeds: str
    p: str
    next: str
    why: str
    parts: Grid | None


@dataclass(frozen=True)
class Section:
    """Everything about one table."""

    name: str
    title: str
    warning: str
    caption: str
    protocols: tuple[str, ...]  # how encoders were transferred
    grids: tuple[Grid, ...]
    figures: tuple[Figure, ...]
    charts: tuple[Chart, ...]
    galleries: tuple[Gallery, ...]
    runs: tuple[tuple[str, str], ...]  # run_id and its record in JSON


def claimed(judged: Sequence[Judged]) -> list[Claimed]:
    """The scorecard."""
    return [
        Claimed(
            name=each.claim.name,
            says=each.claim.says,
            section=each.claim.section,
            verdict=each.verdict.value,
            decisive=each.verdict in DECISIVE,
            held=f"{each.held} of {len(each.tests)}" if each.tests else DASH,
            weakest=each.claim.parts[each.weakest].text if each.tests else DASH,
            effect=interval(each.tests[each.weakest]) if each.tests else DASH,
            seeds=", ".join(map(str, each.seeds)) or DASH,
            p=DASH if each.adjusted is None else p_value(each.adjusted),
            next=next_step(each),
            why=each.claim.why,
            parts=_parts(each),
        )
        for each in judged
    ]


def _parts(each: Judged) -> Grid | None:
    if not each.tests:
        return None
    rows = [
        (Cell(part.text), Cell(interval(test), test.mean), Cell(f"{test.sd:.3g}", test.sd), Cell(str(test.n), test.n))
        for part, test in zip(each.claim.parts, each.tests, strict=True)
    ]
    header = ("part, above 0 where it holds", "mean and 95 % interval", "s.d.", "seeds")
    return Grid(f"Parts. Margins: {each.claim.why}.", header, tuple(rows))


def counts(judged: Sequence[Judged]) -> list[tuple[str, int]]:
    """How many claims have each verdict."""
    return [(v.value, n) for v in Verdict if (n := sum(each.verdict is v for each in judged))]


def section(filled: Filled, curves: Curves, scores: Mapping[str, Scores], samples: Samples) -> Section:
    """A table: measured numbers, the paper's, cost, charts, samples and the records of its runs.

    scores: of single items, by run.
    """
    publication = filled.publication
    modes = by_mode(filled)  # nothing is compared across frozen and full transfer
    titles = {mode: f"{TITLES[mode]}. " if len(modes) > 1 else "" for mode in modes}
    sure = intervals(filled, scores)
    grids = [
        *(measured(part, titles[mode]) for mode, part in modes.items()),
        *([] if sure is None else [sure]),
        *_paper(filled),
        cost(filled),
    ]
    charts = [*compute_charts(filled), *curve_charts(filled, curves)]
    runs = [(run_id, canonical(record)) for run_id, record in sorted(publication.records.items())]
    settings = given(publication)
    return Section(
        name="-".join([publication.name, *re.findall(r"[\w.]+", settings)]),
        title=f"{filled.table.title} ({settings})" if settings else filled.table.title,
        warning=warning_of(filled),
        caption=filled.table.caption,
        protocols=tuple(f"{task}: {said}" for task, said in protocols(filled)),
        grids=tuple(grids),
        figures=() if (budget := budget_figure(filled)) is None else (budget,),
        charts=tuple(charts),
        galleries=tuple(galleries(filled, samples)),
        runs=tuple(runs),
    )


def each_run_once(shown: Sequence[Section]) -> list[Section]:
    """The sections, a run that several tables share only where it stands first: links lead to one place."""
    seen: set[str] = set()
    found = []
    for each in shown:
        found.append(replace(each, runs=tuple(run for run in each.runs if run[0] not in seen)))
        seen |= {run_id for run_id, _ in each.runs}
    return found


def measured(filled: Filled, title: str = "") -> Grid:
    """The measured table: mean with its s.d. over seeds, links to the runs, why a cell is empty."""
    header = ("method", "task", "pre-training data", *(column.title(filled.scale) for column in filled.columns))
    rows = []
    for row in (*filled.methods, *(row for row in filled.rows if row.control)):
        label = f"{row.label} (control)" if row.control else row.label
        collapsed = alarms(filled, row)
        head = Cell(label, note="; ".join(collapsed))
        data = DASH if row.objective is None else filled.publication.data_label(row)
        rows.append((head, Cell(row.task), Cell(data), *(_cell(filled, row, column) for column in filled.columns)))
    widest = t_quantile((1 + CONFIDENCE) / 2, 2) / 3**0.5
    about = (
        f"{title}Measured here. Mean ± standard deviation over seeds; the 95 % interval of a mean over three seeds is "
        f"{widest:.1f} times as wide to either side. Strong: ahead of every other method by more than the noise. The "
        "small numbers are seeds and lead to the records."
    )
    return Grid(about, header, tuple(rows))


def _cell(filled: Filled, row: Row, column: Column) -> Cell:
    cell = filled.cells[row.label, column.key]
    note = "; ".join(dict.fromkeys(cell.missing))
    if not cell.values:
        return Cell(DASH, note=note)
    mean, sd = mean_sd(cell.values)
    found = [seed for seed in filled.seeds(row, column) if seed.value is not None]
    runs = tuple((str(seed.slot.seed), seed.slot.run_id) for seed in found)
    text = f"{mean:.1f}" if sd is None else f"{mean:.1f} ± {sd:.1f}"
    return Cell(text, mean, runs, note, leads(filled, row, column))


def _paper(filled: Filled) -> list[Grid]:
    lines = [
        (
            Cell(each.row or DASH),
            Cell(each.line),
            *(Cell(text, number) for text, number in zip(each.shown, each.numbers, strict=True)),
        )
        for each in paper_lines(filled)
    ]
    header = ("row above", "line in the paper", *(f"paper: {column.label}" for column in filled.table.columns))
    about = "The paper's numbers: single runs, no error bars. Nothing of this was measured here."
    return [Grid(about, header, tuple(lines))] if lines else []


def cost(filled: Filled) -> Grid:
    """What each row's pre-training cost, read and skipped, and the state of its encoder in the end."""
    header = (
        "method",
        "images",
        "LM passes",
        "LM tokens",
        "training FLOPs",
        "process seconds",
        "skipped",
        *DIAGNOSTICS.values(),
        "alarms",
    )
    rows = []
    for row in filled.rows:
        runs = encoders(filled, row)
        if not runs:
            continue
        tokens = [run.lm_tokens for run in runs if run.lm_tokens is not None]
        rows.append(
            (
                Cell(row.label),
                _mean([run.images_seen for run in runs], "{:,.0f}"),
                _mean([run.lm_passes for run in runs], "{:.0f}"),
                _mean(tokens, "{:.3g}"),
                _mean([run.train_flops for run in runs], "{:.3g}"),
                _mean([run.process_seconds for run in runs], "{:,.0f}"),
                _mean([run.coverage["skipped"] for run in runs if "skipped" in run.coverage], "{:,.0f}"),
                *(_mean([r.metrics[key] for r in runs if key in r.metrics], "{:.3g}") for key in DIAGNOSTICS),
                Cell("; ".join(alarms(filled, row)) or "none"),
            )
        )
    about = (
        "Pre-training, mean over seeds: cost, documents skipped, and the encoder in the end on documents no step "
        "trains on."
    )
    return Grid(about, header, tuple(rows))


def _mean(values: Sequence[float], form: str) -> Cell:
    return Cell(form.format(fmean(values)), fmean(values)) if values else Cell(DASH)


def canonical(record: RunRecord) -> str:
    """A record as indented JSON, its whole configuration in it."""
    held = {**as_json(record), "spec": record.resolved, "defaults": {}}
    return json.dumps(held, indent=1, ensure_ascii=False)


def environments(records: Sequence[RunRecord]) -> list[tuple[str, str]]:
    """What the runs were made with: each fact with all of its values."""
    keys = sorted({key for record in records for key in record.env})
    facts = [(key, ", ".join(sorted({r.env[key] for r in records if key in r.env}))) for key in keys]
    commits = ", ".join(sorted({f"{r.commit[:12]}{' (dirty)' if r.dirty else ''}" for r in records}))
    digests = ", ".join(sorted({r.data_digest for r in records if r.data_digest}))
    return [("commits", commits), ("data digests", digests), *facts]
