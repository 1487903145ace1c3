"""The one training loop: pre-training, the captioning language model and every transfer head go through `fit`.

Linear warm-up and cosine (LCL paper 4.1, Tables 7-9) to zero (as mlfoundations/open_clip); experiments/running/optim.py
says which parameters train how. A step's random draws (drop-path, dropout) come from a stream named by (seed, step),
and the batches are a function of the step, so a run that was stopped and continued equals one that was not.

In a process group every rank calls `fit` with its share of the same stream. Rank 0 writes checkpoints of whole weights,
sharded or not, so a run goes on with any number of ranks; they stop, save and fail at the same step.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, cast

import torch
from torch import nn
from torch.optim import Optimizer

from data.block import block, blocks_needed
from data.seeds import stable_seed
from experiments.running import checkpoint
from experiments.running.distributed import gradients
from experiments.running.distributed.agree import everyone, is_writer, refuse_different
from experiments.running.empty_terms import TermItems
from experiments.running.optim import Group, optimizers
from experiments.running.outcome import Owned
from experiments.running.stopping import Stopped, between_steps
from objectives import parts
from objectives.functional import Losses, means, total
from objectives.gather import alone, rank
from results.record import write_atomic

logger = logging.getLogger(__name__)

Precision = Literal["bf16", "fp32"]


class Trainable(Protocol):
    """An objective or a transfer head."""

    def __call__(self, batch: Any) -> Losses:
        """Losses of a batch."""
        ...

    def after_step(self) -> None:
        """Called after every optimiser step."""
        ...


class Stream(Protocol):
    """Batches as a function of the step. `state()` is what `batches` needs to go on from where the iteration stands."""

    steps: int

    def batches(self, start: Any = 0) -> Iterator[Any]:
        """Batches from a step, or from a `state()`, to the end of the run."""
        ...

    def state(self) -> Any:
        """JSON values, or None where the step alone says where the run stands."""
        ...


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """The optimiser and schedule of a run; peak rates and weight decay come with the parameter groups."""

    warmup_steps: int
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-6
    clip_norm: float | None = None  # of the global gradient norm; None only logs it
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """How often a run writes: metrics by steps, checkpoints by seconds, rarer where one takes long to write."""

    log_every: int = 25
    checkpoint_seconds: float = 30.0  # between two of them at least
    checkpoint_share: float = 0.05  # of the time, at most: a language model's is gigabytes
    checkpoint_within: float = 1800.0  # seconds, however long one took
    at_end: bool = False  # one more after the last step: what follows takes long, and needs the weights


class NonFiniteLoss(RuntimeError):
    """A loss or gradient is NaN or infinite on some rank; nothing was updated at that step."""

    def __init__(self, said: str, batches: Sequence[Mapping[str, Any]]) -> None:
        """batches: of each rank its loss, terms, and documents."""
        super().__init__(said)
        self.batches = batches


Probe = Callable[[int], Mapping[str, float]]


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Rate of a step: linear to the peak over `warmup` steps, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def fit(
    module: nn.Module,
    stream: Stream,
    groups: Sequence[Group],
    optimisation: Optimisation,
    *,
    run: Owned,
    seed: int,
    cadence: Cadence = Cadence(),
    probe: Probe | None = None,
    micro_batch: int | None = None,
) -> dict[str, float]:
    """Train `module` on every batch of `stream`; the means of the last logged step.

    run: its folder holds checkpoint/ and metrics.jsonl; a run found there is continued. A loss that is not finite
    leaves non_finite.json there: step, terms and all documents of the batch, by rank. probe: called on every fifth of
    the run and at its end, its values join that step's metrics. micro_batch: documents of a rank that are computed at
    once, where all of them need too much memory; the gradients are those of the whole batch (objectives/parts.py).

    Raises Stopped when a signal asks for it (the step is finished and saved), NonFiniteLoss, EmptyTerm, LeaseLost where
    another process owns the run by now, OSError when a checkpoint or the metrics cannot be written.
    """
    trained = optimizers(groups, optimisation.betas, optimisation.eps)
    device = next(module.parameters()).device
    found = checkpoint.newest(run.folder / "checkpoint")
    refuse_different("the step to continue from", None if found is None else found.step, device)
    start, stream_state, items = 0, None, dict[str, float]()
    if found is not None:
        checkpoint.restore(found, module, trained)
        start, stream_state, items = found.step, found.state["stream"], found.state.get("items", {})
        logger.info("continuing %s from step %d of %d", run.folder.name, start, stream.steps)
    metrics = MetricsFile(run.folder / "metrics.jsonl", keep_below=start)
    last: dict[str, float] = dict(found.state["last"]) if found is not None else {}
    del found  # its tensors are files that would stay on the disk, dropped or not
    probe_steps = {max(0, round(stream.steps * fifth / 5) - 1) for fifth in range(1, 6)} if probe else set()
    module.train()
    terms = TermItems(start, stream.steps, items)
    saved_at, saving = time.monotonic(), 0.0
    with between_steps() as stop:
        for step, batch in enumerate(stream.batches(start if stream_state is None else stream_state), start):
            torch.manual_seed(stable_seed(seed, "step", step, *([rank()] if rank() else [])))
            for group in _groups(trained):
                group["lr"] = learning_rate(step, stream.steps, group["peak"], optimisation.warmup_steps)
            try:
                losses, norm = _step(module, batch, trained, optimisation, micro_batch, step)
            except NonFiniteLoss as error:
                if is_writer():
                    run.may_write()
                    dumped = json.dumps({"step": step, "ranks": error.batches}, indent=1)
                    write_atomic(run.folder / "non_finite.json", dumped + "\n")
                raise
            terms.see(losses)
            done = step + 1
            if step % cadence.log_every == 0 or done == stream.steps or step in probe_steps:
                last = _row(losses, norm, trained, module)
                if probe is not None and step in probe_steps:
                    with alone():  # every rank looks at the same held-out images
                        last |= probe(step)
                    module.train()
                if is_writer():
                    run.may_write()
                    metrics.append({"step": step, **last})
            if is_writer():
                run.progress.update(done, stream.steps, last)
            apart = max(cadence.checkpoint_seconds, min(saving / cadence.checkpoint_share, cadence.checkpoint_within))
            due = time.monotonic() - saved_at > apart if done < stream.steps else cadence.at_end
            heard = everyone([stop.by.name if stop.by else "", due], device)
            asked = [f"{name}{f' on rank {r}' * (len(heard) > 1)}" for r, (name, _) in enumerate(heard) if name]
            if asked or heard[0][1]:
                if is_writer():
                    run.may_write()
                state = {"stream": stream.state(), "last": last, "items": terms.found}
                began = time.monotonic()
                checkpoint.save(run.folder / "checkpoint", done, module, trained, state)
                saved_at = time.monotonic()
                saving = saved_at - began
                if asked:
                    others = f" and {len(asked) - 1} others" if len(asked) > 1 else ""
                    raise Stopped(f"stopped by {asked[0]}{others} after step {done} of {stream.steps}")
    return last


def _step(
    module: nn.Module,
    batch: Any,
    trained: Sequence[Optimizer],
    optimisation: Optimisation,
    micro_batch: int | None,
    step: int,
) -> tuple[Losses, float]:
    for optimizer in trained:
        optimizer.zero_grad(set_to_none=True)
    losses, loss = _backward(module, batch, optimisation.precision, micro_batch)
    clip = math.inf if optimisation.clip_norm is None else optimisation.clip_norm
    parameters = [p for group in _groups(trained) for p in group["params"]]
    gradients.average(parameters)
    norm = float(gradients.clip(parameters, clip))
    finite = everyone(math.isfinite(norm) and math.isfinite(loss.item()), loss.device)
    if not all(finite):
        _refuse(losses, loss.item(), norm, batch, step)
    for optimizer in trained:
        optimizer.step()
    cast(Trainable, module).after_step()
    return losses, norm


def _backward(
    module: nn.Module, batch: Any, precision: Precision, micro_batch: int | None
) -> tuple[Losses, torch.Tensor]:
    device = next(module.parameters()).device

    def forward(part: Any) -> Losses:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            found: Losses = module(part.to(str(device)))
        return found

    if micro_batch is None:
        losses = forward(batch)
        loss = total(losses)
        loss.backward()
        return losses, loss
    # As many on every rank, some of them empty: where weights are sharded, all ranks gather them for each part.
    count = max(everyone(blocks_needed(batch, micro_batch), device))
    losses = parts.backward(count, lambda part: forward(block(batch, part, count)))
    return losses, total(losses)


def _refuse(losses: Losses, loss: float, norm: float, batch: Any, step: int) -> NoReturn:
    """Raises NonFiniteLoss on every rank, with what each of them held."""
    found = {name: value.item() for name, value in means(losses).items()}
    own = {name: term.mean().item() for name, term in losses.terms.items()}
    documents = list(getattr(batch, "doc_uid", ()))
    held = everyone({"loss": loss, "terms": own, "documents": documents}, next(iter(losses.terms.values())).sum.device)
    terms = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    first = ", ".join([uid for each in held for uid in each["documents"]][:4])
    where = [str(r) for r, each in enumerate(held) if not math.isfinite(each["loss"])]
    of = f" on rank {' and '.join(where)}" if where and len(held) > 1 else ""
    raise NonFiniteLoss(
        f"step {step}: loss {loss}{of}, gradient norm {norm} ({terms}); first documents: {first}; "
        "all of them are in non_finite.json",
        held,
    )


def _row(losses: Losses, norm: float, trained: Sequence[Optimizer], module: nn.Module) -> dict[str, float]:
    """What a logged step writes down; gradients still hold this step's values, after clipping."""
    row = {name: float(value) for name, value in means(losses).items()}
    row |= {name: float(value) for name, value in losses.watch.items()}
    row |= {"grad_norm": norm, "lr": _groups(trained)[0]["lr"]}
    vision = getattr(module, "vision", None)
    if isinstance(vision, nn.Module):
        row["grad_norm_vision"] = float(gradients.norm(vision.parameters()))
    return row


def _groups(trained: Sequence[Optimizer]) -> list[dict[str, Any]]:
    return [group for optimizer in trained for group in optimizer.param_groups]


class MetricsFile:
    """metrics.jsonl: one JSON object a logged step. Rows from `keep_below` on are dropped, as that step runs again."""

    def __init__(self, path: Path, keep_below: int) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        # Written atomically: a kill in between must not lose the rows of steps that will not run again.
        write_atomic(path, "".join(f"{line}\n" for line in _before(lines, keep_below)))

    def append(self, row: Mapping[str, float | int]) -> None:
        """Add a row at once, so that a killed run keeps it."""
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _before(lines: Sequence[str], step: int) -> Iterator[str]:
    """The rows of earlier steps, up to the first that a kill cut short."""
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            return
        if row["step"] < step:
            yield line
