"""Collapse diagnostics on features: one number each, for curves beside the loss.

RankMe is Garrido et al. 2023, alignment and uniformity Wang and Isola 2020; the other numbers are our choice.
All are computed in fp32 outside the graph; those that compare rows need at least two, which the two bundles for a
batch, `collapse` and `agreement`, see to.

Shape letters: n rows, d width, m images, p patches, k words.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

MOST_ROWS = 256  # of a batch that is looked at: singular values and distances of every step must stay cheap


def collapse(patches: Float[Tensor, "m p d"]) -> dict[str, Tensor]:
    """Watch values of a batch's patch tokens H: three of their mean over patches, and how alike the patches of an image
    are. Empty for fewer than two images."""
    if len(patches) < 2:
        return {}
    patches = patches.detach()[:MOST_ROWS]
    x = patches.mean(dim=1)
    watch = {"feature_std_ratio": feature_std_ratio(x), "mean_cosine": mean_cosine(x), "rankme": rankme(x)}
    return watch | {"patch_cosine": patch_cosine(patches)} if patches.shape[1] > 1 else watch


def agreement(v: Float[Tensor, "n d"], t: Float[Tensor, "n d"]) -> dict[str, Tensor]:
    """Watch values of contrasted pairs: alignment of positives, uniformity of images. Empty for fewer than two."""
    if len(v) < 2:
        return {}
    return {"alignment": alignment(v[:MOST_ROWS], t[:MOST_ROWS]), "uniformity": uniformity(v[:MOST_ROWS])}


@torch.no_grad()
def feature_std_ratio(x: Float[Tensor, "n d"]) -> Tensor:
    """sqrt(d) * mean over channels of the std over rows of x / |x|: near 1 healthy, 0 collapsed."""
    unit = _unit(x)
    return math.sqrt(x.shape[1]) * unit.std(dim=0, correction=0).mean()


@torch.no_grad()
def mean_cosine(x: Float[Tensor, "n d"]) -> Tensor:
    """Mean cosine between different rows: low healthy, 1 collapsed."""
    return _off_diagonal_mean(_unit(x)[None])[0]


@torch.no_grad()
def rankme(x: Float[Tensor, "n d"]) -> Tensor:
    """exp of the entropy of the normalised singular values: the effective rank, between 1 and min(n, d); NaN where a
    feature is not finite, which is for the loss to report: the decomposition itself would raise, on that rank alone."""
    _require_rows(x)
    if not x.isfinite().all():
        return x.new_full((), math.nan, dtype=torch.float32)
    sigma = torch.linalg.svdvals(_fp32(x))
    share = sigma / sigma.sum().clamp(min=torch.finfo(sigma.dtype).tiny)
    return torch.special.entr(share).sum().exp()


@torch.no_grad()
def uniformity(v: Float[Tensor, "n d"]) -> Tensor:
    """ln of the mean over different rows of exp(-2 |v_i - v_j|^2), rows normalised: toward -4 healthy, 0 collapsed."""
    distance = torch.pdist(_unit(v)).square()
    return (-2 * distance).exp().mean().log()


@torch.no_grad()
def alignment(v: Float[Tensor, "n d"], t: Float[Tensor, "n d"]) -> Tensor:
    """Mean squared distance of positives, rows normalised: 0 for identical directions, 4 for opposite ones."""
    return (_unit(v) - _unit(t)).square().sum(dim=-1).mean()


@torch.no_grad()
def patch_cosine(patches: Float[Tensor, "m p d"]) -> Tensor:
    """Mean cosine between different patches of one image, mean over images: 1 where all patches say the same."""
    _require_rows(patches[0])
    return _off_diagonal_mean(F.normalize(_fp32(patches), dim=-1)).mean()


@torch.no_grad()
def norm_ratio(visual: Float[Tensor, "n d"], words: Float[Tensor, "k d"]) -> Tensor:
    """Mean norm of visual tokens over that of word embeddings, as both enter the language model."""
    return _fp32(visual).norm(dim=-1).mean() / _fp32(words).norm(dim=-1).mean()


@torch.no_grad()
def same_document_share(document: Int[Tensor, " n"]) -> Tensor:
    """Share of the ordered pairs of different rows that come from one document: how many negatives are near twins."""
    _require_rows(document[:, None])
    n = len(document)
    same = (document[:, None] == document[None, :]).sum() - n
    return same.float() / (n * (n - 1))


def _off_diagonal_mean(unit: Float[Tensor, "m n d"]) -> Float[Tensor, " m"]:
    # |sum of the rows|^2 is the sum of all cosines; the n cosines of rows with themselves are taken out.
    n = unit.shape[1]
    return (unit.sum(dim=1).square().sum(dim=-1) - unit.square().sum(dim=(1, 2))) / (n * (n - 1))


def _unit(x: Tensor) -> Tensor:
    _require_rows(x)
    return F.normalize(_fp32(x), dim=-1)


def _fp32(x: Tensor) -> Tensor:
    return x.detach().float()


def _require_rows(x: Tensor) -> None:
    if len(x) < 2:
        raise ValueError(f"collapse diagnostics compare rows, so they need at least 2; got {len(x)}")
