"""What a plan costs before anything runs: images, tokens, floating-point operations, hours of a named device, disk.

A run costs what its counterparts cost: finished runs in committed records and in the runs folder, of the same scale,
objective and kind of corpus (or transfer task), whatever their seed. They are the benchmark, and hours are given for
each device they ran on (experiments/planning/timing.py). Where there is none, operations come from the closed form of
experiments/planning/flops.py with rows as long as they may be, and hours from these at the rate of other runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from data.tokenizer import OPT_SPECIAL
from experiments.planning.flops import Sizes, Work, step_flops
from experiments.planning.plan import Plan
from experiments.planning.specs import CorpusSpec, PlannedRun, PretrainSpec
from experiments.planning.timing import Likeness, Timing, likenesses
from results import publish
from results.schema import Kind, RunRecord, Status

# LCL paper, appendix A: what its ViT-L/14 of Tables 3 and 4 took.
PAPERS_BILL = "the paper's own bill: 512 A800 for 5 days, 61,440 GPU hours, for one ViT-L/14 on 13B images (A.1)"
IMAGES_OF_A_DOCUMENT = 3  # for the closed form only; MMC4 leaves the number open
BYTES = 4  # of a parameter in a checkpoint


class Known:
    """Finished runs, found by what decides a run's cost."""

    def __init__(self, records: Iterable[RunRecord], scale: str) -> None:
        done = {each.run_id: each for each in records if each.status is Status.DONE and each.scale == scale}
        self._held: dict[Likeness, list[RunRecord]] = {}
        for record in done.values():
            for like in likenesses(record.resolved):
                self._held.setdefault(like, []).append(record)
        self.timing = Timing(done.values())

    def of(self, run: PlannedRun) -> list[RunRecord]:
        """Counterparts of a run; empty where there is none."""
        return next((found for like in likenesses(run.plain) if (found := self._held.get(like))), [])


def finished(scale: str, records: Iterable[RunRecord], folder: Path = publish.ROOT / "records") -> Known:
    """What all committed tables and these records hold at a scale.

    Raises RecordError for a file that cannot be read.
    """
    publications = [publish.load(path) for path in sorted(folder.glob("*.jsonl"))]
    return Known([*(each for held in publications for each in held.records.values()), *records], scale)


@dataclass(frozen=True)
class Cost:
    """Of one run. None: nobody knows."""

    images: int
    tokens: float | None
    flops: float | None


def price(plan: Plan, done: Iterable[RunRecord], known: Known) -> str:
    """The bill of the runs that are not done, in a few lines."""
    over = {record.run_id for record in done if record.status is Status.DONE}
    missing = [run for run in plan.runs if run.run_id not in over]
    costs = [_cost(run, known) for run in missing]
    trained = [(run, cost) for run, cost in zip(missing, costs, strict=True) if cost.images]
    lines = [
        f"price of {len(missing)} runs, {len(plan.runs) - len(missing)} reused: "
        f"{sum(cost.images for cost in costs):,} images of pre-training"
    ]
    tokens = [cost.tokens for _, cost in trained]
    lines.append(f"- tokens through the language model: {_sum(tokens, trained)}")
    lines.append(f"- training FLOPs: {_sum([cost.flops for _, cost in trained], trained)}")
    hours = [_hours(missing, costs, known.timing, device) for device in known.timing.devices]
    lines += [each for each in hours if each] or ["- process hours: not known, as no finished run is of this scale"]
    lines.append(f"- disk: {_disk(missing)}")
    lines.append(f"- {PAPERS_BILL}")
    return "\n".join(lines)


def _cost(run: PlannedRun, known: Known) -> Cost:
    if not isinstance(run.spec, PretrainSpec) or not run.spec.images:
        return Cost(0, 0.0, 0.0)
    images, found = run.spec.images, known.of(run)
    if not found:
        return Cost(images, None, closed_form(run.spec))
    tokens = [each.lm_tokens / each.images_seen for each in found if each.lm_tokens is not None]
    return Cost(
        images,
        images * fmean(tokens) if tokens else None,
        images * fmean(each.train_flops / each.images_seen for each in found),
    )


def _hours(missing: Sequence[PlannedRun], costs: Sequence[Cost], timing: Timing, device: str) -> str:
    """The line of one device, "" where it has no time for any run."""
    expected = [timing.expected(run, device) for run in missing]
    both = [(c.flops, e.seconds) for c, e in zip(costs, expected, strict=True) if c.images and c.flops and e]
    seconds_per_flop = sum(seconds for _, seconds in both) / sum(flops for flops, _ in both) if both else None
    timed = []
    for cost, each in zip(costs, expected, strict=True):
        if each is not None:
            timed.append(each.seconds)
        elif cost.flops and seconds_per_flop is not None:
            timed.append(cost.flops * seconds_per_flop)
    if missing and not timed:
        return ""
    some = "" if len(timed) == len(missing) else f" for {len(timed)} of {len(missing)} runs; the rest is not known"
    others = sorted({each.measured_on for each in expected if each is not None} - {device})
    how = "finished runs" + "".join(f", in part of {each} × {timing.ratio(device, each):.2f}" for each in others)
    return f"- {sum(timed) / 3600:,.2f} process hours on {device} ({how}){some}"


