"""Greedy and beam search for a language model that reads a prefix of embeddings and then its own tokens.

Our choice, as the paper is silent: 5 beams, 30 new tokens, length penalty 1.0, no minimum, no repetition penalty, stop
at EOS. A hypothesis scores its log-probability divided by its length (EOS included) to the power of the penalty.
All prefixes of a call are equally long, so nothing is padded and a row's result does not depend on its neighbours.
Each position is read once: keys and values are kept, rows that have ended leave the batch.

Shape letters: b rows, p prefix positions, t tokens read at once, d width, v vocabulary, r rows that go on, k beams.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import DynamicCache

from backbones.lm import Decoder

KEPT_BYTES = 8 * 2**30  # of keys and values at once; an image under OPT-1.3B and five beams takes 0.2 GB


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
    row = decoding.beams * (prefix.shape[1] + decoding.max_tokens) * language.kept_per_token * prefix.element_size()
    result: list[list[int]] = []
    for part in prefix.split(max(1, KEPT_BYTES // row)):
        if decoding.beams == 1:
            result += _greedy(language, part, eos, banned, decoding.max_tokens)
        else:
            result += beam_search(language, part, eos, banned, decoding)
    return result


def _greedy(
    language: Decoder, prefix: Float[Tensor, "b p d"], eos: int, banned: Int[Tensor, " n"], max_tokens: int
) -> list[list[int]]:
    result: list[list[int]] = [[] for _ in range(len(prefix))]
    active = torch.arange(len(prefix), device=prefix.device)
    reading = _Reading(language, banned)
    logp = reading.begin(prefix)
    for length in range(1, max_tokens + 1):
        token = logp.argmax(dim=1)
        for row, value in zip(active.tolist(), token.tolist(), strict=True):
            if value != eos:
                result[row].append(value)
        go_on = (token != eos).nonzero()[:, 0]
        if not len(go_on) or length == max_tokens:
            break
        active = active[go_on]
        logp = reading.go_on(go_on, token[go_on])
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
    reading = _Reading(language, banned)
    logp = reading.begin(prefix).repeat_interleave(k, dim=0)
    place = active[:, None].expand(-1, k)  # of each beam among the rows that were read: the prefix is read once
    for length in range(1, decoding.max_tokens + 1):
        rows = len(active)
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
        place = place.gather(1, parents)
        history = ids.gather(1, parents[:, :, None].expand(-1, -1, ids.shape[2]))
        ids = torch.cat([history, token[:, :, None]], dim=2)
        best = (live[:, 0] / length**length_penalty).tolist()
        open_rows = [
            row for row, where in enumerate(active.tolist()) if len(ended[where]) < k or ended[where][-1][0] < best[row]
        ]
        if len(open_rows) < rows:
            keep = torch.tensor(open_rows, dtype=torch.int64, device=device)
            ids, live, active, token, place = ids[keep], live[keep], active[keep], token[keep], place[keep]
        if not open_rows or length == decoding.max_tokens:
            break
        logp = reading.go_on(place.flatten(), token.flatten())
        place = torch.arange(len(logp), device=device).view(-1, k)
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


class _Reading:
    """A language model that reads rows token by token and says how likely each next one is."""

    def __init__(self, language: Decoder, banned: Int[Tensor, " n"]) -> None:
        self._language, self._banned = language, banned
        self._seen, self._dtype = DynamicCache(), torch.float32

    def begin(self, prefix: Float[Tensor, "b p d"]) -> Float[Tensor, "b v"]:
        """Log-probabilities of what follows each prefix."""
        self._dtype = prefix.dtype
        return self._read(prefix)

    def go_on(self, rows: Int[Tensor, " r"], token: Int[Tensor, " r"]) -> Float[Tensor, "r v"]:
        """Of what follows that token in each of those rows; a row may go on in several ways, or in none."""
        self._seen.reorder_cache(rows)
        return self._read(self._language.embed(token[:, None]).to(self._dtype))

    def _read(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b v"]:
        logits = self._language.logits(self._language.read_on(x, self._seen)[:, -1]).float()
        if not logits.isfinite().all():
            raise ValueError("the language model gives logits that are not finite; no captions are generated")
        return logits.index_fill(1, self._banned, -torch.inf).log_softmax(dim=1)
