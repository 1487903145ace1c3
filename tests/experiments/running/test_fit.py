"""The training loop and its checkpoints: whatever stops a run, continuing it gives what an uninterrupted one gives."""

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from data.seeds import generator, torch_generator
from experiments.running import checkpoint
from experiments.running.fit import (
    Cadence,
    NonFiniteLoss,
    Optimisation,
    fit,
    learning_rate,
)
from experiments.running.optim import parameter_groups
from experiments.running.outcome import Owned
from experiments.running.progress import Progress
from experiments.running.stopping import SIGNALS, Stopped
from objectives.functional import Losses, Term

STEPS = 20
EVERY_STEP = Cadence(log_every=1, checkpoint_seconds=0.0, checkpoint_share=math.inf)
PLAN = Optimisation(warmup_steps=3, clip_norm=1.0)


@dataclass(frozen=True)
class Points:
    """Four inputs and what they map to."""

    x: Tensor
    y: Tensor
    doc_uid: tuple[str, ...]

    def to(self, device: str) -> "Points":
        return self


class Numbered:
    """A stream whose position is the step."""

    steps = STEPS

    def __init__(self, before: Callable[[int], None] = lambda step: None) -> None:
        self.before = before  # called when a step's batch is asked for

    def state(self) -> None:
        return None

    def batches(self, start: int = 0) -> Iterator[Points]:
        for step in range(start, self.steps):
            self.before(step)
            yield self.batch(step)

    def batch(self, step: int) -> Points:
        draws = torch_generator("points", step)
        x = torch.randn(4, 3, generator=draws)
        return Points(x, x.sum(dim=1), tuple(f"doc-{step}-{i}" for i in range(4)))


class Counted(Numbered):
    """A stream with a position of its own, as the loader of pre-training has."""

    at = 0

    def state(self) -> dict[str, int]:
        return {"at": self.at}

    def batches(self, start: int | dict[str, int] = 0) -> Iterator[Points]:
        self.at = start if isinstance(start, int) else start["at"]
        while self.at < self.steps:
            self.before(self.at)
            self.at += 1
            yield self.batch(self.at - 1)