def _sum(values: Sequence[float | None], trained: Sequence[tuple[PlannedRun, Cost]]) -> str:
    known = [value for value in values if value is not None]
    lost = sorted({run.spec.label for (run, _), value in zip(trained, values, strict=True) if value is None})
    said = f"{sum(known):.3g}" if known or not values else "not known"
    return f"{said}, without {len(lost)} runs such as {lost[0]}" if known and lost else said


def closed_form(spec: PretrainSpec) -> float | None:
    """FLOPs of a pre-training with full rows; None for an objective without a formula."""
    assert spec.objective is not None
    sizes, work = work_of(spec)
    step = step_flops(spec.objective.name, spec.objective.config, sizes, work)
    return None if step is None else step / spec.images_per_step * spec.images


def work_of(spec: PretrainSpec) -> tuple[Sizes, Work]:
    """The backbones of a pre-training, and a step of it with full rows, in all layouts that its corpus can have."""
    assert spec.objective is not None and spec.data is not None
    sizes = Sizes(vision=spec.model["vision"], language=spec.model["language"], vocabulary=_vocabulary(spec))
    slots = int(spec.objective.config.get("queries", sizes.patches))
    return sizes, _full_rows(spec.data, sizes, slots, spec.images_per_step)


def _full_rows(data: CorpusSpec, sizes: Sizes, slots: int, images: int) -> Work:
    """A step of rows as long as they may be: begin, end and two markers of an image around its slots and text."""
    if data.seq_len is None:
        assert data.text_len is not None
        text, span = data.text_len, slots + 2
        lengths = {"text_only": text + 2, "image_first": text + span + 2, "random_order": text + span + 2}
        rows = {layout: (images, length) for layout, length in lengths.items()}
        return Work(images=images, rows=rows, predicted=images * (text + 1), contrasted=images)
    documents = max(1, images // IMAGES_OF_A_DOCUMENT)
    text = max(1, data.seq_len - IMAGES_OF_A_DOCUMENT * (slots + 2) - 2)
    rows = {"interleaved": (documents, data.seq_len), "media_token": (documents, text + IMAGES_OF_A_DOCUMENT + 2)}
    return Work(
        images=images,
        rows=rows,
        predicted=documents * text,
        contrasted=images,
        hidden_patches=images * sizes.patches // 2,
        images_of_a_row=IMAGES_OF_A_DOCUMENT,
    )


def _disk(missing: Sequence[PlannedRun]) -> str:
    """Encoders that stay, and what the largest checkpoint of a run in training takes: weights and two moments."""
    specs = [run.spec for run in missing if isinstance(run.spec, PretrainSpec)]
    stay = sum(BYTES * _encoder(spec) for spec in specs)
    trained = [spec for spec in specs if spec.images]
    largest = max((3 * BYTES * _weights(spec) for spec in trained), default=0)
    transfers = sum(run.kind is Kind.TRANSFER for run in missing)
    return (
        f"{stay / 1e9:.2g} GB of encoders stay; {largest / 1e9:.2g} GB more for each run in training; "
        f"cached features of {transfers} transfers and the corpora come on top"
    )


def _vocabulary(spec: PretrainSpec) -> int:
    """Embedding rows: the model's own, OPT's, or those of the BPE that is trained for the run ("bpe-1024")."""
    assert spec.data is not None
    trained = OPT_SPECIAL.vocab_size if spec.data.tokenizer == "opt" else spec.data.tokenizer.removeprefix("bpe-")
    return int(spec.model["language"]["vocab_size"] or trained)


def _encoder(spec: PretrainSpec) -> int:
    """Weights of the vision encoder, without biases and norms."""
    vision = spec.model["vision"]
    return int(12 * vision["depth"] * vision["width"] ** 2 + 3 * vision["patch_size"] ** 2 * vision["width"])


def _weights(spec: PretrainSpec) -> int:
    """Weights of both backbones, without biases and norms."""
    language = spec.model["language"]
    width = language["width"]
    blocks = language["depth"] * (4 * width**2 + 2 * width * language["ffn"])
    return int(_encoder(spec) + blocks + (_vocabulary(spec) + language["positions"]) * width)
