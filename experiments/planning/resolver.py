"""Rows of tables to specs under one configuration, each with the runs it needs.

Nothing here imports torch; asking the real catalogue about an objective or a task does.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from experiments.configuration import overrides
from experiments.configuration.config import LLM, SCRATCH, TEXT_LM, DataConfig, RunConfig, resolve_optim
from experiments.configuration.corpora import CORPORA, get_corpus, get_task
from experiments.configuration.overrides import ConfigError
from experiments.planning.catalogue import Catalogue
from experiments.planning.dialogue import Start, planned_stages
from experiments.planning.fairness import Resolved
from experiments.planning.refuse import (
    refuse_lengths,
    refuse_ranks,
    refuse_small_shares,
    refuse_unused,
    refuse_wide_spans,
)
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
    stage_of,
    written,
)
from results.canonical import plain
from results.schema import BLIND, FULL, Kind, Mode, Row, Table

# Bump when equal specs would train different weights (transfer tasks have protocols of their own).
PRETRAIN_PROTOCOL = 2
TEXT_LM_PROTOCOL = 2
_FULL_WEIGHT = 10  # full transfers are the longest, and start first


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
        tests: dict[str, list[str]] = defaultdict(list)
        for column in (*table.columns, *table.more_columns):
            if column.asked_of(row):
                tests[column.task].append(column.dataset)
        config = overrides.apply(self.config, row.override, self.catalogue.config_class)
        stages = self._stages(config, row, tests, seed)
        bare = self._stages(self.config, row, tests, seed) if row.override else stages
        return Resolved(row, stages, bare, frozenset(f"objective.config.{key}" for key in self._implied(row)))

    def _implied(self, row: Row) -> Mapping[str, Any]:
        """Fields of the objective's Config that a corpus of pairs decides."""
        if row.objective is None or not get_corpus(row.data).pairs:
            return {}
        return self.catalogue.objective(row.objective).on_pairs

    def _stages(
        self, config: RunConfig, row: Row, tests: Mapping[str, Sequence[str]], seed: int
    ) -> dict[str, PlannedRun]:
        """tests: test sets of the table's columns, by task."""
        encoder = None if row.mode == BLIND else self.pretrain(config, row, seed)
        stages = {} if encoder is None else {Kind.PRETRAIN.value: encoder}
        for task, names in tests.items():
            if task == Kind.DIALOGUE:
                stages |= self.dialogue(config, row, encoder, seed, names)
                continue
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
        if not corpus.pairs:
            patches = self.catalogue.patches(config.size)
            refuse_wide_spans(row.label, facts.slots(own, patches), patches)
        refuse_small_shares(row.label, corpus, config)
        refuse_ranks(row.label, corpus, config)
        refuse_lengths(row.label, corpus, config, model)
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
        refuse_unused(recipe, facts.default, f"transfer.{task}")
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

    def dialogue(
        self, config: RunConfig, row: Row, encoder: PlannedRun | None, seed: int, benchmarks: Sequence[str]
    ) -> dict[str, PlannedRun]:
        """Both stages of dialogue on the row's encoder, or on none, and the language model they start from."""
        language = config.language.dialogue
        parents, inputs = [], {}
        if encoder is not None:
            parents, inputs = [encoder], {"encoder": encoder.run_id}
        if language == TEXT_LM:
            parents.append(self.text_lm(config, seed))
            inputs[TEXT_LM] = parents[-1].run_id
        else:
            inputs |= self._inputs({LLM: LLM}, config.data)
        problem = next((run.problem for run in parents if run.problem), "")
        start = Start(
            inputs, tuple(run.run_id for run in parents), problem or self._problem([LLM] if language == LLM else [])
        )
        runs = planned_stages(
            config,
            self.catalogue,
            self.digests,
            start,
            mode=_mode(row),
            seed=seed if config.transfer_seed is None else config.transfer_seed,
            benchmarks=tuple(dict.fromkeys(benchmarks)),
        )
        shared = {run.kind.value: run for run in parents if run.kind is Kind.TEXT_LM}
        return shared | {stage_of(run.spec): run for run in runs}

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
    ordered = not corpus.pairs and sources != {"obelics"}  # an order is drawn; pages of OBELICS come in theirs
    return CorpusSpec(
        name=corpus.name,
        tokenizer=_tokenizer(data),
        text_len=data.text_len if "pairs" in entries else None,
        seq_len=None if corpus.pairs else data.seq_len,
        sim_threshold=data.sim_threshold if "mmc4" in sources else None,  # no other has similarities
        max_images=None if sources == {"laion"} else data.max_images,
        jpeg=data.jpeg,
        before_probability=data.before_probability if ordered else CorpusSpec.before_probability,
    )


def _mode(row: Row) -> Mode:
    if row.mode not in (modes := get_args(Mode)):
        raise ConfigError(f"row {row.label!r}: there is no transfer mode {row.mode!r}; it can be {' or '.join(modes)}")
    return row.mode


def _tokenizer(data: DataConfig) -> str:
    return "opt" if data.tokenizer is not None else f"bpe-{data.vocabulary}"


def _texts(data: DataConfig) -> tuple[str, ...]:
    """The corpus the tokenizer is made from, where it is made here."""
    return () if data.tokenizer is not None else (data.tokenizer_text,)
