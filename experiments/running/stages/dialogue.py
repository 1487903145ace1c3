"""One stage of multimodal dialogue: an MLP, or an MLP and its language model, learn LLaVA's conversations.

The second stage starts from the first one's MLP and is scored on benchmarks: every answer is in answers/ of the run's
folder, beside those to the same questions about another picture.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from backbones.build import init_stream
from backbones.kinds import matrices as linear_maps
from backbones.tower import BeforeLast
from data.dialogue.example import Example, SpanTokenizer, tokenised
from data.dialogue.template import Mark, Piece, asked, written
from data.images import HARD_MAX_PIXELS, open_image
from experiments.configuration.config import LLM
from experiments.configuration.place import Place
from experiments.configuration.typed import from_plain
from experiments.planning.specs import DialogueSpec
from experiments.running import checkpoint
from experiments.running.conversations import open_conversations
from experiments.running.fit import Cadence, Optimisation, fit
from experiments.running.optim import Group
from experiments.running.outcome import Outcome, Owned
from experiments.running.saved import ANSWERS, SHUFFLED
from experiments.running.stages.transfer import named_llm, trained_on_text
from experiments.running.training import decided, device
from experiments.running.world import load_encoder, save_module
from results.schema import BLIND, FULL, metric_key
from transfer.base import TextModel
from transfer.dialogue.answer import answered, answers
from transfer.dialogue.head import AlignHead, TalkHead, TuneHead
from transfer.dialogue.recipe import PICTURES, STAGES, Algorithm, Align, Stage, Tune
from transfer.dialogue.scoring.answers import check_join, read_answers
from transfer.dialogue.scoring.base import NAMES, Benchmark, Question, Verdict
from transfer.dialogue.scoring.registry import BENCHMARKS
from transfer.dialogue.stream import Pictures, TalkStream
from transfer.encoder import Encoder
from transfer.freeze import ParameterGroup, frozen_transfer, full_transfer, unchanged
from transfer.metrics.shuffled import another
from transfer.pictures import BehindFrozen, Tuned
from transfer.samples import Sample, data_uri, sampled

PROJECTOR_FILE = "projector.safetensors"
ASKED_AT_ONCE = 512  # questions whose answers are written together


class Dialogue:
    """A stage, step by step: made ready, fitted, scored."""

    def __init__(self, spec: DialogueSpec, place: Place, run: Owned) -> None:
        assert place.data.dialogue is not None  # without it nothing was planned
        self.spec, self.place, self.run, self.folder = spec, place, run, place.data.dialogue
        self.stage: Align | Tune = from_plain(type(STAGES[spec.stage]), spec.recipe, f"dialogue {spec.stage}")
        self.encoder = None if spec.mode == BLIND else _reads(load_encoder(place, spec.inputs["encoder"]), self.stage)
        self.vision = nn.Module() if self.encoder is None else self.encoder.module.to(device())
        self.text: TextModel = (
            named_llm(place, spec.inputs[LLM])
            if spec.language == LLM
            else trained_on_text(place, spec.inputs["text_lm"])
        )
        self.workers = torch.get_num_threads()

    def head(self) -> TalkHead:
        """The MLP from the seed, or as the first stage left it."""
        width = 1 if self.encoder is None else self.encoder.module.width
        with init_stream(self.spec.seed, "dialogue", "init"):
            kind = AlignHead if self.spec.stage == "align" else TuneHead
            made = kind(width, self.text.language)
        if "align" in self.spec.inputs:
            made.projector.load_state_dict(load_file(self.place.runs / self.spec.inputs["align"] / PROJECTOR_FILE))
        return made.to(device())

    def fit(self, head: TalkHead, outcome: Outcome) -> None:
        """Train the head on the stage's conversations."""
        examples, names = self._conversations(outcome)
        encoder = self.encoder
        stream = TalkStream(
            examples,
            names,
            self.stage,
            seed=self.spec.seed,
            fill=self.text.tokenizer.special.pad,
            pictures=None if encoder is None else self._pictures(encoder, self.folder / "images"),
            workers=self.workers,
        )
        outcome.images_seen, outcome.data_digest = stream.images, self.spec.inputs["data"]
        optimisation = Optimisation(
            warmup_steps=round(self.stage.warmup * stream.steps),
            betas=self.stage.betas,
            eps=self.stage.eps,
            clip_norm=self.stage.grad_clip,
            precision=decided(self.spec.precision),
        )
        scored = self.spec.stage == "tune"
        if not self._has_trained(stream.steps):  # what was said, others said
            for kept in (ANSWERS, SHUFFLED):
                shutil.rmtree(self.run.folder / kept, ignore_errors=True)
        fitting: dict[str, Any] = {"run": self.run, "seed": self.spec.seed, "cadence": Cadence(at_end=scored)}
        if encoder is not None and self.spec.mode == FULL and isinstance(self.stage, Tune):
            tuned = Tuned(head, encoder)
            groups = by_algorithm(full_transfer(tuned, self.stage), tuned, self.stage.matrices)
            outcome.metrics |= fit(tuned, stream, groups, optimisation, **fitting)
            return
        module = head if encoder is None else BehindFrozen(head, encoder)
        groups = by_algorithm(frozen_transfer(module, self.vision, self.stage), module, self.stage.matrices)
        with unchanged(self.vision):
            outcome.metrics |= fit(module, stream, groups, optimisation, **fitting)

    def _has_trained(self, steps: int) -> bool:
        """Whether a checkpoint that can be used holds the weights after the last step."""
        found = checkpoint.newest(self.run.folder / "checkpoint")
        return found is not None and found.step == steps

    def check_questions(self) -> None:
        """Raises ValueError where a question and its answer are longer than what the language model reads."""
        stage, most = self.stage, self.text.language.positions
        assert isinstance(stage, Tune)  # the first is not scored
        for name in self.spec.benchmarks:
            benchmark = BENCHMARKS[name]()  # type: ignore[index]
            for item, question in benchmark.read(self.folder / name, next(iter(benchmark.splits))).items():
                line = benchmark.line(item, question)
                length = len(self._question(line)) + stage.answer_tokens
                if length > most:
                    raise ValueError(
                        f"question {item} of {name} takes {length} tokens with its answer, the language model reads "
                        f"{most}: name another with data.llm, or move {self.folder / name} out of data.dialogue"
                    )

    def _question(self, line: Mapping[str, Any]) -> Example:
        """A line of a question file as it is asked, whole."""
        pieces = asked(line["text"], line["image"] is not None, self.stage.template)
        return self._example(line["question_id"], pieces, None)

    def score(self, head: TalkHead, name: str, outcome: Outcome) -> None:
        """Answer a benchmark, and again with every picture another one; score both."""
        benchmark, release = BENCHMARKS[name](), self.folder / name  # type: ignore[index]
        split = next(iter(benchmark.splits))
        questions = benchmark.read(release, split)
        lines = [benchmark.line(item, question) for item, question in questions.items()]
        images = sorted({line["image"] for line in lines if line["image"] is not None})
        found = self._answered(head, benchmark, release, lines, questions, ANSWERS)
        outcome.items[name] = len(lines)
        outcome.metrics[metric_key(name, benchmark.metric)] = _value(benchmark, found)
        outcome.metrics |= {metric_key(name, key): value for key, value in benchmark.more(_totals(found)).items()}
        outcome.scores += [
            {"dataset": name, "item_id": each.item_id, "group_id": each.group_id, "prediction": each.parsed}
            | benchmark.kept(each)
            for each in found
        ]
        outcome.samples += self._samples(benchmark, release, questions, found)
        if self.encoder is not None and len(images) > 1:
            other = another(images)
            moved = [{**line, "image": other.get(line["image"])} for line in lines]
            shuffled = self._answered(head, benchmark, release, moved, questions, SHUFFLED)
            outcome.metrics[metric_key(name, f"shuffled_{benchmark.metric}")] = _value(benchmark, shuffled)

    def _samples(
        self, benchmark: Benchmark, release: Path, questions: Mapping[str, Question], found: Sequence[Verdict]
    ) -> list[Mapping[str, Any]]:
        """Some questions about pictures with what was said, to be looked at."""
        shown = [each for each in found if questions[each.item_id].asked.image is not None]
        made: list[Mapping[str, Any]] = []
        for verdict in (shown[place] for place in sampled([each.item_id for each in shown])):
            question = questions[verdict.item_id]
            picture = open_image((release / PICTURES / str(question.asked.image)).read_bytes(), HARD_MAX_PIXELS)
            text, _, _ = question.asked.text.rpartition("\n")  # the last line asks for the form of the answer
            sample = Sample(
                item_id=verdict.item_id,
                meant=f"{text} {question.answer}",
                said=(verdict.parsed,),
                right=(verdict.score == 1,),
                score=100 * verdict.score,
                metric=benchmark.metric,
            )
            made.append({"dataset": release.name, **asdict(sample), "picture": data_uri(picture)})
        return made

    def _answered(
        self,
        head: TalkHead,
        benchmark: Benchmark,
        release: Path,
        lines: Sequence[Mapping[str, Any]],
        questions: Mapping[str, Any],
        folder: str,
    ) -> Sequence[Verdict]:
        stage = self.stage
        assert isinstance(stage, Tune)  # the first is not scored
        path = self.run.folder / folder / f"{release.name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        tokens = self._tokens(release / PICTURES)

        def answer(some: Sequence[Mapping[str, Any]]) -> Sequence[str]:
            self.run.progress.write(note=f"{folder} {release.name}")
            names = [line["image"] for line in some]
            examples = [self._question(line) for line in some]
            return answers(head, self.text.tokenizer, examples, names, tokens, stage.answer_tokens)

        self.run.may_write()
        answered(path, lines, answer, ASKED_AT_ONCE)
        said = read_answers(path, benchmark.key)
        check_join(questions, said, release, path)
        return benchmark.judge(questions, said)

    def _conversations(self, outcome: Outcome) -> tuple[list[Example], list[str | None]]:
        found = open_conversations(self.place, self.spec.stage, self.stage.template)
        examples, names, empty = [], [], 0
        for each in found.conversations:
            example = self._example(each.item_id, written(each, self.stage.template), self.stage.longest)
            if any(example.learned):
                examples.append(example)
                names.append(each.image)
            else:
                empty += 1  # its answers were cut
        outcome.coverage = found.coverage
        outcome.coverage["documents"] -= empty
        outcome.coverage["skipped"] += empty
        if not examples:
            raise ValueError(
                f"no answer in {self.spec.stage}.json begins within dialogue.{self.spec.stage}.longest="
                f"{self.stage.longest} tokens; raise it"
            )
        return examples, names

    def _example(self, item: str, pieces: Sequence[Piece], longest: int | None) -> Example:
        encoder = self.encoder
        if encoder is None:  # nothing stands where the picture was
            pieces = [piece for piece in pieces if piece is not Mark.IMAGE]
        slots = 0 if encoder is None else encoder.module.num_patches
        tokenizer = self.text.tokenizer
        assert isinstance(tokenizer, SpanTokenizer)
        return tokenised(item, pieces, tokenizer, slots, longest)

    def _pictures(self, encoder: Encoder, folder: Path) -> Pictures:
        def load(name: str) -> Image.Image:
            return open_image((folder / name).read_bytes(), HARD_MAX_PIXELS)

        return Pictures(load, encoder.transform, pads=self.spec.stage == "tune")

    def _tokens(self, folder: Path) -> Callable[[Sequence[str | None]], Tensor]:
        encoder = self.encoder
        if encoder is None:
            return lambda names: torch.zeros(len(names), 0, 1)
        pictures = self._pictures(encoder, folder)

        def tokens(names: Sequence[str | None]) -> Tensor:
            encoder.module.eval()
            images = pictures.read(names, self.workers).to(device())
            return encoder.module.tokens(images)[:, encoder.patches].float()

        return tokens


