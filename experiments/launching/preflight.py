"""What is checked before anything expensive starts: each problem is one message that says what to do."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from data.batch import Split
from data.corpora import TITLES, detect, open_corpus
from data.document import Bad
from data.errors import CorpusError
from data.loading.check import check_corpus, spread
from data.loading.order import order_of, too_many_readers
from data.loading.readable import refuse_unreadable
from data.loading.select import Rules
from data.toyworld.obelics import ensure_obelics
from data.toyworld.spec import is_embedded
from data.toyworld.write import ensure_toyworld
from experiments.configuration.config import DataConfig, Precision, RunConfig
from experiments.configuration.corpora import Part, embedded_corpus, get_corpus, get_task
from experiments.configuration.distributed import DistributedConfig
from experiments.configuration.place import Place
from experiments.launching.dialogue import check_dialogue
from experiments.launching.feature_budget import refuse_large
from experiments.launching.language import check_language
from experiments.planning.specs import CorpusSpec, DialogueSpec, PlannedRun, PretrainSpec, TransferSpec
from experiments.running.world import open_source, open_split
from results.schema import COVERAGE_COUNTS, Table

LOOKED_INTO = 5  # shards in which a label is looked for


class NotReady(ValueError):
    """Something a sweep needs is missing; nothing was started."""


def add_objectives(folder: Path) -> None:
    """Let a sweep find the objectives in another folder."""
    from objectives.registry import add_folder

    add_folder(folder.resolve())


def accelerators() -> int:
    """GPUs of this machine."""
    import torch

    return torch.cuda.device_count()


def check_ranks(asked: DistributedConfig) -> None:
    """Raises NotReady where this machine has GPUs, but none for each rank of a run."""
    if 0 < (held := accelerators()) < asked.ranks:
        raise NotReady(
            f"distributed.ranks is {asked.ranks}, and this machine has {held} GPUs, one for each; lower it, or use "
            "--launcher slurm"
        )


def with_precision(config: RunConfig, found: Precision | None = None) -> RunConfig:
    """The configuration with "auto" decided: it changes results, so it is part of a run's name.

    found: what the runs that are asked for were made in; None: what this machine gains by.
    """
    from experiments.running.hardware import best_precision

    pretrain, lm = config.pretrain, config.text_lm
    if pretrain.optim.precision == "auto":
        pretrain = replace(pretrain, optim=replace(pretrain.optim, precision=found or best_precision()))
    if lm.optim.precision == "auto":
        lm = replace(lm, optim=replace(lm.optim, precision=found or best_precision()))
    return replace(config, pretrain=pretrain, text_lm=lm)


def with_labels(table: Table, data: DataConfig, known: Mapping[str, str]) -> Table:
    """The table, its supervised rows marked unavailable where the corpus has no labels to learn from."""
    from objectives.registry import get

    rows = []
    for row in table.rows:
        if row.objective is not None and get(row.objective).needs_labels and not _labelled(data, known):
            row = replace(row, unavailable=f"the corpus {data.mmc4} has no labels")
        rows.append(row)
    return replace(table, rows=tuple(rows))


def _labelled(data: DataConfig, known: Mapping[str, str]) -> bool:
    source = "mmc4_pair" if data.mmc4_pair is not None else "mmc4"
    if known.get(source, "").startswith(embedded_corpus(data).folder_name):
        return True
    if source not in known:
        return True  # no corpus at all, which the plan says by itself
    entries = spread(open_corpus(Path(getattr(data, source)), shards=LOOKED_INTO))
    return any(image.label is not None for each in entries if not isinstance(each, Bad) for image in each.images)


def _check_kind(part: Part, data: DataConfig) -> None:
    """Raises CorpusError where a folder holds another kind of data than its setting says."""
    field = part.field(data)
    if field == "mmc4_pair":
        return  # pairs in tars, or documents whose pairs are taken
    folder = getattr(data, field)
    found = detect(folder)
    if found != field:
        raise CorpusError(
            f"data.{field} is {str(folder)!r}, which holds {TITLES[found]}, not {TITLES[part.source]}; "
            f"set it as data.{found}"
        )


def _check_content(part: Part, spec: CorpusSpec, place: Place) -> None:
    """Raises CorpusError where documents from all over the corpus show that a run could not use it."""
    field = part.field(place.data)
    form = detect(getattr(place.data, field))
    rules = Rules(
        sim_threshold=spec.sim_threshold if form == "mmc4" else None,
        max_images=spec.max_images or Rules.max_images,
        text_len=spec.text_len if form == "laion" else None,
    )
    corpus = open_source(place, field)
    if said := too_many_readers(order_of(corpus, seed=0), place.data.workers):
        raise CorpusError(f"corpus {corpus.name!r}: {said}")
    if said := check_corpus(corpus, corpus.lost_shards(), rules, place.data.max_broken):
        print(f"warning: {said}", file=sys.stderr)


def _say_skipped(split: Split, field: str) -> None:
    """What of a training set is left out, before anything is trained on the rest."""
    if skipped := split.coverage.get("skipped", 0):
        causes = ", ".join(
            f"{cause} {count}" for cause, count in sorted(split.coverage.items()) if cause not in COVERAGE_COUNTS
        )
        print(f"warning: {field}: {skipped} of {len(split) + skipped} samples are left out ({causes})", file=sys.stderr)


def check(missing: Sequence[PlannedRun], place: Place) -> None:
    """Write the embedded corpora that are used, look at every corpus and every picture of a downstream set, find the
    language models and Java.

    Raises NotReady, CorpusError, ConfigError where cached features are over their budget or a language model is not
    here, or OSError when the disk is too small.
    """
    spec = embedded_corpus(place.data)
    folder = place.shared / "corpora" / spec.folder_name
    others = [run.spec for run in missing if not isinstance(run.spec, DialogueSpec)]  # which has a corpus of its own
    if any(is_embedded(digest) for each in others for digest in each.inputs.values()):
        ensure_toyworld(place.shared / "corpora", spec)
    check_dialogue(missing, place)
    refuse_large(missing, place)
    check_language(missing, place)
    trained = [run.spec.data for run in missing if isinstance(run.spec, PretrainSpec) and run.spec.data is not None]
    for corpus in dict.fromkeys(trained):
        for part in get_corpus(corpus.name).parts:
            if getattr(place.data, part.field(place.data)) == folder / "obelics":
                ensure_obelics(place.shared / "corpora", spec)
            _check_kind(part, place.data)
            _check_content(part, corpus, place)
    transfers = [run.spec for run in missing if isinstance(run.spec, TransferSpec)]
    for name, training in sorted({(get_task(s.task).train, True) for s in transfers}):
        _say_skipped(open_split(place, name, training), f"data.{name}")
    for name in sorted({test for s in transfers for test in get_task(s.task).tests}):
        refuse_unreadable(open_split(place, name, training=False), place.shared / "indexes")
    if any(spec.task == "caption" for spec in transfers):
        from transfer.metrics.java import JavaError, run_java

        try:
            run_java(["-version"])
        except JavaError as error:
            raise NotReady(f"captions cannot be scored: {error}") from None
