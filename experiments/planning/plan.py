"""Tables x seeds x scale -> the runs they need, each once, and proof that rows differ only in what they declare.

A run is named by the hash of its resolved spec (experiments/planning/specs.py), so equal rows of different tables share
it, and adding an objective, a table or a seed changes the name of no other run. Nothing here imports torch; asking the
real catalogue about an objective or a task does.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

from data.toyworld.spec import is_embedded
from experiments.configuration import overrides
from experiments.configuration.config import LLM, SCRATCH, TEXT_LM, DataConfig, RunConfig, resolve_optim
from experiments.configuration.corpora import CORPORA, PretrainCorpus, get_corpus, get_task, own_sets
from experiments.configuration.overrides import ConfigError
from experiments.configuration.recipe import STATED, Scale, get_scale
from experiments.planning.catalogue import Catalogue
from experiments.planning.fairness import Resolved, check
from experiments.planning.specs import (
    ABSENT,
    CORPUS,
    CorpusSpec,
    ObjectiveSpec,
    PlannedRun,
    PretrainSpec,
    Spec,
    TextLmSpec,
    TransferSpec,
    to_plain,
    written,
)
from results.canonical import plain
from results.schema import BLIND, FULL, Kind, Mode, Publication, Row, RunRecord, Slot, Status, Table

# Bump when equal specs would train different weights (transfer tasks have protocols of their own).
PRETRAIN_PROTOCOL = 2
TEXT_LM_PROTOCOL = 2


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
            stated=STATED,
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
        rows = [row for row in table.rows_at(scale.name) if not row.unavailable]
        table_slots: list[Slot] = []
        for seed in seeds:
            resolved = [resolver.row(table, row, seed) for row in rows]
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
            label: {stage: to_plain(run.spec) for stage, run in paper.row(table, row, 0).stages.items()}
            for label, row in counterparts.items()
            if row is not None
        }
    order = list(Kind)
    ordered = sorted(runs.values(), key=lambda run: order.index(run.kind))  # stable: in order of the tables otherwise
    declared = {table.name: plain(table) for table in tables}
    return Plan(scale, tuple(ordered), slots, references, own, own_sets(config.data), declared)


class Resolver:
    """Rows of tables to specs under one configuration."""

    def __init__(self, config: RunConfig, catalogue: Catalogue, digests: Mapping[str, str]) -> None:
        for key, precision in (
            ("pretrain.optim.precision", config.pretrain.optim.precision),
            ("text_lm.optim.precision", config.text_lm.optim.precision),
        ):
            if precision == "auto":  # it decides results, so it is part of a run's name
                raise ConfigError(f"{key} is 'auto'; the machine that runs decides it before runs are named")
        self.config, self.catalogue, self.digests = config, catalogue, digests

    def row(self, table: Table, row: Row, seed: int) -> Resolved:
        """All runs one row needs for one seed, by stage, and what they would be without the row's overrides."""
        tasks = tuple(dict.fromkeys(column.task for column in (*table.columns, *table.more_columns)))
        config = overrides.apply(self.config, row.override, self.catalogue.config_class)
        stages = self._stages(config, row, tasks, seed)
        bare = self._stages(self.config, row, tasks, seed) if row.override else stages
        return Resolved(row, stages, bare, frozenset(f"objective.config.{key}" for key in self._implied(row)))

    def _implied(self, row: Row) -> Mapping[str, Any]:
        """Fields of the objective's Config that a corpus of pairs decides."""
        if row.objective is None or not get_corpus(row.data).pairs:
            return {}
        return self.catalogue.objective(row.objective).on_pairs

    def _stages(self, config: RunConfig, row: Row, tasks: Sequence[str], seed: int) -> dict[str, PlannedRun]:
        encoder = None if row.mode == BLIND else self.pretrain(config, row, seed)
        stages = {} if encoder is None else {Kind.PRETRAIN.value: encoder}
        for task in tasks:
            if encoder is None and not self.catalogue.task(task).generates:
                continue  # without an image there is only text to write
            stages[task], extra = self.transfer(config, row, task, encoder, seed)
            stages |= extra
        return stages

    def pretrain(self, config: RunConfig, row: Row, seed: int) -> PlannedRun:
        """The pre-training of a row."""
        size = self.catalogue.size(config.size)
        model, typed = plain(size), {"model": size}
        if row.objective is None:
            spec = PretrainSpec(
                protocol=PRETRAIN_PROTOCOL,
                objective=None,
                data=None,
                model=model,
                images=0,
                images_per_step=0,
                optim=None,
                seed=seed,
                inputs={},
            )
            return self._run(spec, typed)
        corpus = get_corpus(row.data)
        facts = self.catalogue.objective(row.objective)
        if facts.reads == "pairs" and not corpus.pairs:
            paired = [name for name in CORPORA if name == f"{row.data}-pair"]
            raise ConfigError(
                f"row {row.label!r}: objective {row.objective!r} reads pairs (one image each), but corpus {row.data!r} "
                f"holds documents; use {f'its paired version, {paired[0]!r}' if paired else 'a corpus of pairs'}, or "
                "an objective that reads documents"
            )
        changes = {**self._implied(row), **config.objectives.get(row.objective, {})}
        own = overrides.change(facts.default, changes, prefix=f"objectives.{row.objective}")
        _refuse_small_shares(row.label, corpus, config)
        _refuse_ranks(row.label, corpus, config)
        read = {part.name: part.field(config.data) for part in corpus.parts}
        sources = {CORPUS: read[corpus.name]} if len(read) == 1 else {f"{CORPUS}:{n}": f for n, f in read.items()}
        budget = config.pretrain
        steps = -(-budget.images // budget.images_per_step)
        spec = PretrainSpec(
            protocol=PRETRAIN_PROTOCOL,
            objective=ObjectiveSpec(name=row.objective, protocol=facts.protocol, config=plain(own)),
            data=_corpus_spec(config.data, row.data),
            model=model,
            images=budget.images,
            images_per_step=budget.images_per_step,
            optim=resolve_optim(budget.optim, getattr(budget.optim.lr, corpus.rate), steps),
            micro_batch=budget.micro_batch,
            seed=seed,
            inputs=self._inputs({**sources, "tokenizer": "tokenizer"}, config.data),
        )
        # Rows of documents hold their images beside the text and are about twice as long as captions.
        passes = 1 + facts.lm_passes * (1 if corpus.pairs else 2)
        problem = self._problem([*sources.values(), *_texts(config.data)])
        return self._run(spec, typed | {"objective.config": own}, problem, budget.images * passes)

    def text_lm(self, config: RunConfig, seed: int) -> PlannedRun:
        """The language model that transfer starts from, equal for all rows."""
        recipe, size = config.text_lm, self.catalogue.size(config.size).language
        spec = TextLmSpec(
            protocol=TEXT_LM_PROTOCOL,
            source=recipe.source,
            tokenizer=_tokenizer(config.data),
            model=plain(size),
            steps=recipe.steps,
            batch=recipe.batch,
            optim=recipe.optim,
            seed=seed,
            inputs=self._inputs({"text": recipe.source, "tokenizer": "tokenizer"}, config.data),
        )
        problem = self._problem([recipe.source, *_texts(config.data)])
        return self._run(spec, {"model": size}, problem, recipe.steps * recipe.batch)

    def transfer(
        self, config: RunConfig, row: Row, task: str, encoder: PlannedRun | None, seed: int
    ) -> tuple[PlannedRun, dict[str, PlannedRun]]:
        """A transfer of the row's encoder, or of none, and runs it needs besides."""
        facts, data = self.catalogue.task(task), get_task(task)
        mode = _mode(row)
        changes = {**(facts.in_full if mode == FULL else {}), **config.transfer.get(task, {})}
        recipe = overrides.change(facts.default, changes, prefix=f"transfer.{task}")
        if mode == FULL:
            recipe = overrides.change(recipe, config.full.get(task, {}), prefix=f"full.{task}")
        if mode == FULL and (pictures := getattr(recipe, "pictures", "augmented")) != "augmented":
            raise ConfigError(
                f"row {row.label!r}: full transfer changes the encoder at every step, so transfer.{task}.pictures "
                f"cannot be {pictures!r}; leave it out, or set it for frozen rows in a sweep of their own (--only)"
            )
        _refuse_unused(recipe, facts.default, f"transfer.{task}")
        language = getattr(config.language, task) if facts.reads_text else None
        extra: dict[str, PlannedRun] = {}
        inputs = {} if encoder is None else {"encoder": encoder.run_id}
        if language == TEXT_LM:
            extra[Kind.TEXT_LM.value] = self.text_lm(config, seed)
            inputs[TEXT_LM] = extra[Kind.TEXT_LM.value].run_id
        wanted = {"train": data.train, **{name: name for name in data.tests}}
        if language == SCRATCH:  # any other language model comes with its tokenizer
            wanted["tokenizer"] = "tokenizer"
        elif language == LLM:
            wanted[LLM] = LLM
        spec = TransferSpec(
            protocol=facts.protocol,
            task=task,
            mode=mode,
            recipe=plain(recipe),
            precision=config.pretrain.optim.precision,
            language=language,
            seed=seed if config.transfer_seed is None else config.transfer_seed,
            inputs=inputs | self._inputs(wanted, config.data),
        )
        parents = (*([] if encoder is None else [encoder]), *extra.values())
        needed = [
            data.train,
            *(_texts(config.data) if language == SCRATCH else ()),
            *([LLM] if language == LLM else ()),
        ]
        problem = next((run.problem for run in parents if run.problem), "") or self._problem(needed)
        if encoder is None and language == SCRATCH:
            problem = (
                problem or f"language.{task} is {SCRATCH!r}, in the size of an encoder's run, and a blind row has none"
            )
        weight = facts.reads_text + facts.generates + _FULL_WEIGHT * (mode == FULL)
        needs = tuple(run.run_id for run in parents)
        return self._run(spec, {"recipe": recipe}, problem, weight, needs), extra

    def _run(
        self, spec: Spec, typed: Mapping[str, Any], problem: str = "", weight: int = 0, needs: tuple[str, ...] = ()
    ) -> PlannedRun:
        parts = written(spec, typed)
        return PlannedRun(spec=spec, written=parts, needs=needs, problem=problem, used_by=(), weight=weight)

    def _inputs(self, wanted: Mapping[str, str], data: DataConfig) -> dict[str, str]:
        made_from = {"tokenizer": data.tokenizer_text} if data.tokenizer is None else {}
        return {name: self.digests.get(made_from.get(source, source), ABSENT) for name, source in wanted.items()}

    def _problem(self, sources: Sequence[str]) -> str:
        return "; ".join(f"data.{name} is not set" for name in dict.fromkeys(sources) if name not in self.digests)


def _corpus_spec(data: DataConfig, name: str) -> CorpusSpec:
    """How a corpus is read: of the settings, those that apply to it."""
    corpus = get_corpus(name)
    entries = {part.entries for part in corpus.parts}
    sources = {part.source for part in corpus.parts}
    return CorpusSpec(
        name=corpus.name,
        tokenizer=_tokenizer(data),
        text_len=data.text_len if "pairs" in entries else None,
        seq_len=None if corpus.pairs else data.seq_len,
        sim_threshold=data.sim_threshold if "mmc4" in sources else None,  # no other has similarities
        max_images=None if sources == {"laion"} else data.max_images,
        jpeg=data.jpeg,
    )


def _refuse_small_shares(row: str, corpus: PretrainCorpus, config: RunConfig) -> None:
    """Raises ConfigError where a step holds too few images of a part of a mixture for one document of it."""
    step = config.pretrain.images_per_step
    for part, images in zip(corpus.parts, corpus.shares(step), strict=True):
        need = 1 if part.entries == "pairs" else config.data.max_images
        if len(corpus.parts) > 1 and images < need:
            raise ConfigError(
                f"row {row!r}: of the {step} images of a step {corpus.name!r} leaves {images} to {part.name}, but one "
                f"of its entries may hold {need}; give it more weight, or raise pretrain.images_per_step"
            )


def _refuse_ranks(row: str, corpus: PretrainCorpus, config: RunConfig) -> None:
    """Raises ConfigError where a step cannot be shared by as many ranks as asked for, or weights by its optimiser."""
    asked, step = config.distributed.ranks, config.pretrain.images_per_step
    if config.distributed.strategy == "fsdp2" and config.pretrain.optim.matrices == "muon":
        raise ConfigError(
            f"row {row!r}: pretrain.optim.matrices is muon, which orthogonalises whole matrices, and with "
            "distributed.strategy=fsdp2 a rank holds parts of them; leave distributed.strategy at ddp, or train them "
            "as another run with --set pretrain.optim.matrices=adamw"
        )
    if asked > 1 and (windows := [part.name for part in corpus.parts if part.entries == "windows"]):
        raise ConfigError(
            f"row {row!r}: distributed.ranks is {asked}, but {windows[0]} is read in windows over the documents of a "
            "whole step, which ranks cannot share; set distributed.ranks=1 for it, and --only to leave it out elsewhere"
        )
    for part, images in zip(corpus.parts, corpus.shares(step), strict=True):
        # So many documents are sure to be in a step, and each rank needs one.
        sure = images // (1 if part.entries == "pairs" else config.data.max_images)
        if asked > 1 and sure < asked:
            raise ConfigError(
                f"row {row!r}: a step of {images} images of {part.name} may hold no more than {sure} entries, too few "
                f"for {asked} ranks; lower distributed.ranks, or raise pretrain.images_per_step"
            )


def _mode(row: Row) -> Mode:
    if row.mode not in (modes := get_args(Mode)):
        raise ConfigError(f"row {row.label!r}: there is no transfer mode {row.mode!r}; it can be {' or '.join(modes)}")
    return row.mode


_FULL_WEIGHT = 10  # full transfers are the longest, and start first


def _refuse_unused(recipe: Any, default: Any, prefix: str) -> None:
    """Raises ConfigError for a setting that was changed where another one makes it mean nothing.

    Of two that say the same thing in two ways ("instead_of") exactly one is set.
    """
    for field in fields(recipe):
        other, value = field.metadata.get("only_with", (None, None))
        if other and getattr(recipe, other) != value and getattr(recipe, field.name) != getattr(default, field.name):
            raise ConfigError(
                f"{prefix}.{field.name}={getattr(recipe, field.name)} means nothing with "
                f"{prefix}.{other}={getattr(recipe, other)}; add --set {prefix}.{other}={value}"
            )
        if twin := field.metadata.get("instead_of"):
            ours, theirs = getattr(recipe, field.name), getattr(recipe, twin)
            if (ours is None) == (theirs is None):
                raise ConfigError(
                    f"{prefix}.{twin} is {theirs} and {prefix}.{field.name} is {ours}: exactly one of them is set, "
                    f"the other --set {prefix}.{twin if ours is not None else field.name}="
                    f"{'none' if ours is not None else 'N'}"
                )


def _tokenizer(data: DataConfig) -> str:
    return "opt" if data.tokenizer is not None else f"bpe-{data.vocabulary}"


def _texts(data: DataConfig) -> tuple[str, ...]:
    """The corpus the tokenizer is made from, where it is made here."""
    return () if data.tokenizer is not None else (data.tokenizer_text,)


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


def listing(plan: Plan, records: Iterable[RunRecord]) -> str:
    """The plan as text: what there is to do for each row and stage, by seed, and a count. `records`: runs there are."""
    done = {record.run_id: record.status for record in records}
    groups: dict[tuple[Kind, str, tuple[str, ...]], list[PlannedRun]] = {}
    for run in plan.runs:
        stage = run.spec.task if isinstance(run.spec, TransferSpec) else run.kind.value
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
