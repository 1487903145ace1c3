"""Recall at K of retrieval with a fixed gallery, as an expectation over random order among equal scores.

This is the CLIP papers' hit rate (see LAION-AI/CLIP_benchmark, `metrics/zeroshot_retrieval.py`): a query counts 1 if at
least one of its own items is among the K highest-scoring of the whole gallery. Ties are our choice: with g better
strangers, and t items tied with the best own item, p of them own, the hit has probability 1 - C(t-p, K-g) / C(t, K-g):
for K = 1 it is p / t. Counting only strictly better items instead would give a collapsed encoder 100 %.

Shape letters: q queries, g gallery items, e width, k cut-offs.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

CHUNK = 256  # queries scored at once


@torch.no_grad()
def recall_at_k(
    queries: Float[Tensor, "q e"],
    gallery: Float[Tensor, "g e"],
    query_owner: Int[Tensor, " q"],
    gallery_owner: Int[Tensor, " g"],
    cutoffs: Sequence[int] = (1, 5, 10),
) -> Float[Tensor, "q k"]:
    """Expected hit in [0, 1] of each query at each cut-off; scores are cosines.

    A gallery item belongs to a query if their owners are equal. Raises ValueError where an embedding is not finite or
    a query owns nothing in the gallery.
    """
    for name, x in (("query", queries), ("gallery", gallery)):
        if not x.isfinite().all():
            rows = (~x.isfinite().all(dim=1)).nonzero().flatten().tolist()
            raise ValueError(f"{len(rows)} {name} embeddings are not finite, first at row {rows[0]}; nothing is scored")
    # Products in fp64, then rounded: equal embeddings tie exactly, whatever order a kernel sums in.
    queries, gallery = F.normalize(queries.double(), dim=1), F.normalize(gallery.double(), dim=1)
    credits = []
    for start in range(0, len(queries), CHUNK):
        scores = (queries[start : start + CHUNK] @ gallery.T).float()
        own = query_owner[start : start + CHUNK, None] == gallery_owner[None]
        if not own.any(dim=1).all():
            lost = start + int((~own.any(dim=1)).nonzero()[0])
            raise ValueError(f"query {lost} owns no item of the gallery, so it cannot be found")
        best = scores.masked_fill(~own, -math.inf).amax(dim=1, keepdim=True)
        tied = scores == best
        better, ties, own_ties = (scores > best).sum(1), tied.sum(1), (tied & own).sum(1)
        credits.append(torch.stack([_hit(better, ties, own_ties, k) for k in cutoffs], dim=1))
    return torch.cat(credits)


def nearest(queries: Float[Tensor, "q e"], gallery: Float[Tensor, "g e"], k: int) -> Int[Tensor, "q k"]:
    """Places of the k gallery items with the highest cosine to each query, highest first; of equal ones the first."""
    scores = F.normalize(queries.double(), dim=1) @ F.normalize(gallery.double(), dim=1).T
    return scores.float().sort(dim=1, descending=True, stable=True).indices[:, :k]


def chance(own: int, gallery: int, cutoff: int) -> float:
    """Expected hit of a query that owns `own` of `gallery` items, in random order: 1 - C(g-own, k) / C(g, k)."""
    return 1 - math.comb(gallery - own, cutoff) / math.comb(gallery, cutoff) if cutoff < gallery else 1.0


def _hit(
    better: Int[Tensor, " q"], ties: Int[Tensor, " q"], own_ties: Int[Tensor, " q"], cutoff: int
) -> Float[Tensor, " q"]:
    """Probability that one of `own_ties` of `ties` shuffled items lands in the places the better ones leave."""
    places = (cutoff - better).clamp(min=0)
    miss = torch.ones(len(better), dtype=torch.float64, device=better.device)
    for drawn in range(cutoff):  # C(t-p, m) / C(t, m) as a product of m draws without a hit
        left = (ties - drawn).clamp(min=1)
        factor = (ties - own_ties - drawn).clamp(min=0).double() / left
        miss = torch.where(drawn < places, miss * factor, miss)
    return 1 - miss
