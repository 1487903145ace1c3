"""What the suite writes down and what it prints: run records, table declarations, publications. Standard library only.

A `spec` is the JSON form of a resolved run (experiments/planning/specs.py). The report reads these keys of it, all
optional: `objective` ({"name", "config"} or null), `data` ({"name", ...}), `task`, `mode`, `protocol`, `seed`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Literal

from results.canonical import merge

SCHEMA_VERSION = 3  # 2: RunRecord.defaults; 3: RunRecord.lm_tokens
EMBEDDED = "tiny"  # the scale of the embedded corpus, at which tables carry no suffix

# Keys of RunRecord.coverage that are not causes: what was used, and how many documents could not be.
COVERAGE_COUNTS = ("documents", "images", "skipped", "not_chosen")


# How a row is transferred: heads on its frozen encoder, encoder and heads in full, or blind. The captioning head of a
# blind row learns the same captions from the same language model and never gets an image (the language-only baseline of
# Goyal et al. 2017): what it scores is what the captions themselves give away.
Mode = Literal["frozen", "full", "blind"]
FULL: Mode = "full"
BLIND: Mode = "blind"
HELD_OUT = "held_out"  # what scores of held-out training images are called, where others bear their test set's name


class Kind(StrEnum):
    """What a run did."""

    PRETRAIN = "pretrain"
    ENCODER = "encoder"  # takes in an encoder that was trained elsewhere
    TEXT_LM = "text_lm"  # the language model every captioning transfer starts from
    TRANSFER = "transfer"
    DIALOGUE = "dialogue"  # one of the two stages of multimodal dialogue


class Status(StrEnum):
    """How a run, or the cell that waits for it, stands."""

    DONE = "done"
    FAILED = "failed"
    BLOCKED = "blocked"  # its parent failed or could not run
    MISSING = "missing"  # not run yet
    UNAVAILABLE = "unavailable"  # cannot be run here, with the reason


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One finished run: everything a table cell must be traceable to."""

    run_id: str
    kind: Kind
    status: Status
    spec: Mapping[str, Any]  # the part of the resolved specification whose hash ends run_id
    parent: str | None  # run_id of the encoder's pre-training; None for a pre-training
    metrics: Mapping[
        str, float
    ]  # transfer: "<dataset>/<metric>", see `metric_key`; pre-training: its last watch values
    defaults: Mapping[str, Any] = field(default_factory=dict)  # the rest of the specification, by dotted key
    chance: Mapping[str, float] = field(default_factory=dict)  # metric key -> value of an encoder that knows nothing
    items: Mapping[str, int] = field(default_factory=dict)  # dataset -> test items scored
    unavailable: Mapping[str, str] = field(default_factory=dict)  # metric key -> why it could not be computed
    scale: str
    seed: int
    images_seen: int
    lm_passes: int  # language-model passes per sample (footnote of the paper's Tables 1 and 2)
    train_flops: float
    lm_tokens: int | None = (
        None  # positions that passed through the language model, padding included; None: not counted
    )
    commit: str
    dirty: bool
    env: Mapping[str, str]
    data_digest: str
    coverage: Mapping[str, int]  # COVERAGE_COUNTS and one key for each cause met; of a mixture also "part:key" of each
    seconds: float
    # Of processors, by the process that did the run in one go and those it started; None: not one, or not in one go.
    busy_seconds: float | None = None
    finished_at: str  # ISO 8601, UTC
    reason: str = ""  # why, when status is not DONE
    fitted_by: str = ""  # transfer: the run whose head was scored here; "" where this run trained its own
    schema_version: int = SCHEMA_VERSION

    @property
    def resolved(self) -> dict[str, Any]:
        """The whole specification the run was made with, every setting in it."""
        return merge(self.spec, self.defaults)

    @property
    def process_seconds(self) -> float:
        """Of all processes that did the run together; `env` says how many, where there were several."""
        return self.seconds * int(self.env.get("ranks", "1"))


def metric_key(dataset: str, metric: str) -> str:
    """Key of a metric on a test set in RunRecord.metrics: "coco/tr1"."""
    return f"{dataset}/{metric}"


