"""Language models and tokenizers that runs will open: whether they are here is asked before anything is trained."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from data.tokenizer import Tokenizer
from experiments.configuration.config import LLM, SCRATCH, TEXT_LM
from experiments.configuration.overrides import ConfigError
from experiments.configuration.place import Place
from experiments.planning.specs import PlannedRun, PretrainSpec, TextLmSpec, TransferSpec


def check_language(missing: Sequence[PlannedRun], place: Place) -> None:
    """Raises ConfigError naming the setting whose model or tokenizer is not on this machine; reads no weights."""
    if place.data.tokenizer is not None and any(_reads_tokenizer(run) for run in missing):
        with _of_setting("data.tokenizer"):
            Tokenizer.opt(place.data.tokenizer)
    named = {(run.spec.language, run.spec.task) for run in missing if isinstance(run.spec, TransferSpec)}
    for language, task in sorted((language, task) for language, task in named if language is not None):
        if language == LLM and place.data.llm is not None:
            from backbones.llm import check_llm  # here and below: transformers takes seconds to import

            check_llm(place.data.llm)
        elif language not in (LLM, SCRATCH, TEXT_LM):
            from backbones.pretrained import check_opt

            with _of_setting(f"language.{task}"):
                check_opt(language)
                Tokenizer.opt(language)


def _reads_tokenizer(run: PlannedRun) -> bool:
    """Whether a run opens the tokenizer of `data.tokenizer`."""
    if isinstance(run.spec, TransferSpec):
        return run.spec.language == SCRATCH
    return isinstance(run.spec, TextLmSpec) or (isinstance(run.spec, PretrainSpec) and run.spec.data is not None)


@contextmanager
def _of_setting(name: str) -> Iterator[None]:
    """Inside, what is raised about a place says which setting named it."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
