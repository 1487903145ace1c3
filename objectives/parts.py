"""A rank's batch in parts, one after the other, with the gradients of the whole: for batches that memory does not hold.

Source: GradCache (Gao et al. 2021). An objective sees a part as if it were a rank: `gather_rows` gives it the rows of
all parts of all ranks, and `info_nce` contrasts with all of them. Two passes make that so.

1. Without a graph, all parts side by side, each waiting for the others where it gathers. Counts of terms, gathered rows
   and contrasted features are kept; these are small.
2. Each contrast is computed once, for all rows of this rank, down to the gradient at its features. Then part after part
   runs again with its graph, is given the rows gathered before, and pulls its features along their gradient.

This is exact because a contrast is the one way in which the features of a part enter the loss of another. What else is
gathered (draws of negatives, captions) carries no gradient, and is refused where it does.
"""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from backbones.precision import at_least_fp32
from data.seeds import stable_seed
from objectives.functional import Losses, Term, count_everywhere, info_nce, weighted
from objectives.gather import Part, gather_rows, in_part

Forward = Callable[[int], Losses]  # the objective on a part, by its number


def backward(parts: int, forward: Forward) -> Losses:
    """Losses of all parts together; their gradients are added to the parameters'.

    forward: called twice for each part, with equal random draws. Watch: of the contrasts, and of part 0 what is not
    theirs. Every rank must call it, with any number of parts.

    Raises ValueError where an objective gathers rows with gradients otherwise than by `info_nce`.
    """
    seeds = [stable_seed("part", torch.initial_seed(), part) for part in range(parts)]
    runs = [_Run(part, seed, forward) for part, seed in enumerate(seeds)]
    gathered = _side_by_side(runs)
    contrasts = [_Contrast(calls) for calls in zip(*(run.contrasts for run in runs), strict=True)]
    counts = {name: torch.stack([run.losses.terms[name].count for run in runs]).sum() for name in runs[0].losses.terms}
    everywhere = count_everywhere(runs[0].losses, counts)
    sums, watch = dict.fromkeys(counts, torch.zeros(())), dict[str, Tensor]()
    for part, seed in enumerate(seeds):
        torch.manual_seed(seed)
        with in_part(_Again(part, gathered, contrasts)):
            losses = forward(part)
        weighted(losses, everywhere).backward()
        sums = {name: term.sum.detach() + sums[name].to(term.sum.device) for name, term in losses.terms.items()}
        watch = watch or losses.watch
    return Losses({name: Term(sums[name], counts[name]) for name in sums}, losses.weights, watch)


class _Call(NamedTuple):
    """What a part gave to `info_nce`."""

    v: Tensor
    t: Tensor
    scale: Tensor
    groups: Tensor | None
    smoothing: float


class _Gathered(NamedTuple):
    """Rows of all parts of all ranks, and where those of each part of this rank begin."""

    rows: Tensor
    begins: Sequence[int]


class _Run(Part):
    """A part in the first pass: a thread of its own, as it stops in the middle of the objective where it gathers.

    One of them runs at a time. Each has its own random draws, whoever runs in between.
    """

    losses: Losses

    def __init__(self, part: int, seed: int, forward: Forward) -> None:
        self.contrasts: list[_Call] = []
        self._forward, self._part = forward, part
        self._given = queue.SimpleQueue[tuple[Tensor, int]]()
        self._said = queue.SimpleQueue[Tensor | Losses | BaseException]()
        self._draws = _draws_of(seed)
        self._thread = threading.Thread(target=self._run, args=(_device(),), daemon=True)

    def go_on(self, given: tuple[Tensor, int] | None) -> Tensor | Losses:
        """The next rows it gathers, or its losses. given: what came of the rows before; None begins."""
        outside = _state()
        _set_state(self._draws)
        if given is None:
            self._thread.start()
        else:
            self._given.put(given)
        said = self._said.get()
        self._draws = _state()
        _set_state(outside)
        if isinstance(said, BaseException):
            raise said
        return said

    def _run(self, device: int) -> None:
        try:
            with torch.cuda.device(device), torch.no_grad(), in_part(self):
                self._said.put(self._forward(self._part))
        except BaseException as error:
            self._said.put(error)

    def gather(self, x: Tensor) -> tuple[Tensor, int]:
        """Waits for the other parts."""
        self._said.put(x)
        return self._given.get()

    def contrast(
        self, v: Tensor, t: Tensor, scale: Tensor, groups: Tensor | None, smoothing: float
    ) -> tuple[Term, dict[str, Tensor]]:
        """Nothing of the loss is needed to go on."""
        self.contrasts.append(_Call(v, t, scale, groups, smoothing))
        return Term(at_least_fp32(v).sum() * 0, torch.tensor(float(len(v)), device=v.device)), {}


