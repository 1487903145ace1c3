"""What a row asks for that cannot be: refused when it is resolved, with both values and what to set instead."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from experiments.configuration.config import RunConfig
from experiments.configuration.corpora import PretrainCorpus
from experiments.configuration.overrides import ConfigError


def refuse_small_shares(row: str, corpus: PretrainCorpus, config: RunConfig) -> None:
    """Raises ConfigError where a step holds too few images of a part of a mixture for one document of it."""
    step = config.pretrain.images_per_step
    for part, images in zip(corpus.parts, corpus.shares(step), strict=True):
        need = 1 if part.entries == "pairs" else config.data.max_images
        if len(corpus.parts) > 1 and images < need:
            raise ConfigError(
                f"row {row!r}: of the {step} images of a step {corpus.name!r} leaves {images} to {part.name}, but one "
                f"of its entries may hold {need}; give it more weight, or raise pretrain.images_per_step"
            )


def refuse_lengths(row: str, corpus: PretrainCorpus, config: RunConfig, model: Mapping[str, Any]) -> None:
    """Raises ConfigError where rows of documents may be longer than what the language model has positions for, or
    hold no image. model: its sizes.
    """
    if corpus.pairs:
        return
    vision, length, most = model["vision"], config.data.seq_len, model["language"]["positions"]
    least = (vision["image_size"] // vision["patch_size"]) ** 2 + 4
    if not least <= length <= most:
        raise ConfigError(
            f"row {row!r}: data.seq_len is {length}; at size {config.size!r} an image and its markers need {least} "
            f"tokens, and the language model has {most} positions: set it between the two"
        )


def refuse_ranks(row: str, corpus: PretrainCorpus, config: RunConfig) -> None:
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


def refuse_wide_spans(row: str, slots: int, patches: int) -> None:
    """Raises ConfigError where an objective writes more slots for an image than documents are cut to leave room for.

    Every objective reads the same text, so documents are cut for one slot a patch whatever it writes.
    """
    if slots > patches:
        raise ConfigError(
            f"row {row!r}: an image takes {slots} slots of a row, but documents are cut for the {patches} patches of "
            f"its encoder, so long ones would not fit; ask for at most {patches}, or choose a size with more patches"
        )


def refuse_unused(recipe: Any, default: Any, prefix: str) -> None:
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
