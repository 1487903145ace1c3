"""Loss primitives shared by objectives and transfer tasks: pure functions that return sums and counts, never means.

Source: LCL paper Eq. 6 (contrast, with open_clip's half sum and normalised features) and Eq. 7 (generation).
Our choice: the trainer back-propagates `total`, which divides by the count over all ranks, so that a rank with few
images or tokens weighs no more than its share.

Shape letters: n selected rows (pairs, targets), b rows of text, t tokens, d width, v vocabulary.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from backbones.precision import at_least_fp32
from data.batch import Rows, TokenType
from objectives.diagnostics import agreement
from objectives.gather import all_reduce_sum, current_part, gather_rows, world_size

Logits = Callable[[Tensor], Tensor]

TEXT_TARGETS = frozenset({TokenType.TEXT, TokenType.EOS})  # the set every generative objective reports `text_nll` over


class Term(NamedTuple):
    """A loss on this rank: the sum over its items, in the graph, and how many there are. fp32 scalars."""

    sum: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody needs here

    def mean(self) -> Tensor:
        """This rank's mean, outside the graph; 0 where it has no items."""
        return (self.sum / self.count.clamp(min=1)).detach()


class Losses(NamedTuple):
    """What an objective returns: terms to optimise with their weights, and detached scalars to watch."""

    terms: dict[str, Term]
    weights: dict[str, float]
    watch: dict[str, Tensor]


def total(losses: Losses) -> Tensor:
    """The scalar to back-propagate: sum over terms of weight * W * sum / count over all ranks.

    With gradients averaged over W ranks this is the gradient of one process on all ranks' data. A term without items
    anywhere adds a zero that is still connected to the graph. Every rank must call it.
    Raises ValueError where terms and weights do not name the same things.
    """
    return weighted(losses, count_everywhere(losses, {name: term.count for name, term in losses.terms.items()}))