class Small(nn.Module):
    """Two layers with dropout between them, and a scalar that is bounded after every step."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            self.vision = nn.Linear(3, 8)
            self.drop = nn.Dropout(0.5)
            self.out = nn.Linear(8, 1)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.unused = nn.Parameter(torch.ones(2, 2))  # never in the graph: no gradient, no moments
        self.register_buffer("steps_done", torch.tensor(0))

    def forward(self, batch: Points) -> Losses:
        error = self.scale * self.out(self.drop(self.vision(batch.x).tanh()))[:, 0] - batch.y
        return Losses(
            {"error": Term(error.square().sum(), torch.tensor(4.0))}, {"error": 1.0}, {"worst": error.detach().max()}
        )

    def after_step(self) -> None:
        self.steps_done += 1
        self.scale.data.clamp_(max=1.01)


def train(
    folder: Path, stream: Numbered | None = None, module: nn.Module | None = None, cadence: Cadence = EVERY_STEP
) -> nn.Module:
    """Train, or go on training, in a folder; a fresh module, as a process that starts again would make."""
    folder.mkdir(parents=True, exist_ok=True)
    module = module or Small()
    groups = parameter_groups(module, lr=0.05, weight_decay=0.1, matrices="muon")
    fit(module, stream or Numbered(), groups, PLAN, run=owned(folder), seed=3, cadence=cadence)
    return module


def owned(folder: Path) -> Owned:
    return Owned(folder, Progress(folder, "test"), may_write=lambda: None)


def stopped_at(step: int, number: signal.Signals = signal.SIGTERM) -> Callable[[int], None]:
    """Sends this process the signal when that step's batch is asked for: it arrives in the middle of the step."""

    def ask(at: int) -> None:
        if at == step:
            signal.raise_signal(number)

    return ask


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the loop may catch it or clean up after it."""


def killed_at(step: int) -> Callable[[int], None]:
    def kill(at: int) -> None:
        if at == step:
            raise Killed

    return kill


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, bytes]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    return train(folder), (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("kind", [Numbered, Counted])
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("step", [0, 1, 7, STEPS - 2])
def test_a_stopped_run_goes_on_as_if_it_had_not_been(
    tmp_path: Path, uninterrupted: tuple[nn.Module, bytes], kind: type[Numbered], number: signal.Signals, step: int
) -> None:
    with pytest.raises(Stopped, match=f"step {step + 1} of {STEPS}"):
        train(tmp_path, kind(stopped_at(step, number)), cadence=Cadence(log_every=1))
    torch.manual_seed(99)  # a new process has drawn other numbers
    module = train(tmp_path, kind(), cadence=Cadence(log_every=1))
    assert same(module, uninterrupted[0])
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted[1]


def test_a_stop_during_the_last_step_is_obeyed_too(tmp_path: Path, uninterrupted: tuple[nn.Module, bytes]) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, Counted(stopped_at(STEPS - 1)))
    assert same(train(tmp_path, Counted()), uninterrupted[0])
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted[1]


def test_stopping_many_times_changes_nothing(tmp_path: Path, uninterrupted: tuple[nn.Module, bytes]) -> None:
    for step in (0, 1, 2, 3, 11):
        with pytest.raises(Stopped):
            train(tmp_path, Numbered(stopped_at(step)))
    assert same(train(tmp_path), uninterrupted[0])
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted[1]


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path: Path, uninterrupted: tuple[nn.Module, bytes]) -> None:
    rarely = Cadence(log_every=1, checkpoint_seconds=math.inf)
    with pytest.raises(Stopped):
        train(tmp_path, Numbered(stopped_at(5)), cadence=rarely)
    with pytest.raises(Killed):
        train(tmp_path, Numbered(killed_at(11)), cadence=rarely)
    rows = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows == list(range(11))  # steps 6 to 10 are in the file and not in the checkpoint
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "err')  # and the kill cut a line
    seen: list[int] = []
    assert same(train(tmp_path, Numbered(seen.append)), uninterrupted[0])
    assert seen[0] == 6
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted[1]


def test_a_last_checkpoint_is_kept_where_something_follows(tmp_path: Path) -> None:
    seen: list[int] = []
    first = train(tmp_path, Numbered(), cadence=Cadence(at_end=True))
    again = train(tmp_path, Numbered(seen.append), cadence=Cadence(at_end=True))
    assert checkpoint.newest_step(tmp_path / "checkpoint") == STEPS and not seen and same(first, again)


def test_a_checkpoint_that_takes_long_is_written_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, saved = [0.0], list[int]()

    def save(folder: Path, step: int, *given: object) -> None:
        saved.append(step)
        clock[0] += 4.0  # seconds that a checkpoint takes, four steps

    monkeypatch.setattr("experiments.running.fit.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(checkpoint, "save", save)

    def passes(step: int) -> None:
        clock[0] += 1.0

    train(tmp_path, Numbered(passes), cadence=Cadence(checkpoint_seconds=2.0, checkpoint_share=0.5))
    assert saved == [3, 12]  # after more than 2 seconds, and then after more than 4 / 0.5
    clock[0], saved[:] = 0.0, []
    limits = {"checkpoint_seconds": 2.0, "checkpoint_within": 5.0}
    train(tmp_path, Numbered(passes), cadence=Cadence(checkpoint_share=0.01, **limits))
    assert saved == [3, 9, 15]  # after more than 5 seconds, however long one takes


def test_without_a_checkpoint_a_killed_run_starts_again(tmp_path: Path, uninterrupted: tuple[nn.Module, bytes]) -> None:
    with pytest.raises(Killed):
        train(tmp_path, Numbered(killed_at(4)), cadence=Cadence(log_every=1))
    assert same(train(tmp_path), uninterrupted[0])
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted[1]


def test_other_random_draws_would_be_noticed(tmp_path: Path, uninterrupted: tuple[nn.Module, bytes]) -> None:
    module = Small()
    groups = parameter_groups(module, lr=0.05, weight_decay=0.1, matrices="muon")
    fit(module, Numbered(), groups, PLAN, run=owned(tmp_path), seed=4)
    assert not same(module, uninterrupted[0])  # only dropout depends on the seed here


def test_handlers_are_given_back(tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    train(tmp_path)
    assert [signal.getsignal(number) for number in SIGNALS] == before


# ---- checkpoints on disk


def two_checkpoints(folder: Path) -> Path:
    """Checkpoints of steps 8 and 9; their folder."""
    with pytest.raises(Stopped):
        train(folder, Numbered(stopped_at(8)))
    assert sorted(path.name for path in (folder / "checkpoint").iterdir()) == ["step-000000008", "step-000000009"]
    return folder / "checkpoint"


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


BROKEN: dict[str, Callable[[Path], object]] = {
    "a cut tensor file": lambda path: cut(path / "tensors.safetensors"),
    "an empty tensor file": lambda path: (path / "tensors.safetensors").write_bytes(b""),
    "no tensor file": lambda path: (path / "tensors.safetensors").unlink(),
    "a cut state": lambda path: cut(path / "state.json"),
    "a state that is a number": lambda path: (path / "state.json").write_text("3"),
    "a state that is a list": lambda path: (path / "state.json").write_text("[]"),
    "a state without its step": lambda path: (path / "state.json").write_text('{"last": {}}'),
    "a state that is not text": lambda path: (path / "state.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_checkpoint_is_passed_over_for_an_older_one(
    tmp_path: Path, uninterrupted: tuple[nn.Module, bytes], how: str
) -> None:
    checkpoints = two_checkpoints(tmp_path)
    BROKEN[how](checkpoints / "step-000000009")
    found = checkpoint.newest(checkpoints)
    assert found is not None and found.step == 8
    assert same(train(tmp_path), uninterrupted[0])
    assert (tmp_path / "metrics.jsonl").read_bytes() == uninterrupted[1]


def test_what_lies_beside_a_checkpoint_is_ignored_and_removed(tmp_path: Path) -> None:
    checkpoints = two_checkpoints(tmp_path)
    partial = checkpoints / ".step-000000012.partial"
    shutil.copytree(checkpoints / "step-000000009", partial)  # complete, but never given its name
    (checkpoints / "notes.txt").write_text("not ours")
    for name in ("step-best", "step-", "tmp", "step-000000099"):  # of which none is a checkpoint
        (checkpoints / name).mkdir()
    found = checkpoint.newest(checkpoints)
    assert found is not None and found.step == 9
    with pytest.raises(Stopped):
        train(tmp_path, Numbered(stopped_at(13)))
    assert sorted(path.name for path in checkpoints.glob("*step*")) == ["step-000000013", "step-000000014"]
    assert not partial.exists()


def test_a_checkpoint_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, Numbered(stopped_at(4)))
    other = Small()
    other.out = nn.Linear(8, 2)
    other.extra = nn.Linear(1, 1)
    with pytest.raises(ValueError, match=r"step 5 does not fit the model: extra\.bias, extra\.weight, out\.bias"):
        train(tmp_path, module=other)


def test_a_pickle_in_the_place_of_tensors_is_not_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
            return (Path(tmp_path / "ran").write_text, ("ran",))  # type: ignore[return-value]

    checkpoints = two_checkpoints(tmp_path)
    torch.save(Payload(), checkpoints / "step-000000009" / "tensors.safetensors")
    found = checkpoint.newest(checkpoints)
    assert found is not None and found.step == 8
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space left (28)")]
)
def test_a_full_disk_keeps_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: tuple[nn.Module, bytes], error: Exception
) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, Numbered(stopped_at(4)))

    def full(tensors: dict[str, Tensor], path: Path) -> None:
        Path(path).write_bytes(b"half")
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        with pytest.raises(OSError, match="No space left"):
            train(tmp_path)
    kept = sorted(path.name for path in (tmp_path / "checkpoint").iterdir())
    assert kept == ["step-000000004", "step-000000005"]  # and no part that fills the disk
    assert same(train(tmp_path), uninterrupted[0])


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB, which can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)  # a failed test may still hold its files


class Wide(Small):
    """With checkpoints of a MiB: the small disk holds three of them."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("ballast", torch.arange(2**18, dtype=torch.float32))