@dataclass(frozen=True, kw_only=True)
class Analogue:
    """What stands in for a column of the paper at another scale: a name nobody can mistake for it, and what it is."""

    label: str  # "pattern acc@1 (IN-1k analogue)"
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table: a metric of a transfer task on one test set."""

    key: str  # the paper's CSV column, e.g. "coco_tr1", or a name of our own
    group: str  # "COCO retrieval"
    label: str  # "COCO TR@1"
    task: str  # registry name of the transfer task
    dataset: str  # test set the metric is taken on: "coco"
    metric: str
    meaning: str  # one line for the legend
    higher_is_better: bool = True
    benchmark: str = ""  # the test set as the label says it, "COCO"; empty where the label says none
    item_scores: tuple[str, ...] = ()  # per-item numbers it is a function of; empty: of its own name, its mean
    share_of_items: bool = False  # a mean over test items of scores between 0 and 100
    analogue: Mapping[str, Analogue] = field(default_factory=dict)  # by scale
    # Scales at which there is such a test set; empty: every scale. Later than committed tables, as `mode`.
    only_at: tuple[str, ...] = field(default=(), metadata={"later": True})
    mode: Mode | None = field(default=None, metadata={"later": True})  # whose rows it is asked of; None: all rows

    def asked_of(self, row: "Row") -> bool:
        """Whether a row has a number here."""
        return self.mode in (None, row.mode)

    @property
    def metric_key(self) -> str:
        """Key of the metric in RunRecord.metrics."""
        return metric_key(self.dataset, self.metric)

    def on(self, own_set: str, scale: str) -> "Column":
        """The column on a user's folder in the place of the embedded set: on a set of that name, "" the benchmark."""
        others = {key: each for key, each in self.analogue.items() if key != scale}
        if not own_set:
            return replace(self, analogue=others)
        label = self.label.replace(self.benchmark, own_set, 1) if self.benchmark else f"{self.label} ({own_set})"
        meaning = f"own set {own_set!r} in the place of: {self.meaning}"
        return replace(self, analogue={**others, scale: Analogue(label=label, meaning=meaning)})

    def name(self, scale: str) -> str:
        """What the column is called at that scale."""
        return self.analogue[scale].label if scale in self.analogue else self.label

    def title(self, scale: str) -> str:
        """The heading at that scale: its name with the direction in which it is better."""
        return f"{self.name(scale)} {'↑' if self.higher_is_better else '↓'}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: an objective on a corpus. `objective=None` is the untouched initial encoder, or none in a blind row."""

    label: str
    objective: str | None
    data: str
    task: str = ""  # the paper's task column: "Con. + Gen."
    mode: Mode = "frozen"
    override: Mapping[str, Any] = field(default_factory=dict)  # declared differences, dotted config keys
    control: bool = False  # printed apart: not a method of the paper
    paper: Mapping[str, str] = field(default_factory=dict)  # cells that select one line of the paper's CSV
    only_at: tuple[str, ...] = ()  # scales the row exists at; empty: every scale
    unavailable: str = ""  # why nobody can run this row here; printed instead of its cells

    @property
    def untouched(self) -> bool:
        """Whether this is the initial encoder, which no objective has touched."""
        return self.objective is None and self.mode != BLIND

    def exists_at(self, scale: str) -> bool:
        """Whether the row belongs to the table at that scale."""
        return not self.only_at or scale in self.only_at


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table is declared, never assembled by hand."""

    name: str
    title: str  # "Table 1"
    caption: str
    rows: tuple[Row, ...]
    columns: tuple[Column, ...]
    paper_csv: str  # file name below results/paper
    cost_reference: str  # label of the row whose training FLOPs are 1.0
    references: tuple[
        Mapping[str, str], ...
    ] = ()  # lines of the paper's CSV printed for comparison, measured by no row
    more_columns: tuple[Column, ...] = ()  # measured here, not in the paper; a table of their own

    def at(self, scale: str) -> "Table":
        """The table with the rows and columns that belong to it at that scale."""

        def there(columns: tuple[Column, ...]) -> tuple[Column, ...]:
            return tuple(column for column in columns if not column.only_at or scale in column.only_at)

        return replace(
            self, rows=self.rows_at(scale), columns=there(self.columns), more_columns=there(self.more_columns)
        )

    def on(self, own_sets: Mapping[str, str], scale: str) -> "Table":
        """The table at that scale, its columns named after the test sets that were read: `Publication.own_sets`."""
        here = self.at(scale)

        def named(columns: tuple[Column, ...]) -> tuple[Column, ...]:
            return tuple(c.on(own_sets[c.dataset], scale) if c.dataset in own_sets else c for c in columns)

        return replace(here, columns=named(here.columns), more_columns=named(here.more_columns))

    def rows_at(self, scale: str) -> tuple[Row, ...]:
        """The rows of the table at that scale, in order."""
        return tuple(row for row in self.rows if row.exists_at(scale))


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One run a table waits for. `row` is "" for a run that all rows share."""

    row: str
    stage: str  # "pretrain", "text_lm" or the name of a transfer task
    seed: int
    run_id: str
    problem: str = ""  # why the run cannot be started; said where there is no record


def published_name(table: str, scale: str) -> str:
    """What the files of a table at a scale are called, without suffix."""
    return table if scale == EMBEDDED else f"{table}-{scale}"


@dataclass(frozen=True, kw_only=True)
class Publication:
    """Everything a printed table is made of: which run fills which slot, the runs, and the paper's recipe to compare.

    `references[row][stage]` is the spec the same run would have under the paper's recipe.
    """

    table: str
    scale: str
    warning: str  # printed in the title; empty only at a scale of the paper
    slots: tuple[Slot, ...]
    records: Mapping[str, RunRecord]  # by run_id; a slot without a record is a missing run
    data_prefix: str = ""  # printed before the names of corpora that only stand in for the paper's: "toy "
    own_sets: Mapping[str, str] = field(
        default_factory=dict
    )  # test set of the user's folder -> its name, "" a benchmark
    own_data: tuple[str, ...] = ()  # labels of rows that read a user's own folder, which stands in for nothing
    references: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    stated: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # stage -> settings the paper states
    declared: Mapping[str, Any] = field(default_factory=dict)  # the table as it was declared, see results/declared.py
    settings: Mapping[str, str] = field(default_factory=dict)  # those of the command line, by dotted key, as given
    schema_version: int = SCHEMA_VERSION

    @property
    def name(self) -> str:
        """File name without suffix: "table1" at the embedded scale, "table1-base16" at another."""
        return published_name(self.table, self.scale)

    def data_label(self, row: Row) -> str:
        """A row's corpus as printed."""
        return row.data if row.label in self.own_data else f"{self.data_prefix}{row.data}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one cell shows: the values of its seeds, or why there are none. The paper's value never enters."""

    values: tuple[float, ...]  # in order of seed
    missing: tuple[str, ...]  # why a seed has no value, one reason a seed
    run_ids: tuple[str, ...]