def dialogue(spec: DialogueSpec, place: Place, run: Owned) -> Outcome:
    """Train a stage; the first leaves projector.safetensors, the second is scored and leaves its answers."""
    made, outcome = Dialogue(spec, place, run), Outcome(parent=spec.inputs.get("encoder"))
    if spec.benchmarks:
        made.check_questions()
    head = made.head()
    made.fit(head, outcome)
    run.may_write()
    if spec.stage == "align":
        save_module(run.folder / PROJECTOR_FILE, head.projector)
        return outcome
    for name in spec.benchmarks:
        made.score(head, name, outcome)
    for name in set(NAMES).difference(spec.benchmarks):
        why = f"data.dialogue has no folder {name!r} with its release"
        outcome.unavailable[metric_key(name, BENCHMARKS[name].metric)] = why
    return outcome


def by_algorithm(groups: Sequence[ParameterGroup], module: nn.Module, matrices: Algorithm) -> list[Group]:
    """Groups of transfer/freeze.py as `fit` takes them. matrices: trains weights of linear layers, AdamW the rest."""
    linear = linear_maps(module)
    found: list[Group] = []
    for group in groups:
        kinds: tuple[tuple[Algorithm, bool], ...] = ((matrices, True), ("adamw", False))
        for algorithm, own in kinds:
            params = [each for each in group.parameters.values() if (id(each) in linear) == own]
            if params:
                found.append(Group(params=params, algorithm=algorithm, peak=group.lr, weight_decay=group.weight_decay))
    return found


def _reads(encoder: Encoder, stage: Stage) -> Encoder:
    """The encoder as far as the stage reads it."""
    return encoder if stage.select_layer == -1 else replace(encoder, module=BeforeLast(encoder.module))


def _totals(verdicts: Sequence[Verdict]) -> Any:
    return torch.tensor([each.sums for each in verdicts], dtype=torch.float64).sum(dim=0).numpy()


def _value(benchmark: Benchmark, verdicts: Sequence[Verdict]) -> float:
    return float(benchmark.value(_totals(verdicts)))
