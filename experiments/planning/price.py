"""What a plan costs before anything runs: images, tokens, floating-point operations, hours of a named device, disk.

A run costs what its counterparts cost: finished runs in committed records, of the same scale, objective and kind of
corpus (or transfer task), whatever their seed. They are the benchmark, and the device they ran on is named. Where there
is none, operations come from the closed form of experiments/planning/flops.py with rows as long as they may be, and
hours from the operations at the rate of the counterparts of other runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.configuration.corpora import get_corpus
from experiments.planning.flops import Sizes, Work, step_flops
from experiments.planning.plan import Plan
from experiments.planning.specs import CorpusSpec, PlannedRun, PretrainSpec
from results import publish
from results.schema import Kind, RunRecord, Status

# LCL paper, appendix A: what its ViT-L/14 of Tables 3 and 4 took.
PAPERS_BILL = "the paper's own bill: 512 A800 for 5 days, 61,440 GPU hours, for one ViT-L/14 on 13B images (A.1)"
IMAGES_OF_A_DOCUMENT = 3  # for the closed form only; MMC4 leaves the number open
BYTES = 4  # of a parameter in a checkpoint

Likeness = tuple[object, ...]


class Known:
    """Finished runs of committed records, found by what decides a run's cost."""

    def __init__(self, records: Iterable[RunRecord], scale: str) -> None:
        self._held: dict[Likeness, list[RunRecord]] = {}
        for record in records:
            if record.status is Status.DONE and record.scale == scale:
                self._held.setdefault(likeness(record.resolved), []).append(record)

    def of(self, run: PlannedRun) -> list[RunRecord]:
        """Counterparts of a run; empty where there is none."""
        return self._held.get(likeness(run.plain), [])


def committed(scale: str, folder: Path = publish.ROOT / "records") -> Known:
    """What all committed tables hold at a scale. Raises RecordError for a file that cannot be read."""
    publications = [publish.load(path) for path in sorted(folder.glob("*.jsonl"))]
    return Known((record for held in publications for record in held.records.values()), scale)


def likeness(spec: dict[str, Any]) -> Likeness:
    """What a run's cost for each image depends on, as far as a spec says it."""
    objective, data = spec.get("objective"), spec.get("data")
    pairs = get_corpus(data["name"]).pairs if data else None
    return (spec["kind"], objective and objective["name"], pairs, spec.get("task"), spec.get("mode"))


@dataclass(frozen=True)
class Cost:
    """Of one run. None: nobody knows."""

    images: int
    tokens: float | None
    flops: float | None
    seconds: float | None
    devices: tuple[str, ...]


def price(plan: Plan, done: Iterable[RunRecord], known: Known) -> str:
    """The bill of the runs that are not done, in a few lines."""
    finished = {record.run_id for record in done if record.status is Status.DONE}
    missing = [run for run in plan.runs if run.run_id not in finished]
    costs = [_cost(run, known) for run in missing]
    rate = _rate(costs)
    costs = [_timed(cost, rate) for cost in costs]
    trained = [(run, cost) for run, cost in zip(missing, costs, strict=True) if cost.images]
    devices = sorted({device for cost in costs for device in cost.devices})
    timed = [cost.seconds for cost in costs if cost.seconds is not None]
    lines = [
        f"price of {len(missing)} runs, {len(plan.runs) - len(missing)} reused: "
        f"{sum(cost.images for cost in costs):,} images of pre-training"
    ]
    tokens = [cost.tokens for _, cost in trained]
    lines.append(f"- tokens through the language model: {_sum(tokens, trained)}")
    lines.append(f"- training FLOPs: {_sum([cost.flops for _, cost in trained], trained)}")
    if timed:
        some = "" if len(timed) == len(costs) else f" for {len(timed)} of {len(costs)} runs; the rest is not known"
        lines.append(f"- {sum(timed) / 3600:,.2f} process hours on {', '.join(devices)} (committed records){some}")
    else:
        lines.append("- process hours: not known, as no committed record is of this scale")
    lines.append(f"- disk: {_disk(missing)}")
    lines.append(f"- {PAPERS_BILL}")
    return "\n".join(lines)


def _cost(run: PlannedRun, known: Known) -> Cost:
    found = known.of(run)
    devices = tuple(sorted({device(record) for record in found}))
    if not isinstance(run.spec, PretrainSpec) or not run.spec.images:
        return Cost(0, 0.0, 0.0, fmean(each.seconds for each in found) if found else None, devices)
    images = run.spec.images
    if not found:
        return Cost(images, None, _closed_form(run.spec), None, ())
    tokens = [each.lm_tokens / each.images_seen for each in found if each.lm_tokens is not None]
    return Cost(
        images,
        images * fmean(tokens) if tokens else None,
        images * fmean(each.train_flops / each.images_seen for each in found),
        images * fmean(each.seconds / each.images_seen for each in found),
        devices,
    )


def device(record: RunRecord) -> str:
    """What a run ran on, in words: the accelerator, or the processor and what it multiplies in."""
    env = record.env
    name = env.get("cpu", "an unknown processor") if env.get("device", "cpu") == "cpu" else env["device"]
    return f"{name}, {env['multiplies_in']}" if "multiplies_in" in env else name


def _rate(costs: Sequence[Cost]) -> float | None:
    """FLOP/s of pre-training over all runs with a counterpart."""
    both = [(cost.flops, cost.seconds) for cost in costs if cost.images and cost.flops and cost.seconds]
    return sum(flops for flops, _ in both) / sum(seconds for _, seconds in both) if both else None


def _timed(cost: Cost, rate: float | None) -> Cost:
    if cost.seconds is None and cost.flops and rate:
        return Cost(cost.images, cost.tokens, cost.flops, cost.flops / rate, cost.devices)
    return cost


def _sum(values: Sequence[float | None], trained: Sequence[tuple[PlannedRun, Cost]]) -> str:
    known = [value for value in values if value is not None]
    lost = sorted({run.spec.label for (run, _), value in zip(trained, values, strict=True) if value is None})
    said = f"{sum(known):.3g}" if known or not values else "not known"
    return f"{said}, without {len(lost)} runs such as {lost[0]}" if known and lost else said


def _closed_form(spec: PretrainSpec) -> float | None:
    """FLOPs of a pre-training with full rows; None for an objective without a formula."""
    assert spec.objective is not None and spec.data is not None
    vision, language = spec.model["vision"], spec.model["language"]
    sizes = Sizes(vision=vision, language=language, vocabulary=_vocabulary(spec))
    config = spec.objective.config
    work = _full_rows(spec.data, sizes, int(config.get("queries", sizes.patches)), spec.images_per_step)
    step = step_flops(spec.objective.name, config, sizes, work)
    return None if step is None else step / spec.images_per_step * spec.images


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
    """Embedding rows: the model's own, or those of the BPE that is trained for the run ("bpe-1024")."""
    assert spec.data is not None
    return int(spec.model["language"]["vocab_size"] or spec.data.tokenizer.removeprefix("bpe-"))


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
