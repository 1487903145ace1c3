"""Transfer: one task's head on a frozen encoder, trained once and scored on all of its test sets."""

import torch
from safetensors.torch import load_file
from torch import nn

from backbones.build import init_stream
from backbones.lm import LanguageModel
from backbones.pretrained import load_opt
from backbones.sizes import LanguageSize, Size
from data.batch import Split
from data.tokenizer import Tokenizer
from experiments.configuration.corpora import get_task
from experiments.configuration.place import Place
from experiments.configuration.typed import from_plain
from experiments.planning.specs import PretrainSpec, TextLmSpec, TransferSpec, load_spec
from experiments.running.fit import Optimisation, fit
from experiments.running.optim import Group
from experiments.running.outcome import Outcome, Owned
from experiments.running.text_lm import LANGUAGE_FILE
from experiments.running.training import decided, device
from experiments.running.world import load_encoder, open_split, tokenizer_for
from results.schema import BLIND, metric_key
from transfer import registry as tasks
from transfer.base import TextModel
from transfer.features import FeatureSplit, extract, no_tokens
from transfer.freeze import frozen_transfer, unchanged
from transfer.stream import FeatureStream


def transfer(spec: TransferSpec, place: Place, run: Owned) -> Outcome:
    """Train one task's head on an encoder's cached features, or on none, and score it on all of its test sets."""
    encoder = None if spec.mode == BLIND else load_encoder(place, spec.inputs["encoder"])
    frozen = nn.Module() if encoder is None else encoder.module.to(device())
    cls, data = tasks.get(spec.task), get_task(spec.task)
    config = from_plain(cls.Config, spec.recipe, f"transfer {spec.task}")
    text = _text_model(spec, place)
    task = cls(config, text)
    precision = decided(spec.precision)
    cache = place.shared / "features"

    def features(split: Split) -> FeatureSplit:
        return no_tokens(split) if encoder is None else extract(encoder, split, cache, precision=precision)

    run.progress.write(note="features")
    train = features(open_split(place, data.train, training=True))
    head = task.head(train, spec.seed).to(device())
    groups: list[Group] = [
        {
            "params": list(group.parameters.values()),
            "algorithm": "adamw",
            "peak": group.lr,
            "weight_decay": group.weight_decay,
        }
        for group in frozen_transfer(head, frozen, config)
    ]
    stream = FeatureStream(train, config, spec.seed, text)
    optimisation = Optimisation(
        warmup_steps=config.warmup_steps(len(train)),
        betas=config.betas,
        eps=config.eps,
        clip_norm=config.grad_clip,
        precision=precision,
    )
    with unchanged(frozen):
        fit(head, stream, groups, optimisation, run=run, seed=spec.seed)

    outcome = Outcome(parent=spec.inputs.get("encoder"), data_digest=train.split.digest[:16])
    outcome.coverage = dict(train.split.coverage)
    outcome.images_seen = 0 if encoder is None else stream.images
    for name in data.tests:
        run.progress.write(note=f"scoring {name}")
        test = features(open_split(place, name, training=False))
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


def _text_model(spec: TransferSpec, place: Place) -> TextModel | None:
    """The language side a task asks for: a fresh model, the shared one trained on text, or a pretrained one."""
    if spec.language is None:
        return None
    if spec.language == "text_lm":
        parent = place.runs / spec.inputs["text_lm"]
        trained = load_spec(parent)
        assert isinstance(trained, TextLmSpec)
        tokenizer = tokenizer_for(place, trained.tokenizer)
        language = LanguageModel(from_plain(LanguageSize, trained.model, "model"), tokenizer.special.vocab_size)
        language.load_state_dict(load_file(parent / LANGUAGE_FILE))
        return TextModel(tokenizer, language, pretrained=True)
    if spec.language == "scratch":
        encoder = load_spec(place.runs / spec.inputs["encoder"])
        assert isinstance(encoder, PretrainSpec)
        size: Size = from_plain(Size, encoder.model, "model")
        tokenizer = tokenizer_for(place, f"bpe-{place.data.vocabulary}")
        with init_stream(spec.seed, "transfer", spec.task, "language"):
            language = LanguageModel(size.language, tokenizer.special.vocab_size)
        return TextModel(tokenizer, language, pretrained=False)
    return TextModel(Tokenizer.opt(spec.language), load_opt(spec.language), pretrained=True)
