"""Runs: a spec in a folder becomes a record beside it. `execute` is what every launcher calls, in whatever process.

A run folder holds spec.json before the run, metrics.jsonl, progress.json and checkpoint/ during it, and record.json
(last, atomically) after it. A lock keeps two processes out of one folder, so a second sweep waits for an orphan of the
first instead of racing it.
"""

import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file

from backbones.build import build_language, build_vision, init_stream
from backbones.lm import LanguageModel
from backbones.pretrained import load_opt
from backbones.sizes import LanguageSize, Size
from data.images import ImageTransform
from data.tokenizer import Tokenizer
from experiments import checkpoint, cost
from experiments.config import OptimConfig
from experiments.corpora import get_task
from experiments.fit import Cadence, Optimisation, Precision, Stopped, fit
from experiments.hardware import best_precision, multiplies_in
from experiments.optim import Group, parameter_groups
from experiments.probe import visual_use
from experiments.progress import Progress
from experiments.specs import PretrainSpec, Spec, TextLmSpec, TransferSpec, read_spec, to_plain
from experiments.text_lm import TextLm, TextStream
from experiments.typed import from_plain
from experiments.world import Place, Pretraining, load_encoder, open_source, open_split, save_encoder, tokenizer_for
from objectives import registry as objectives
from results import provenance, record
from results.schema import Kind, RunRecord, Status, metric_key
from transfer import registry as tasks
from transfer.base import TextModel
from transfer.features import extract
from transfer.freeze import frozen_transfer
from transfer.stream import FeatureStream

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parent.parent
LANGUAGE_FILE = "language.safetensors"
TEXT_LENGTH = 96  # tokens of a row of the captioning language model's training, pages at tiny fit
PROBE_IMAGES = 128
SHOWN_STAGES = {Kind.PRETRAIN: "pre-training", Kind.TEXT_LM: "caption LM", Kind.TRANSFER: "transfer"}


@dataclass
class Outcome:
    """What a run found out, before it is written down."""

    metrics: dict[str, float] = field(default_factory=dict)
    chance: dict[str, float] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    scores: list[Mapping[str, Any]] = field(default_factory=list)  # per test item
    parent: str | None = None
    images_seen: int = 0
    lm_passes: int = 0
    train_flops: float = 0.0
    data_digest: str = ""
    coverage: dict[str, int] = field(default_factory=dict)


def execute(run_id: str, place: Place, scale: str, bar: bool = False) -> Status:
    """Do the run whose spec.json lies in runs/<run_id>, unless it is done; its status.

    Every outcome but a request to stop is recorded: a failure too, with its reason. Raises Stopped after SIGINT or
    SIGTERM, and OSError when the record cannot be written.
    """
    folder = place.runs / run_id
    with FileLock(folder / ".lock"):
        path = folder / record.RECORD_FILE
        if path.exists() and record.read(path).status is Status.DONE:
            return Status.DONE
        spec = read_spec(json.loads((folder / "spec.json").read_text()))
        progress = Progress(folder, _stage(spec), getattr(spec, "images_per_step", 0), bar)
        began = time.monotonic()
        status, reason, outcome = Status.DONE, "", Outcome()
        try:
            blocked = _blocked(spec, place)
            if blocked:
                status, reason = Status.BLOCKED, blocked
            else:
                outcome = _RUNNERS[spec.kind](spec, place, folder, progress)
        except (Stopped, KeyboardInterrupt):
            raise
        except Exception as error:  # the record says what went wrong; nothing is swallowed
            logger.exception("run %s failed", run_id)
            status, reason = Status.FAILED, f"{type(error).__name__}: {error}".splitlines()[0]
        finally:
            progress.close()
        _write(folder, run_id, spec, scale, status, reason, outcome, time.monotonic() - began)
        if status is Status.DONE:
            checkpoint.clear(folder / "checkpoint")
        return status


def give_up(run_id: str, place: Place, scale: str, reason: str) -> None:
    """Record that a run failed which could not say so itself: its process was killed."""
    folder = place.runs / run_id
    with FileLock(folder / ".lock"):
        spec = read_spec(json.loads((folder / "spec.json").read_text()))
        _write(folder, run_id, spec, scale, Status.FAILED, reason, Outcome(), 0.0)


def _stage(spec: Spec) -> str:
    return spec.task if isinstance(spec, TransferSpec) else SHOWN_STAGES[spec.kind]


