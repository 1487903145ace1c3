"""Whether multimodal dialogue can be trained and scored as planned, looked at before anything is."""

import logging
from collections.abc import Sequence
from typing import cast

from data.dialogue.template import Template
from data.loading.readable import unreadable_files
from data.toyworld.dialogue import ensure_dialogue
from experiments.configuration.config import LLM
from experiments.configuration.dialogue import StageName, embedded_dialogue
from experiments.configuration.overrides import ConfigError
from experiments.configuration.place import Place
from experiments.planning.specs import DialogueSpec, PlannedRun
from experiments.running.conversations import open_conversations
from transfer.dialogue.recipe import PICTURES
from transfer.dialogue.scoring.base import BenchmarkName
from transfer.dialogue.scoring.registry import BENCHMARKS

logger = logging.getLogger(__name__)


def check_dialogue(missing: Sequence[PlannedRun], place: Place) -> None:
    """Write the embedded dialogue corpus where it is used, look at every conversation and picture of any other, and
    find the language model.

    Raises ValueError for a release in another layout, CorpusError where too few conversations can be used, ConfigError
    where pictures that are asked about cannot be read or where a table would print a part of a benchmark under its
    name, OSError when the disk is too small.
    """
    talks = [(run.spec, bool(run.used_by)) for run in missing if isinstance(run.spec, DialogueSpec)]
    if not talks:
        return
    assert place.data.dialogue is not None  # without it nothing was planned
    embedded, _ = embedded_dialogue(place.data.toyworld_seed)
    if place.data.dialogue == place.shared / "corpora" / embedded.folder_name:
        ensure_dialogue(place.shared / "corpora", embedded)
    else:
        for stage, template in sorted({(spec.stage, spec.recipe["template"]) for spec, _ in talks}):
            _check_stage(stage, template, place)
        in_table = any(used for _, used in talks)
        for name in sorted({name for spec, _ in talks for name in spec.benchmarks}):
            _check_benchmark(cast(BenchmarkName, name), place, in_table)
    if any(spec.language == LLM for spec, _ in talks) and place.data.llm is not None:
        from backbones.llm import check_llm

        check_llm(place.data.llm)


def _check_stage(stage: StageName, template: Template, place: Place) -> None:
    """Raises CorpusError where too little of a stage's conversations can be used; says what is left out."""
    found = open_conversations(place, stage, template)
    if found.left_out:
        counts = ", ".join(f"{flaw} {count}" for flaw, count in sorted(found.left_out.items()))
        kept = len(found.conversations)
        logger.warning("%s.json: %d records are learned from, others are left out: %s", stage, kept, counts)


def _check_benchmark(name: BenchmarkName, place: Place, in_table: bool) -> None:
    assert place.data.dialogue is not None
    benchmark, folder = BENCHMARKS[name](), place.data.dialogue / name
    split, release = next(iter(benchmark.splits.items()))
    questions = benchmark.read(folder, split)
    if in_table and len(questions) not in release.sizes:
        raise ConfigError(
            f"{folder} holds {len(questions)} questions, {name} {split} has {' or '.join(map(str, release.sizes))}; "
            "a table would print them under its name; complete the download, or score them apart with "
            "python -m experiments.dialogue"
        )
    images = sorted({question.asked.image for question in questions.values()} - {None})
    lost = unreadable_files(folder / PICTURES, images, f"pictures of {name}", place.shared / "indexes")
    if lost:
        first, why = min(lost.items())
        raise ConfigError(
            f"of {len(images)} pictures that {name} asks about {len(lost)} cannot be read, first "
            f"{folder / PICTURES / first} ({why}); put or link there: {benchmark.pictures}"
        )
