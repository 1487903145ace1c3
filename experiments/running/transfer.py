"""Transfer: one task's head on a frozen encoder, trained once and scored on all of its test sets."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from backbones.build import init_stream
from backbones.lm import LanguageModel
from backbones.pretrained import load_opt
from backbones.sizes import LanguageSize, Size
from data.tokenizer import Tokenizer
from experiments.configuration.corpora import get_task
from experiments.configuration.typed import from_plain
from experiments.planning.specs import PretrainSpec, Spec, TextLmSpec, TransferSpec, load_spec
from experiments.running.fit import Optimisation, fit
from experiments.running.optim import Group
from experiments.running.outcome import Outcome
from experiments.running.progress import Progress
from experiments.running.text_lm import LANGUAGE_FILE
from experiments.running.training import decided, device
from experiments.running.world import Place, load_encoder, open_split, tokenizer_for
from results.schema import metric_key
from transfer import registry as tasks
from transfer.base import TextModel
from transfer.features import extract
from transfer.freeze import frozen_transfer
from transfer.stream import FeatureStream


def transfer(spec: TransferSpec, place: Place, folder: Path, progress: Progress) -> Outcome:
    """Train one task's head on an encoder's cached features and score it on all of its test sets."""
    parent = place.runs / spec.inputs["encoder"]
    encoder = load_encoder(place, spec.inputs["encoder"])
    encoder.module.to(device())
    cls, data = tasks.get(spec.task), get_task(spec.task)
    config = from_plain(cls.Config, spec.recipe, f"transfer {spec.task}")
    text = _text_model(spec, place, load_spec(parent))
    task = cls(config, text)
    precision = decided(spec.precision)
    cache = place.shared / "features"

    progress.write(note="features")
    train = extract(encoder, open_split(place, data.train, training=True), cache, precision=precision)
    head = task.head(train, spec.seed).to(device())
    groups: list[Group] = [
        {
            "params": list(group.parameters.values()),
            "algorithm": "adamw",
            "peak": group.lr,
            "weight_decay": group.weight_decay,
        }
        for group in frozen_transfer(head, encoder.module, config)
    ]
    stream = FeatureStream(train, config, spec.seed, text)
    optimisation = Optimisation(
        warmup_steps=config.warmup_steps(len(train)),
        betas=config.betas,
        eps=config.eps,
        clip_norm=config.grad_clip,
        precision=precision,
    )
    fit(head, stream, groups, optimisation, folder=folder, seed=spec.seed, progress=progress)

    outcome = Outcome(parent=spec.inputs["encoder"], data_digest=train.split.digest[:16])
    outcome.images_seen = stream.images
    for name in data.tests:
        progress.write(note=f"scoring {name}")
        test = extract(encoder, open_split(place, name, training=False), cache, precision=precision)
        with torch.autocast(device(), torch.bfloat16, enabled=precision == "bf16"):
            found = task.evaluate(head, test)
        outcome.items[name] = len(test)
        outcome.metrics |= {metric_key(name, key): float(value) for key, value in found.metrics.items()}
        outcome.unavailable |= {metric_key(name, key): reason for key, reason in found.unavailable.items()}
        for key, value in found.extras.items():
            kept = outcome.chance if key.startswith("chance_") else outcome.metrics
            kept[metric_key(name, key.removeprefix("chance_"))] = float(value)
        outcome.scores += [{"dataset": name, **item} for item in found.items]
    return outcome


def _text_model(spec: TransferSpec, place: Place, encoder: Spec) -> TextModel | None:
    """The language side a task asks for: a fresh model, the shared one trained on text, or a pretrained one."""
    if spec.language is None:
        return None
    assert isinstance(encoder, PretrainSpec)
    size: Size = from_plain(Size, encoder.model, "model")
    if spec.language == "text_lm":
        parent = place.runs / spec.inputs["text_lm"]
        trained = load_spec(parent)
        assert isinstance(trained, TextLmSpec)
        tokenizer = tokenizer_for(place, trained.tokenizer)
        language = LanguageModel(from_plain(LanguageSize, trained.model, "model"), tokenizer.special.vocab_size)
        language.load_state_dict(load_file(parent / LANGUAGE_FILE))
        return TextModel(tokenizer, language, pretrained=True)
    if spec.language == "scratch":
        tokenizer = tokenizer_for(place, f"bpe-{place.data.vocabulary}")
        with init_stream(spec.seed, "transfer", spec.task, "language"):
            language = LanguageModel(size.language, tokenizer.special.vocab_size)
        return TextModel(tokenizer, language, pretrained=False)
    return TextModel(Tokenizer.opt(spec.language), load_opt(spec.language), pretrained=True)