def _blocked(spec: Spec, place: Place) -> str:
    """Why a run cannot start: a parent without a finished record."""
    parents = [spec.inputs[name] for name in ("encoder", "text_lm") if name in spec.inputs] if _transfers(spec) else []
    for parent in parents:
        path = place.runs / parent / record.RECORD_FILE
        if not path.exists():
            return f"{parent} has not been run"
        found = record.read(path)
        if found.status is not Status.DONE:
            return f"{parent} {found.status.value}: {found.reason}"
    return ""


def _transfers(spec: Spec) -> bool:
    return isinstance(spec, TransferSpec)


def _write(
    folder: Path, run_id: str, spec: Spec, scale: str, status: Status, reason: str, outcome: Outcome, seconds: float
) -> None:
    code = provenance.revision(ROOT)
    finite = {key: value for key, value in outcome.metrics.items() if math.isfinite(value)}
    not_finite = {key: f"it is {value}" for key, value in outcome.metrics.items() if key not in finite}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    done = RunRecord(
        run_id=run_id,
        kind=spec.kind,
        status=status,
        spec=to_plain(spec),
        parent=outcome.parent,
        metrics=finite,
        chance=outcome.chance,
        items=outcome.items,
        unavailable={**outcome.unavailable, **not_finite},
        scale=scale,
        seed=spec.seed,
        images_seen=outcome.images_seen,
        lm_passes=outcome.lm_passes,
        train_flops=outcome.train_flops,
        commit=code.commit,
        dirty=code.dirty,
        env=provenance.environment(device, torch.get_num_threads()) | {"multiplies_in": multiplies_in()},
        data_digest=outcome.data_digest,
        coverage=outcome.coverage,
        seconds=round(seconds, 1),
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
        reason=reason,
    )
    record.write(done, folder, outcome.scores)


def pretrain(spec: PretrainSpec, place: Place, folder: Path, progress: Progress) -> Outcome:
    """Train an encoder from the initial weights every row of that seed shares; leaves encoder.safetensors."""
    size: Size = from_plain(Size, spec.model, "model")
    vision = build_vision(size, spec.seed)
    if spec.objective is None or spec.optim is None:
        save_encoder(folder, vision)
        return Outcome()
    cls = objectives.get(spec.objective.name)
    config = from_plain(cls.Config, spec.objective.config, f"objective {spec.objective.name}")
    source = Pretraining(place, spec, cls, config)
    special = source.tokenizer.special
    language = build_language(size, special.vocab_size, spec.seed)
    with init_stream(spec.seed, "init", "objective", spec.objective.name):
        objective = cls(config, vision, language, special).to(device())
    found = checkpoint.newest(folder / "checkpoint")
    if found is None:
        progress.write(note="preparing")
        objective.prepare(batch.images.to(device()) for batch in _first(source.loader(), 32))
    else:
        checkpoint.restore_weights(found, objective)  # what `prepare` fitted is among them
    optimisation = _optimisation(spec.optim)
    with torch.autocast(device(), torch.bfloat16, enabled=optimisation.precision == "bf16"):
        counted = cost.measure(objective, _first(source.loader(), cost.STEPS), spec.seed)
    probed = source.probe(PROBE_IMAGES)
    unavailable = {} if probed is not None else {"probe": source.why_no_probe()}
    for reason in unavailable.values():
        logger.warning("nothing is probed in this run: %s", reason)
    transform = ImageTransform(size.vision.image_size)
    probe = None if probed is None else visual_use(objective, probed, transform, optimisation.precision)
    groups = _groups(objective, spec.optim)
    loader = source.loader()
    last = fit(
        objective, loader, groups, optimisation, folder=folder, seed=spec.seed, progress=progress, probe=probe,
        cadence=Cadence(),
    )  # fmt: skip
    save_encoder(folder, objective.vision)
    return Outcome(
        metrics=last,
        unavailable=unavailable,
        images_seen=loader.coverage["images"],
        lm_passes=counted.lm_passes,
        train_flops=counted.flops_per_image * spec.images,
        data_digest=loader.corpus.digest,
        coverage=dict(loader.coverage),
    )