def test_on_a_disk_that_is_really_full_the_run_says_so_and_goes_on_where_it_was_saved(
    small_disk: Path, tmp_path: Path
) -> None:
    expected = train(tmp_path / "roomy", module=Wide())
    folder = small_disk / "run"
    with pytest.raises(Stopped):
        train(folder, Numbered(stopped_at(4)), module=Wide())
    saved = {path: path.read_bytes() for path in folder.glob("checkpoint/*/*")}
    assert {path.parent.name for path in saved} == {"step-000000004", "step-000000005"}
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 2**19))
    with pytest.raises(OSError, match=r"the checkpoint of step 6 cannot be written to .*No space left on device"):
        train(folder, module=Wide())
    assert saved == {path: path.read_bytes() for path in folder.glob("checkpoint/**/*") if path.is_file()}
    filler.unlink()
    assert same(train(folder, module=Wide()), expected)


@pytest.mark.slow
def test_killed_at_any_moment_of_a_write_the_newest_valid_checkpoint_loads(tmp_path: Path) -> None:
    module = nn.Linear(300, 300)

    def write_for_ever(folder: Path) -> None:
        for step in range(1, 10**6):
            nn.init.constant_(module.weight, step)
            checkpoint.save(folder, step, module, [torch.optim.AdamW(module.parameters())], {})
            (folder.parent / f"{folder.name}.step").write_text(str(step))

    moments = generator("kill").uniform(0.05, 0.25, 30)
    for trial, moment in enumerate(moments):
        folder = tmp_path / str(trial)
        child = os.fork()
        if child == 0:
            write_for_ever(folder)
        said = tmp_path / f"{trial}.step"
        while not said.exists():
            time.sleep(0.001)
        time.sleep(moment)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found, last = checkpoint.newest(folder), int(said.read_text() or 0)  # 0: killed while saying it
        assert found is not None and found.step >= last
        assert found.tensors["model.weight"].unique().tolist() == [float(found.step)]


