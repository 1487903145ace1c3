"""Greedy and beam search for a language model that reads a prefix of embeddings and then its own tokens.

Our choice, as the paper is silent: 5 beams, 30 new tokens, length penalty 1.0, no minimum, no repetition penalty, stop
at EOS. A hypothesis scores its log-probability divided by its length (EOS included) to the power of the penalty.
All prefixes of a call are equally long, so nothing is padded and a row's result does not depend on its neighbours.
Every step runs the model on the whole sequence (no cache of keys and values): the models here are small, sequences
short, and rows that have ended leave the batch.

Shape letters: b rows, p prefix positions, l tokens so far, d width, v vocabulary, k beams.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from backbones import masks
from backbones.lm import Decoder


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How captions are generated; part of every result record."""

    beams: int = 5  # 1: greedy
    max_tokens: int = 30  # EOS included
    length_penalty: float = 1.0

    def __post_init__(self) -> None:
        if self.beams < 1 or self.max_tokens < 1:
            raise ValueError(f"beams and max_tokens are at least 1, got {self.beams} and {self.max_tokens}")


@torch.no_grad()
def generate(
    language: Decoder,
    prefix: Float[Tensor, "b p d"],
    eos: int,
    never: Collection[int],
    decoding: Decoding,
) -> list[list[int]]:
    """Ids that follow each prefix, without EOS; at most `max_tokens` (then without an end).

    never: ids that are not generated. With one beam this is greedy search.
    """
    banned = torch.tensor(sorted(set(never) - {eos}), dtype=torch.int64, device=prefix.device)
    if not len(prefix):
        return []
    if decoding.beams == 1:
        return _greedy(language, prefix, eos, banned, decoding.max_tokens)
    return beam_search(language, prefix, eos, banned, decoding)


def _greedy(
    language: Decoder, prefix: Float[Tensor, "b p d"], eos: int, banned: Int[Tensor, " n"], max_tokens: int
) -> list[list[int]]:
    result: list[list[int]] = [[] for _ in range(len(prefix))]
    active = torch.arange(len(prefix), device=prefix.device)
    ids = torch.zeros(len(prefix), 0, dtype=torch.int64, device=prefix.device)
    for _ in range(max_tokens):
        token = _log_probabilities(language, prefix, ids, banned).argmax(dim=1)
        for row, value in zip(active.tolist(), token.tolist(), strict=True):
            if value != eos:
                result[row].append(value)
        go_on = token != eos
        if not go_on.any():
            break
        prefix, active = prefix[go_on], active[go_on]
        ids = torch.cat([ids, token[:, None]], dim=1)[go_on]
    return result


def beam_search(
    language: Decoder,
    prefix: Float[Tensor, "b p d"],
    eos: int,
    banned: Int[Tensor, " n"],
    decoding: Decoding,
) -> list[list[int]]:
    """The best of `beams` hypotheses for each prefix.

    A row stops when it holds `beams` ended hypotheses and no live one scores better than the worst of them now. An
    ended hypothesis counts only if it was among the best `beams` candidates of its step. Hypotheses that are still
    live after `max_tokens` compete with their current score.
    """
    k, length_penalty = decoding.beams, decoding.length_penalty
    result: list[list[int]] = [[] for _ in range(len(prefix))]
    device = prefix.device
    active = torch.arange(len(prefix), device=device)
    ids = torch.zeros(len(prefix), k, 0, dtype=torch.int64, device=device)
    live = torch.full((len(prefix), k), -torch.inf, device=device)
    live[:, 0] = 0.0  # all beams start equal: only one may branch
    ended: list[list[tuple[float, list[int]]]] = [[] for _ in range(len(prefix))]
    for length in range(1, decoding.max_tokens + 1):
        rows = len(active)
        logp = _log_probabilities(language, prefix.repeat_interleave(k, dim=0), ids.flatten(0, 1), banned)
        vocabulary = logp.shape[1]
        if vocabulary < 2 * k:
            raise ValueError(f"{k} beams need a vocabulary of at least {2 * k} tokens, got {vocabulary}")
        # 2k candidates: at most k of them end (one for each beam), so k live ones remain.
        score, flat = (live[:, :, None] + logp.view(rows, k, -1)).flatten(1).topk(2 * k, dim=1)
        beam, token = flat // vocabulary, flat % vocabulary
        ends = token == eos
        for row, rank in ends[:, :k].nonzero().tolist():
            if score[row, rank] > -torch.inf:
                hypothesis = ids[row, int(beam[row, rank])].tolist()
                _keep(ended[int(active[row])], float(score[row, rank]) / length**length_penalty, hypothesis, k)
        live, chosen = score.masked_fill(ends, -torch.inf).topk(k, dim=1)
        parents, token = beam.gather(1, chosen), token.gather(1, chosen)
        history = ids.gather(1, parents[:, :, None].expand(-1, -1, ids.shape[2]))
        ids = torch.cat([history, token[:, :, None]], dim=2)
        best = (live[:, 0] / length**length_penalty).tolist()
        open_rows = [
            row for row, where in enumerate(active.tolist()) if len(ended[where]) < k or ended[where][-1][0] < best[row]
        ]
        if len(open_rows) < rows:
            keep = torch.tensor(open_rows, dtype=torch.int64, device=device)
            prefix, ids, live, active = prefix[keep], ids[keep], live[keep], active[keep]
        if not open_rows:
            break
    for row, where in enumerate(active.tolist()):
        for value, hypothesis in zip(live[row].tolist(), ids[row].tolist(), strict=True):
            _keep(ended[where], value / decoding.max_tokens**length_penalty, hypothesis, k)
    for where, hypotheses in enumerate(ended):
        result[where] = hypotheses[0][1]
    return result


def _keep(hypotheses: list[tuple[float, list[int]]], score: float, ids: list[int], most: int) -> None:
    """Insert into a list sorted by falling score, of at most `most`; the earlier of two equal ones stays first."""
    hypotheses.append((score, ids))
    hypotheses.sort(key=lambda each: -each[0])
    del hypotheses[most:]


def _log_probabilities(
    language: Decoder, prefix: Float[Tensor, "b p d"], ids: Int[Tensor, "b l"], banned: Int[Tensor, " n"]
) -> Float[Tensor, "b v"]:
    x = torch.cat([prefix, language.embed(ids).to(prefix.dtype)], dim=1)
    valid = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    positions = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    last = language(x, masks.causal(valid), positions)[:, -1]
    logits = language.logits(last).float()
    if not logits.isfinite().all():
        raise ValueError("the language model gives logits that are not finite; no captions are generated")
    return logits.index_fill(1, banned, -torch.inf).log_softmax(dim=1)