def count_everywhere(losses: Losses, counts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The items of each term on all ranks, from those of this one. Every rank must call it; raises as `total`."""
    found = _global(losses, [counts[name] for name in losses.terms])
    return dict(zip(losses.terms, found, strict=True))


def weighted(losses: Losses, counts: Mapping[str, Tensor]) -> Tensor:
    """`total` where the items of all ranks are counted already."""
    ranks = world_size()
    parts = [losses.weights[name] * ranks * term.sum / counts[name].clamp(min=1) for name, term in losses.terms.items()]
    return torch.stack(parts).sum()


def means(losses: Losses) -> dict[str, Tensor]:
    """Each term's mean over the items of all ranks, detached and unweighted: what to log. 0 where there are none."""
    terms = losses.terms.values()
    flat = _global(losses, [term.sum for term in terms] + [term.count for term in terms])
    sums, counts = flat.chunk(2)
    return dict(zip(losses.terms, sums / counts.clamp(min=1), strict=True))


def items(losses: Losses) -> dict[str, float]:
    """How many items each weighted term has on all ranks. Every rank must call it."""
    counts = _global(losses, [term.count for term in losses.terms.values()])
    return {name: float(count) for name, count in zip(losses.terms, counts, strict=True) if losses.weights[name]}


def info_nce(
    v: Float[Tensor, "n d"],
    t: Float[Tensor, "n d"],
    scale: Float[Tensor, ""],
    groups: Int[Tensor, " n"] | None = None,
    smoothing: float = 0.0,
) -> tuple[Term, dict[str, Tensor]]:
    """Symmetric contrast of n pairs on this rank with the pairs of all ranks as negatives; logits in fp32.

    v, t: features before normalisation. scale: s = 1 / temperature.
    groups: pairs of equal group are not negatives of each other, on any rank (caption hashes, document seeds).
    smoothing: share of each target that is spread over all pairs; without `groups` only, whose logits are -inf.
    The term sums (image-to-text + text-to-image) / 2; one pair in all gives 0. Watch: con_n (all ranks), scale, and of
    this rank con_acc (mean of both directions), con_bound (ln n minus the loss, a bound on mutual information in nats;
    n: what a row is contrasted with, itself included), alignment and uniformity.
    """
    part = current_part()
    if part is not None:
        found: tuple[Term, dict[str, Tensor]] = part.contrast(v, t, scale, groups, smoothing)
        return found
    with torch.autocast(v.device.type, enabled=False):
        v, t = (F.normalize(at_least_fp32(x), dim=-1) for x in (v, t))
        both, offset = gather_rows(torch.cat([v, t], dim=-1))
        all_v, all_t = both.split([v.shape[-1], t.shape[-1]], dim=-1)
        labels = offset + torch.arange(len(v), device=v.device)
        to_text, to_image = scale * v @ all_t.T, scale * t @ all_v.T  # own rows only: n on this rank x n on all
        contrasted = _count(len(all_v), v)
        if groups is not None:
            same = groups[:, None] == gather_rows(groups)[0][None, :]
            same = same & (labels[:, None] != torch.arange(len(all_v), device=v.device))
            to_text, to_image = (x.masked_fill(same, -math.inf) for x in (to_text, to_image))
            contrasted = len(all_v) - same.sum(dim=1).float()
        nll = _cross_entropy(to_text, labels) / 2 + _cross_entropy(to_image, labels) / 2
        loss = nll
        if smoothing:
            loss = _cross_entropy(to_text, labels, smoothing) / 2 + _cross_entropy(to_image, labels, smoothing) / 2
    term = Term(loss.sum(), _count(len(v), v))
    pairs = _count(len(all_v), v)
    watch = {"con_n": pairs, "scale": scale.detach().float()}
    if len(v):
        hits = [(logits.argmax(dim=1) == labels).float().mean() for logits in (to_text, to_image)]
        watch |= {
            "con_acc": (hits[0] + hits[1]) / 2,
            "con_bound": contrasted.log().mean() - nll.detach().mean(),
        } | agreement(v, t)
    return term, watch


class TokenLoss(NamedTuple):
    """What each target token costs, in reading order."""

    loss: Float[Tensor, " n"]  # what is trained on
    nll: Float[Tensor, " n"]  # cross-entropy: the same, where no target is smoothed
    kind: Int[Tensor, " n"]  # TokenType of the target

    def term(self) -> Term:
        """All targets."""
        return Term(self.loss.sum(), _count(len(self.loss), self.loss))

    def text_nll(self) -> Tensor:
        """Mean over this rank's TEXT and EOS targets, detached; comparable between objectives. 0 without any."""
        text = _of_type(self.kind, TEXT_TARGETS)
        return Term(self.nll[text].sum(), text.sum()).mean()


def target_mask(
    rows: Rows, targets: frozenset[TokenType], extra: Bool[Tensor, "b t"] | None = None
) -> Bool[Tensor, "b t"]:
    """True on each token that is predicted from the one before it: its type is in `targets`, and `extra` agrees."""
    chosen = _of_type(rows.token_type, targets) & rows.attn_mask
    if extra is not None:
        chosen = chosen & extra
    predicted = torch.zeros_like(chosen)
    predicted[:, 1:] = chosen[:, 1:] & rows.attn_mask[:, :-1]
    return predicted


def token_nll(
    hidden: Float[Tensor, "b t d"],
    rows: Rows,
    logits_fn: Logits,
    targets: frozenset[TokenType],
    extra: Bool[Tensor, "b t"] | None = None,
    smoothing: float = 0.0,
) -> TokenLoss:
    """Next-token cross-entropy of each target (Eq. 7): the state at q predicts token q+1.

    States are selected before the head, which therefore runs on targets only. extra: further restricts the targets,
    indexed by the target's own position. smoothing: share of each target that is spread over the vocabulary.
    """
    mask = target_mask(rows, targets, extra)
    before = mask.roll(-1, dims=1)  # column 0 of the mask is never True, so nothing wraps around
    logits, wanted = logits_fn(hidden[before]), rows.input_ids[mask].long()
    with torch.autocast(logits.device.type, enabled=False):
        nll = _cross_entropy(at_least_fp32(logits), wanted)
        loss = _cross_entropy(at_least_fp32(logits), wanted, smoothing) if smoothing else nll
    return TokenLoss(loss, nll, rows.token_type[mask])


def masked_token_loss(
    hidden: Float[Tensor, "*s d"], targets: Int[Tensor, "*s"], masked: Bool[Tensor, "*s"], logits_fn: Logits
) -> Term:
    """Masked prediction: the state at a masked position predicts the token or code that stood there."""
    logits = logits_fn(hidden[masked])
    with torch.autocast(logits.device.type, enabled=False):
        nll = _cross_entropy(at_least_fp32(logits), targets[masked].long())
    return Term(nll.sum(), _count(len(nll), nll))


def matching_loss(logits: Float[Tensor, "n 2"], matched: Bool[Tensor, " n"]) -> Term:
    """Two-way classification: class 1 is 'this image and this text belong together'."""
    with torch.autocast(logits.device.type, enabled=False):
        nll = _cross_entropy(at_least_fp32(logits), matched.long())
    return Term(nll.sum(), _count(len(nll), nll))


def regression_loss(prediction: Float[Tensor, "n d"], target: Float[Tensor, "n d"]) -> Term:
    """Squared error, mean over d and summed over n; a target that is not to learn comes detached."""
    with torch.autocast(prediction.device.type, enabled=False):
        error = (at_least_fp32(prediction) - at_least_fp32(target)).square().mean(dim=-1)
    return Term(error.sum(), _count(len(error), error))


def _cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    # Per item, never the built-in mean: that is NaN for no items, where a rank must return a connected zero.
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)


def _of_type(kind: Tensor, types: frozenset[TokenType]) -> Tensor:
    mask = torch.zeros_like(kind, dtype=torch.bool)
    for each in sorted(types):
        mask |= kind == int(each)
    return mask


def _count(items: int, like: Tensor) -> Tensor:
    return torch.tensor(float(items), device=like.device)


def _global(losses: Losses, scalars: list[Tensor]) -> Tensor:
    if losses.terms.keys() != losses.weights.keys():
        raise ValueError(
            f"terms {sorted(losses.terms)} and weights {sorted(losses.weights)} differ; "
            "an objective must weight each of its terms, also with 0"
        )
    return all_reduce_sum(torch.stack([at_least_fp32(scalar.detach()) for scalar in scalars]))
