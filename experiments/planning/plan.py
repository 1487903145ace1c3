"""Tables x seeds x scale -> the runs they need, each once, and proof that rows differ only in what they declare.

A run is named by the hash of its resolved spec (experiments/planning/specs.py), so equal rows of different tables share
it, and adding an objective, a table or a seed changes the name of no other run. Nothing here imports torch; asking the
real catalogue about an objective or a task does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from data.toyworld.spec import is_embedded
from experiments.configuration.config import RunConfig
from experiments.configuration.corpora import own_sets
from experiments.configuration.overrides import ConfigError
from experiments.configuration.recipe import STATED, STATED_OF_DIALOGUE, Scale, get_scale
from experiments.planning.catalogue import Catalogue
from experiments.planning.fairness import Resolved, check
from experiments.planning.resolver import Resolver
from experiments.planning.specs import ABSENT, CORPUS, PlannedRun, to_plain
from results.canonical import plain
from results.schema import Kind, Publication, Row, RunRecord, Slot, Table


@dataclass(frozen=True)
class Plan:
    """All runs of a sweep, parents first, and what fills the tables."""

    scale: Scale
    runs: tuple[PlannedRun, ...]
    slots: Mapping[str, tuple[Slot, ...]]  # by table
    references: Mapping[str, Mapping[str, Mapping[str, Mapping[str, Any]]]]  # by table, row and stage
    own_data: Mapping[str, tuple[str, ...]]  # by table: labels of rows whose corpus is not the embedded one
    own_sets: Mapping[str, str]  # test sets from folders that are set -> what they are called
    declared: Mapping[str, Mapping[str, Any]]  # by table: its declaration

    def publication(self, table: str, records: Iterable[RunRecord]) -> Publication:
        """The table as these records fill it; records of other runs are left out."""
        wanted = {slot.run_id for slot in self.slots[table]}
        talks = any(slot.stage == Kind.DIALOGUE for slot in self.slots[table])
        return Publication(
            table=table,
            scale=self.scale.name,
            warning=self.scale.warning,
            data_prefix=self.scale.data_prefix,
            slots=self.slots[table],
            records={record.run_id: record for record in records if record.run_id in wanted},
            references=self.references[table],
            own_data=self.own_data[table],
            own_sets=self.own_sets,
            declared=self.declared[table],
            stated={**STATED, **STATED_OF_DIALOGUE} if talks else STATED,
        )


def build_plan(
    tables: Sequence[Table],
    seeds: Sequence[int],
    scale: Scale,
    config: RunConfig,
    catalogue: Catalogue,
    digests: Mapping[str, str],
) -> Plan:
    """Resolve, de-duplicate and check every run of the tables.

    config: the scale's configuration with the user's overrides; a row's own declared overrides come on top.
    digests: content of the data by field of DataConfig (`experiments.configuration.corpora.digests`); a field that is
        not there makes the runs that read it impossible, and they say so.

    Raises ConfigError for a row that cannot be resolved, FairnessError when two rows differ in what neither declares.
    """
    if len(set(seeds)) != len(seeds) or not seeds or min(seeds) < 0:
        raise ConfigError(f"seeds must be different whole numbers >= 0, got {list(seeds)}")
    resolver = Resolver(config, catalogue, digests)
    paper = Resolver(get_scale(scale.paper).config, catalogue, {})
    runs: dict[str, PlannedRun] = {}
    slots: dict[str, tuple[Slot, ...]] = {}
    references: dict[str, Mapping[str, Mapping[str, Mapping[str, Any]]]] = {}
    own: dict[str, tuple[str, ...]] = {}
    for table in tables:
        here, there = table.at(scale.name), table.at(scale.paper)
        rows = [row for row in here.rows if not row.unavailable]
        table_slots: list[Slot] = []
        for seed in seeds:
            resolved = [resolver.row(here, row, seed) for row in rows]
            check(table.name, resolved)
            for row in resolved:
                for stage, run in row.stages.items():
                    known = runs.setdefault(run.run_id, run)
                    user = f"{table.name}: {row.row.label}"
                    if user not in known.used_by:
                        runs[run.run_id] = replace(known, used_by=(*known.used_by, user))
                    shared = run.kind is Kind.TEXT_LM
                    slot = Slot(
                        row="" if shared else row.row.label,
                        stage=stage,
                        seed=seed,
                        run_id=run.run_id,
                        problem=run.problem,
                    )
                    if slot not in table_slots:
                        table_slots.append(slot)
        slots[table.name] = tuple(table_slots)
        own[table.name] = tuple(row.row.label for row in resolved if _reads_own_folder(row))
        counterparts = {row.label: _counterpart(table, row, scale) for row in rows}
        references[table.name] = {
            label: {stage: to_plain(run.spec) for stage, run in paper.row(there, row, 0).stages.items()}
            for label, row in counterparts.items()
            if row is not None
        }
    order = list(Kind)
    ordered = sorted(runs.values(), key=lambda run: order.index(run.kind))  # stable: in order of the tables otherwise
    declared = {table.name: plain(table) for table in tables}
    return Plan(scale, tuple(ordered), slots, references, own, own_sets(config.data), declared)


def _reads_own_folder(row: Resolved) -> bool:
    """Whether a row's encoder is trained on a folder that is set, and not on the embedded corpus."""
    encoder = row.stages.get(Kind.PRETRAIN.value)
    read = {} if encoder is None else encoder.spec.inputs
    corpora = [digest for name, digest in read.items() if name.partition(":")[0] == CORPUS]
    return any(digest != ABSENT and not is_embedded(digest) for digest in corpora)


def _counterpart(table: Table, row: Row, scale: Scale) -> Row | None:
    """The row that stands for the same line of the paper at the paper's scale."""
    if row.exists_at(scale.paper):
        return row
    same = [other for other in table.rows_at(scale.paper) if row.paper and other.paper == row.paper]
    return same[0] if same else None