def _side_by_side(runs: Sequence[_Run]) -> list[_Gathered]:
    """Run all parts to their end; what they gathered, in order."""
    gathered: list[_Gathered] = []
    given: list[tuple[Tensor, int]] | list[None] = [None] * len(runs)
    while True:
        said = [run.go_on(each) for run, each in zip(runs, given, strict=True)]
        ended = [each for each in said if isinstance(each, Losses)]
        rows = [each for each in said if not isinstance(each, Losses)]
        if ended and rows:
            raise ValueError(f"of {len(runs)} parts {len(ended)} gather less often than the others; they must agree")
        if ended:
            for run, losses in zip(runs, ended, strict=True):
                run.losses = losses
            return gathered
        everyone, first = gather_rows(torch.cat(rows))
        begins = [first + sum(map(len, rows[:part])) for part in range(len(rows))]
        gathered.append(_Gathered(everyone, begins))
        given = [(everyone, begin) for begin in begins]


class _Contrast:
    """A contrast of all rows of this rank: its loss, and the gradient at the features of each part."""

    def __init__(self, calls: Sequence[_Call]) -> None:
        v, t = (torch.cat(each).requires_grad_() for each in zip(*((call.v, call.t) for call in calls), strict=True))
        scale = calls[0].scale.detach().requires_grad_()
        groups = None if calls[0].groups is None else torch.cat([call.groups for call in calls])  # type: ignore[misc]
        with torch.enable_grad():
            term, self.watch = info_nce(v, t, scale, groups, calls[0].smoothing)
            at_v, at_t, self._at_scale = torch.autograd.grad(term.sum, (v, t, scale))
        sizes = [len(call.v) for call in calls]
        self._value, self._at = term.sum.detach(), list(zip(at_v.split(sizes), at_t.split(sizes), strict=True))

    def of(self, part: int, v: Tensor, t: Tensor, scale: Tensor) -> Term:
        """A part's share: the gradient of the whole contrast at its features. Its value is counted in part 0."""
        at_v, at_t = self._at[part]
        pull = (at_least_fp32(v) * at_least_fp32(at_v)).sum() + (at_least_fp32(t) * at_least_fp32(at_t)).sum()
        if part == 0:
            pull = pull + scale * self._at_scale
        value = self._value if part == 0 else torch.zeros_like(self._value)
        return Term(pull - pull.detach() + value, torch.tensor(float(len(v)), device=v.device))


class _Again(Part):
    """A part in the second pass."""

    def __init__(self, part: int, gathered: Sequence[_Gathered], contrasts: Sequence[_Contrast]) -> None:
        self._part, self._gathered, self._contrasts = part, iter(gathered), iter(contrasts)

    def gather(self, x: Tensor) -> tuple[Tensor, int]:
        """As in the first pass."""
        if x.requires_grad:
            raise ValueError(
                "features are gathered with gradients outside `info_nce`, which parts of a batch cannot share; leave "
                "out pretrain.micro_batch for this objective, or take its contrast from objectives/functional.py"
            )
        rows, begins = next(self._gathered)
        return rows, begins[self._part]

    def contrast(
        self, v: Tensor, t: Tensor, scale: Tensor, groups: Tensor | None, smoothing: float
    ) -> tuple[Term, dict[str, Tensor]]:
        """The share of this part."""
        contrast = next(self._contrasts)
        return contrast.of(self._part, v, t, scale), contrast.watch


def _device() -> int:
    return torch.cuda.current_device() if torch.cuda.is_available() else -1  # a thread begins with another


def _state() -> tuple[Tensor, ...]:
    return (torch.get_rng_state(), *([torch.cuda.get_rng_state()] if torch.cuda.is_available() else []))


def _set_state(state: tuple[Tensor, ...]) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1])


def _draws_of(seed: int) -> tuple[Tensor, ...]:
    outside = _state()
    torch.manual_seed(seed)
    found = _state()
    _set_state(outside)
    return found
