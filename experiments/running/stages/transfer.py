"""Transfer: one task's head on an encoder, frozen or trained with it; trained once, scored on all of its test sets."""

import logging
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict

import torch
from safetensors.torch import load_file
from torch import nn

from backbones.build import init_stream
from backbones.llm import load_llm
from backbones.lm import LanguageModel
from backbones.pretrained import load_opt
from backbones.sizes import LanguageSize
from data.batch import Split
from data.tokenizer import Tokenizer
from experiments.configuration.config import LLM, TEXT_LM
from experiments.configuration.corpora import get_task
from experiments.configuration.place import Place
from experiments.configuration.typed import from_plain
from experiments.planning.specs import EncoderSpec, PretrainSpec, TextLmSpec, TransferSpec, Written, load_spec
from experiments.running.fit import Optimisation, Precision, fit
from experiments.running.optim import Group
from experiments.running.outcome import Outcome, Owned
from experiments.running.stages.heads import Heads
from experiments.running.stages.text_lm import LANGUAGE_FILE
from experiments.running.training import decided, device
from experiments.running.world import load_encoder, open_split, tokenizer_for
from results.schema import BLIND, FULL, HELD_OUT, metric_key
from transfer import registry as tasks
from transfer.base import TextModel, TransferConfig, TransferHead, TransferTask
from transfer.encoder import Encoder, fingerprint
from transfer.features import FeatureSplit, extract, no_tokens
from transfer.freeze import ParameterGroup, freeze, frozen_transfer, full_transfer, unchanged
from transfer.held_out import parts
from transfer.pictures import BehindFrozen, PictureSplit, PictureStream, Tuned
from transfer.samples import data_uri
from transfer.stream import FeatureStream

logger = logging.getLogger(__name__)


class Transfer:
    """One transfer, step by step: made ready, fitted or taken as it was fitted before, scored."""

    def __init__(self, spec: TransferSpec, place: Place, run: Owned) -> None:
        self.spec, self.place, self.run = spec, place, run
        self.encoder = None if spec.mode == BLIND else load_encoder(place, spec.inputs["encoder"])
        self.vision = nn.Module() if self.encoder is None else self.encoder.module.to(device())
        cls = tasks.get(spec.task)
        self.config: TransferConfig = from_plain(cls.Config, spec.recipe, f"transfer {spec.task}")
        self.text = _text_model(spec, place)
        self.weights = _fingerprints(spec, self.encoder, self.text)
        self.task: TransferTask = cls(self.config, self.text)
        self.precision: Precision = decided(spec.precision)
        self.cache = place.shared / "features"

    def features(self, split: Split) -> FeatureSplit:
        """Tokens of a split as the encoder gives them now; none in mode "blind"."""
        if self.encoder is None:
            return no_tokens(split)
        return extract(self.encoder, split, self.cache, precision=self.precision)

    def fit(self, outcome: Outcome) -> TransferHead:
        """The trained head, its encoder with it in mode "full"; nothing is trained where it was before."""
        split = self._train()
        if self.config.held_out:
            split, _ = parts(split, self.config.held_out)
        outcome.data_digest, outcome.coverage = split.digest[:16], dict(split.coverage)
        stream: FeatureStream | PictureStream
        if self.encoder is not None and self.config.pictures == "augmented":
            data = PictureSplit(split, self.encoder)
            stream = PictureStream(data, self.config, self.spec.seed, self.text, torch.get_num_threads())
            head = self.task.head(data, self.spec.seed).to(device())
            module = self._on_pictures(head, self.encoder)
        else:
            self.run.progress.write(note="features")
            train = self.features(split)
            stream = FeatureStream(train, self.config, self.spec.seed, self.text)
            module = head = self.task.head(train, self.spec.seed).to(device())
        outcome.images_seen = 0 if self.encoder is None else stream.images
        self._fitted(module, stream, outcome)
        return head

    def _on_pictures(self, head: TransferHead, encoder: Encoder) -> TransferHead:
        return Tuned(head, encoder) if self.spec.mode == FULL else BehindFrozen(head, encoder)

    def _fitted(self, module: TransferHead, stream: FeatureStream | PictureStream, outcome: Outcome) -> None:
        kept = Heads(self.place, Written.load(self.run.folder), self.config, self.weights)
        if kept.serve(self.run.folder.name):
            logger.info("%s takes the head that %s trained", self.run.folder.name, kept.fitted_by)
            # Its own, where it was stopped while it was scored.
            outcome.fitted_by = "" if kept.fitted_by == self.run.folder.name else kept.fitted_by
            freeze(self.vision)
            kept.load(module)
            return
        optimisation = Optimisation(
            warmup_steps=self.config.warmup_steps(len(stream.split)),
            betas=self.config.betas,
            eps=self.config.eps,
            clip_norm=self.config.grad_clip,
            precision=self.precision,
        )
        if isinstance(module, Tuned):
            groups = full_transfer(module, self.config)
            fit(module, stream, optimised(groups), optimisation, run=self.run, seed=self.spec.seed)
        else:
            groups = frozen_transfer(module, self.vision, self.config)
            with unchanged(self.vision):
                fit(module, stream, optimised(groups), optimisation, run=self.run, seed=self.spec.seed)
        self.run.may_write()
        kept.save(module, self.run.folder.name)

    def _train(self) -> Split:
        return open_split(self.place, get_task(self.spec.task).train, training=True)

    def tests(self, outcome: Outcome) -> Iterator[tuple[str, Split]]:
        """What the head is scored on: the task's test sets, or what was held out of the training set and no other."""
        names = get_task(self.spec.task).tests
        if not self.config.held_out:
            yield from ((name, open_split(self.place, name, training=False)) for name in names)
            return
        why = f"transfer.{self.spec.task}.held_out={self.config.held_out:g}: scored on held-out training images alone"
        outcome.unavailable |= {metric_key(name, metric): why for name in names for metric in self.task.metrics}
        yield HELD_OUT, parts(self._train(), self.config.held_out)[1]

    def score(self, head: TransferHead, name: str, split: Split, outcome: Outcome) -> None:
        """Scores on one test set, into the outcome."""
        self.run.progress.write(note=f"scoring {name}")
        test = self.features(split)
        with torch.autocast(device(), torch.bfloat16, enabled=self.precision == "bf16"):
            found = self.task.evaluate(head, test)
        outcome.items[name] = len(test)
        outcome.metrics |= {metric_key(name, key): float(value) for key, value in found.metrics.items()}
        outcome.unavailable |= {metric_key(name, key): reason for key, reason in found.unavailable.items()}
        for key, value in found.extras.items():
            kept = outcome.chance if key.startswith("chance_") else outcome.metrics
            kept[metric_key(name, key.removeprefix("chance_"))] = float(value)
        outcome.scores += [{"dataset": name, **item} for item in found.items]
        places = {item: place for place, item in enumerate(split.item_ids)}
        for sample in found.samples:
            picture = data_uri(split.load(places[sample.item_id]))
            outcome.samples.append({"dataset": name, **asdict(sample), "picture": picture})