def text_lm(spec: TextLmSpec, place: Place, folder: Path, progress: Progress) -> Outcome:
    """Train the captioning language model; leaves language.safetensors."""
    size: LanguageSize = from_plain(LanguageSize, spec.model, "model")
    tokenizer = tokenizer_for(place, spec.tokenizer)
    corpus = open_source(place, spec.source)
    with init_stream(spec.seed, "init", "text_lm"):
        module = TextLm(LanguageModel(size, tokenizer.special.vocab_size)).to(device())
    longest = min(TEXT_LENGTH, size.positions)
    stream = TextStream(corpus, tokenizer, steps=spec.steps, batch=spec.batch, longest=longest, seed=spec.seed)
    groups = _groups(module, spec.optim)
    last = fit(module, stream, groups, _optimisation(spec.optim), folder=folder, seed=spec.seed, progress=progress)
    save_file(module.language.state_dict(), folder / LANGUAGE_FILE)
    return Outcome(metrics=last, data_digest=corpus.digest)


def transfer(spec: TransferSpec, place: Place, folder: Path, progress: Progress) -> Outcome:
    """Train one task's head on an encoder's cached features and score it on all of its test sets."""
    parent = place.runs / spec.inputs["encoder"]
    encoder = load_encoder(place, spec.inputs["encoder"])
    encoder.module.to(device())
    cls, data = tasks.get(spec.task), get_task(spec.task)
    config = from_plain(cls.Config, spec.recipe, f"transfer {spec.task}")
    text = _text_model(spec, place, json.loads((parent / "spec.json").read_text()))
    task = cls(config, text)
    precision = resolved(spec.precision)
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
        eps=1e-8,
        clip_norm=config.grad_clip,
        precision=precision,
    )
    fit(head, stream, groups, optimisation, folder=folder, seed=spec.seed, progress=progress)

    outcome = Outcome(parent=spec.inputs["encoder"], data_digest=train.split.digest[:16])
    outcome.images_seen = stream.steps * config.batch
    for name in data.tests:
        progress.write(note=f"scoring {name}")
        test = extract(encoder, open_split(place, name, training=False), cache, precision=precision)
        with torch.autocast(device(), torch.bfloat16, enabled=precision == "bf16"):
            found = task.evaluate(head, test)
        outcome.items[name] = len(test)
        outcome.metrics |= {metric_key(name, key): float(value) for key, value in found.metrics.items()}
        outcome.unavailable |= {metric_key(name, key): reason for key, reason in found.unavailable.items()}
        chances = {key.removeprefix("chance_"): value for key, value in found.extras.items() if key[:7] == "chance_"}
        outcome.chance |= {metric_key(name, key): float(value) for key, value in chances.items()}
        outcome.scores += [{"dataset": name, **item} for item in found.items]
    return outcome


def _text_model(spec: TransferSpec, place: Place, encoder: Mapping[str, Any]) -> TextModel | None:
    """The language side a task asks for: a fresh model, the shared one trained on text, or a pretrained one."""
    if spec.language is None:
        return None
    size: Size = from_plain(Size, encoder["model"], "model")
    if spec.language == "text_lm":
        parent = place.runs / spec.inputs["text_lm"]
        trained = read_spec(json.loads((parent / "spec.json").read_text()))
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


_RUNNERS: Mapping[Kind, Any] = {Kind.PRETRAIN: pretrain, Kind.TEXT_LM: text_lm, Kind.TRANSFER: transfer}


def device() -> str:
    """Where runs train."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolved(precision: Literal["auto", "bf16", "fp32"]) -> Precision:
    """A sweep decides "auto" before it plans; a spec made elsewhere may still hold it."""
    return best_precision() if precision == "auto" else precision


def _groups(module: torch.nn.Module, optim: OptimConfig) -> list[Group]:
    return parameter_groups(module, lr=optim.lr, weight_decay=optim.weight_decay, matrices=optim.matrices)


def _optimisation(optim: OptimConfig) -> Optimisation:
    return Optimisation(
        warmup_steps=optim.warmup_steps,
        betas=optim.betas,
        eps=optim.eps,
        clip_norm=optim.clip_norm,
        precision=resolved(optim.precision),
    )


def _first(loader: Any, count: int) -> Iterator[Any]:
    for _, batch in zip(range(count), loader.batches(), strict=False):
        yield batch


@contextmanager
def watching(held: Path) -> Iterator[None]:
    """Inside, this process is interrupted when nobody holds the lock `held` any more: an orphan trains for nobody.

    A lock and not a process id: a killed process keeps its id until its own parent has asked for it.
    """
    over = threading.Event()

    def watch() -> None:
        while not over.wait(2.0):
            with suppress(Timeout), FileLock(held, timeout=0):
                logger.warning("the sweep that started this run is gone; stopping after this step")
                os.kill(os.getpid(), signal.SIGINT)  # again and again: one at the end of a training is not heard

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