# ---- what stops a run


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_optimiser_moves(tmp_path: Path, value: float) -> None:
    class Poisoned(Numbered):
        def batch(self, step: int) -> Points:
            points = super().batch(step)
            return Points(points.x, torch.full((4,), value), points.doc_uid) if step == 6 else points

    module = Small()
    with pytest.raises(NonFiniteLoss, match=r"step 6: loss (nan|inf).*error.*doc-6-0, doc-6-1"):
        train(tmp_path, Poisoned(), module)
    healthy = Small()
    with pytest.raises(Stopped):
        train(tmp_path / "healthy", Numbered(stopped_at(5)), healthy)
    assert same(module, healthy)


def test_a_gradient_that_is_not_finite_stops_too(tmp_path: Path) -> None:
    class Steep(Small):
        def forward(self, batch: Points) -> Losses:
            losses = super().forward(batch)
            zero = (self.scale * 0).abs().sqrt()  # 0, with an infinite slope
            term = losses.terms["error"]
            return losses._replace(terms={"error": Term(term.sum + zero, term.count)})

    module = Steep()
    with pytest.raises(NonFiniteLoss, match="gradient norm nan"):
        train(tmp_path, module=module)
    assert same(module, Steep())


# ---- schedule


def test_the_rate_rises_to_the_peak_and_falls_to_zero() -> None:
    rates = [learning_rate(step, 100, 0.1, warmup=10) for step in range(100)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[9] == rates[10] == 0.1  # the last step of the warm-up and the first of the cosine
    assert rates[55] == pytest.approx(0.05)  # half way down
    assert rates[99] == pytest.approx(0.1 * 0.5 * (1 - math.cos(math.pi / 90)))
    assert learning_rate(100, 100, 0.1, warmup=10) == pytest.approx(0)
    assert all(a <= b for a, b in zip(rates[:10], rates[1:10], strict=False))
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


@pytest.mark.parametrize("warmup", [0, 5])
def test_the_rate_of_a_run_that_is_only_warm_up_or_has_none(warmup: int) -> None:
    rates = [learning_rate(step, 5, 1.0, warmup) for step in range(5)]
    assert max(rates) == 1.0 and all(0 < rate <= 1 for rate in rates)


def test_the_metrics_hold_the_rate_of_their_step(tmp_path: Path) -> None:
    train(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert [row["lr"] for row in rows] == [learning_rate(step, STEPS, 0.05, 3) for step in range(STEPS)]
    assert all({"error", "worst", "grad_norm", "grad_norm_vision"} <= row.keys() for row in rows)