def transfer(spec: TransferSpec, place: Place, run: Owned) -> Outcome:
    """Train one task's head on an encoder's features, with the encoder, or on none; score it on all test sets."""
    made, outcome = Transfer(spec, place, run), Outcome(parent=spec.inputs.get("encoder"))
    head = made.fit(outcome)
    if spec.mode == FULL:
        made.cache = run.folder / "features"  # of an encoder that is nobody else's
    try:
        for name, split in made.tests(outcome):
            made.score(head, name, split, outcome)
    finally:
        if spec.mode == FULL:
            shutil.rmtree(made.cache, ignore_errors=True)
    return outcome


def _fingerprints(spec: TransferSpec, encoder: Encoder | None, text: TextModel | None) -> dict[str, str]:
    """Of the models that other runs have left, by input."""
    found = {} if encoder is None else {"encoder": encoder.digest}
    if spec.language == TEXT_LM and text is not None:
        found[TEXT_LM] = fingerprint(text.language)
    return found


def optimised(groups: tuple[ParameterGroup, ...]) -> list[Group]:
    """Groups of transfer/freeze.py as `fit` takes them."""
    return [
        {
            "params": list(group.parameters.values()),
            "algorithm": "adamw",
            "peak": group.lr,
            "weight_decay": group.weight_decay,
        }
        for group in groups
    ]


def _text_model(spec: TransferSpec, place: Place) -> TextModel | None:
    """The language side a task asks for: a fresh model, the shared one trained on text, or a pretrained one."""
    if spec.language is None:
        return None
    if spec.language == TEXT_LM:
        return trained_on_text(place, spec.inputs[TEXT_LM])
    if spec.language == "scratch":
        encoder = load_spec(place.runs / spec.inputs["encoder"])
        assert isinstance(encoder, PretrainSpec | EncoderSpec)
        sizes = encoder.language if isinstance(encoder, EncoderSpec) else encoder.model["language"]
        size: LanguageSize = from_plain(LanguageSize, sizes, "language model")
        tokenizer = tokenizer_for(place, f"bpe-{place.data.vocabulary}")
        with init_stream(spec.seed, "transfer", spec.task, "language"):
            language = LanguageModel(size, tokenizer.special.vocab_size)
        return TextModel(tokenizer, language, pretrained=False)
    if spec.language == LLM:
        return named_llm(place, spec.inputs[LLM])
    return TextModel(Tokenizer.opt(spec.language), load_opt(spec.language), pretrained=True)


def trained_on_text(place: Place, run_id: str) -> TextModel:
    """The language model that a run trained on text, with its tokenizer."""
    parent = place.runs / run_id
    trained = load_spec(parent)
    assert isinstance(trained, TextLmSpec)
    tokenizer = tokenizer_for(place, trained.tokenizer)
    language = LanguageModel(from_plain(LanguageSize, trained.model, "model"), tokenizer.special.vocab_size)
    language.load_state_dict(load_file(parent / LANGUAGE_FILE))
    return TextModel(tokenizer, language, pretrained=True)


def named_llm(place: Place, what: str) -> TextModel:
    """The language model of `data.llm`. what: its input digest, under which a GGUF is kept unpacked."""
    assert place.data.llm is not None  # without it nothing was planned
    name = re.sub(r"[^A-Za-z0-9._]+", "-", what)
    tokenizer, model = load_llm(place.data.llm, place.shared / "llm" / name)
    return TextModel(tokenizer, model, pretrained=True)
