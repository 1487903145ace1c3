"""Whether multimodal dialogue can be trained and scored as planned, looked at before anything is."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from data.toyworld.dialogue import ensure_dialogue
from experiments.configuration.config import LLM
from experiments.configuration.dialogue import embedded_dialogue
from experiments.configuration.overrides import ConfigError
from experiments.configuration.place import Place
from experiments.planning.specs import DialogueSpec, PlannedRun
from transfer.dialogue.recipe import PICTURES
from transfer.dialogue.scoring.base import BenchmarkName
from transfer.dialogue.scoring.registry import BENCHMARKS


def check_dialogue(missing: Sequence[PlannedRun], place: Place) -> None:
    """Write the embedded dialogue corpus where it is used, find every picture asked about, and the language model.

    Raises ValueError for a release in another layout, ConfigError where pictures are missing or where a table would
    print a part of a benchmark under its name, OSError when the disk is too small.
    """
    talks = [(run.spec, bool(run.used_by)) for run in missing if isinstance(run.spec, DialogueSpec)]
    if not talks:
        return
    assert place.data.dialogue is not None  # without it nothing was planned
    embedded, _ = embedded_dialogue(place.data.toyworld_seed)
    if place.data.dialogue == place.shared / "corpora" / embedded.folder_name:
        ensure_dialogue(place.shared / "corpora", embedded)
    else:
        in_table = any(used for _, used in talks)
        for name in sorted({name for spec, _ in talks for name in spec.benchmarks}):
            _check_benchmark(cast(BenchmarkName, name), place.data.dialogue / name, in_table)
    if any(spec.language == LLM for spec, _ in talks) and place.data.llm is not None:
        from backbones.llm import check_llm

        check_llm(place.data.llm)


def _check_benchmark(name: BenchmarkName, folder: Path, in_table: bool) -> None:
    benchmark = BENCHMARKS[name]()
    split, release = next(iter(benchmark.splits.items()))
    questions = benchmark.read(folder, split)
    if in_table and len(questions) not in release.sizes:
        raise ConfigError(
            f"{folder} holds {len(questions)} questions, {name} {split} has {' or '.join(map(str, release.sizes))}; "
            "a table would print them under its name; complete the download, or score them apart with "
            "python -m experiments.dialogue"
        )
    images = {question.asked.image for question in questions.values()} - {None}
    lost = sorted(str(image) for image in images if not (folder / PICTURES / str(image)).is_file())
    if lost:
        raise ConfigError(
            f"{folder / PICTURES} lacks {len(lost)} of {len(images)} pictures that {name} asks about, first "
            f"{lost[0]}; put or link there: {benchmark.pictures}"
        )
