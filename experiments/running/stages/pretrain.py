"""Pre-training: from the initial weights every row of a seed shares to an encoder."""

import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from backbones.build import build_language, build_vision, init_stream
from backbones.sizes import Size
from data.batch import Batch
from data.block import block, blocks_needed
from data.images import ImageTransform
from data.loading.ranks import whole
from experiments.configuration.place import Place
from experiments.configuration.typed import from_plain
from experiments.planning.specs import PretrainSpec
from experiments.running import checkpoint, cost
from experiments.running.distributed.agree import is_writer
from experiments.running.distributed.sharding import shard
from experiments.running.empty_terms import EmptyTerm
from experiments.running.fit import Cadence, fit
from experiments.running.outcome import Outcome, Owned
from experiments.running.stages.probe import visual_use
from experiments.running.training import device, groups_of, optimisation_of
from experiments.running.world import Pretraining, save_encoder
from objectives import registry as objectives

logger = logging.getLogger(__name__)

PROBE_IMAGES = 128


def pretrain(spec: PretrainSpec, place: Place, run: Owned) -> Outcome:
    """Train an encoder from the initial weights every row of that seed shares; leaves encoder.safetensors."""
    size: Size = from_plain(Size, spec.model, "model")
    vision = build_vision(size, spec.seed)
    if spec.objective is None or spec.optim is None:
        save_encoder(run.folder, vision)
        return Outcome(lm_tokens=0)
    cls = objectives.get(spec.objective.name)
    config = from_plain(cls.Config, spec.objective.config, f"objective {spec.objective.name}")
    source = Pretraining(place, spec, cls, config)
    special = source.tokenizer.special
    language = build_language(size, special.vocab_size, spec.seed)
    with init_stream(spec.seed, "init", "objective", spec.objective.name):
        objective = cls(config, vision, language, special).to(device())
    found = checkpoint.newest(run.folder / "checkpoint")
    if found is None:
        run.progress.write(note="preparing")
        with whole():  # what is fitted does not depend on the number of ranks
            objective.prepare(batch.images.to(device()) for batch in _first(source.loader(), 32))
    else:
        checkpoint.restore_weights(found, objective)  # what `prepare` fitted is among them
    optimisation = optimisation_of(spec.optim)
    with torch.autocast(device(), torch.bfloat16, enabled=optimisation.precision == "bf16"):
        counted = cost.measure(objective, _parts(_first(source.loader(), cost.STEPS), spec.micro_batch), spec.seed)
    if run.strategy == "fsdp2":
        shard(objective)
    probed = source.probe(PROBE_IMAGES)
    unavailable = {} if probed is not None else {"probe": source.why_no_probe()}
    for reason in unavailable.values():
        logger.warning("nothing is probed in this run: %s", reason)
    transform = ImageTransform(size.vision.image_size)
    probe = (
        None
        if probed is None
        else visual_use(objective, probed, transform, optimisation.precision, run.progress.set_alarm)
    )
    groups = groups_of(objective, spec.optim)
    loader = source.loader()
    try:
        last = fit(
            objective, loader, groups, optimisation, run=run, seed=spec.seed, probe=probe, cadence=Cadence(),
            micro_batch=spec.micro_batch,
        )  # fmt: skip
    except EmptyTerm as error:
        layouts = " and ".join(layout.value for layout in cls.layouts_for(config)) or "images only"
        raise EmptyTerm(
            f"{error}: {spec.objective.name} reads {loader.corpus.name} as {layouts}; choose another corpus or layout, "
            f"or set the term's weight to 0"
        ) from None
    if is_writer():
        run.may_write()
    save_encoder(run.folder, objective.vision)
    return Outcome(
        metrics=last,
        unavailable=unavailable,
        images_seen=loader.coverage["images"],
        lm_passes=counted.lm_passes,
        train_flops=counted.flops_per_image * spec.images,
        lm_tokens=round(counted.lm_tokens_per_image * spec.images),
        data_digest=loader.corpus.digest,
        coverage=dict(loader.coverage),
    )


def _parts(batches: Iterable[Batch], micro_batch: int | None) -> Iterator[Batch]:
    """As much of each batch as is computed at once."""
    for batch in batches:
        yield batch if micro_batch is None else block(batch, 0, blocks_needed(batch, micro_batch))


def _first(loader: Any, count: int) -> Iterator[Any]:
    for _, batch in zip(range(count), loader.batches(), strict=False):
        yield batch
