"""What masked image modelling predicts for a hidden patch: a discrete code or its own pixels.

BEiT-3 (Wang et al. 2022) classifies codes of a tokenizer distilled from CLIP. These need no outside supervision:
`RandomCodes` is the random-projection quantiser of BEST-RQ (Chiu et al. 2022) on patch pixels; `CentroidCodes` is the
same quantiser with a codebook fitted once by k-means (in the spirit of CCViT, Yan et al. 2023); `Pixels` are MAE's
normalised pixels (He et al. 2022, facebookresearch/mae `models_mae.py`).

Every target normalises each patch by its own mean and standard deviation, so the images must be given in [0, 1], not
normalised per channel. Everything runs in fp32 without gradient.

A flat patch (white ground) has no pattern: normalising would turn rounding and the compression noise of
JPEG into one of full size. Its feature is the zero vector, its code is 0, and k-means never sees it. It remains a
target like any other (our choice): that nothing stands there is a fact about the picture, and how many patches are
predicted must not depend on what they show.

Shape letters: m images, s image side, p patches, n masked patches, c pixel values of a patch, d code width, k codes.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.precision import at_least_fp32
from data.seeds import torch_generator

FLAT = 1 / 255  # a standard deviation below one level of an 8-bit image; JPEG noise of +-1 has 0.8 levels

_CANCELLED = 1e-4  # a sum of unit vectors so short is rounding; one vector alone has length 1
_CHUNK = 1 << 22  # similarities held at once while searching a codebook (16 MiB)


def patchify(images: Float[Tensor, "m 3 s s"], patch_size: int) -> Float[Tensor, "m p c"]:
    """Pixels of each patch, patches row-major as in the ViT; raises ValueError where the side is not a multiple."""
    m, channels, height, width = images.shape
    if height % patch_size or width % patch_size:
        raise ValueError(f"images of {height}x{width} do not divide into patches of {patch_size}x{patch_size}")
    rows, columns = height // patch_size, width // patch_size
    cells = images.reshape(m, channels, rows, patch_size, columns, patch_size).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(m, rows * columns, channels * patch_size**2)


def normalise_patches(patches: Float[Tensor, "m p c"]) -> Float[Tensor, "m p c"]:
    """Each patch with mean 0 and variance 1 over its own values (MAE `norm_pix_loss`)."""
    patches = patches.float()
    centred = patches - patches.mean(dim=-1, keepdim=True)
    variance = centred.square().sum(dim=-1, keepdim=True) / (patches.shape[-1] - 1)
    return centred * torch.rsqrt(variance + 1e-6)


def is_flat(patches: Float[Tensor, "m p c"]) -> Bool[Tensor, "m p"]:
    """Which patches, in [0, 1], show nothing above the noise of an 8-bit image; a plain colour is no flat patch."""
    patches = patches.float()
    return (patches - patches.mean(dim=-1, keepdim=True)).square().mean(dim=-1) < FLAT**2


class ImageTarget(nn.Module, ABC):
    """Targets of hidden patches and the loss of a prediction of them."""

    kind: ClassVar[Literal["class", "regress"]]
    dim: int  # outputs of the prediction head: number of codes, or values of a patch

    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def fit(self, images: Iterable[Float[Tensor, "_ 3 s s"]]) -> None:
        """Fit what the target needs from batches of training images in [0, 1], once, before it is used."""

    @abstractmethod
    def targets(self, images: Float[Tensor, "m 3 s s"]) -> Tensor:
        """Targets of every patch, [m, p] codes or [m, p, c] values, of images in [0, 1]."""

    @abstractmethod
    def loss(self, prediction: Float[Tensor, "n dim"], target: Tensor) -> Tensor:
        """Sum over the n hidden patches of the loss of each, a scalar; 0 and still connected for n = 0."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that decides a target, to compare across ranks and restarts."""


class RandomCodes(ImageTarget):
    """Index of the nearest of k frozen random unit codes, after a frozen random projection of the patch to d values.

    Flat patches have code 0: a zero vector is equally near to every code, and the first of equals is taken. No code is
    kept for them alone, so that neither the head nor the codebook depends on whether a corpus has any.
    """

    kind = "class"
    projection: Tensor
    codebook: Tensor

    def __init__(self, patch_size: int, codes: int, width: int, seed: int) -> None:
        super().__init__(patch_size)
        self.dim = codes
        values = 3 * patch_size**2
        stream = torch_generator("image_target", "projection", values, width, seed)
        self.register_buffer("projection", torch.randn(values, width, generator=stream) * values**-0.5)
        stream = torch_generator("image_target", "codebook", codes, width, seed)
        self.register_buffer("codebook", F.normalize(torch.randn(codes, width, generator=stream), dim=-1))

    @torch.no_grad()
    def features(self, images: Float[Tensor, "m 3 s s"]) -> Float[Tensor, "m p d"]:
        """What is quantised: the projected patches, of unit length; zero where a patch is flat."""
        with torch.autocast(images.device.type, enabled=False):
            patches = patchify(images, self.patch_size)
            features = F.normalize(normalise_patches(patches) @ self.projection, dim=-1)
            return features.masked_fill(is_flat(patches)[..., None], 0.0)

    @torch.no_grad()
    def targets(self, images: Float[Tensor, "m 3 s s"]) -> Int[Tensor, "m p"]:
        """Code of every patch."""
        features = self.features(images)
        with torch.autocast(images.device.type, enabled=False):
            return nearest(features.flatten(0, 1), self.codebook).view(features.shape[:2])

    def loss(self, prediction: Float[Tensor, "n k"], target: Int[Tensor, " n"]) -> Float[Tensor, ""]:
        """Summed cross-entropy, in nats."""
        return F.cross_entropy(at_least_fp32(prediction), target, reduction="sum")

    def fingerprint(self) -> str:
        """Hash of the projection and the codebook."""
        digest = hashlib.sha256()
        for tensor in (self.projection, self.codebook):
            digest.update(tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()


class CentroidCodes(RandomCodes):
    """RandomCodes whose codebook is fitted by k-means before training and then frozen."""

    fitted: Tensor

    def __init__(self, patch_size: int, codes: int, width: int, seed: int, fit_patches: int) -> None:
        """fit_patches: the codebook is fitted to the first so many patches, flat ones aside, of the images of `fit`."""
        super().__init__(patch_size, codes, width, seed)
        self.seed, self.fit_patches = seed, fit_patches
        self.register_buffer("fitted", torch.tensor(False))

    def fit(self, images: Iterable[Float[Tensor, "_ 3 s s"]]) -> None:
        """Fit the codebook by k-means and freeze it; reads no more images than it needs.

        Raises ValueError where the images hold fewer distinct patches than there are codes, flat ones aside.
        """
        parts: list[Tensor] = []
        held = 0
        for batch in images:
            parts.append(self.features(batch.to(self.projection.device)).flatten(0, 1))
            held += int(parts[-1].any(dim=-1).sum())
            if held >= self.fit_patches:
                break
        features = torch.cat(parts) if parts else self.codebook[:0]
        features = features[features.any(dim=-1).cumsum(0) <= self.fit_patches]
        self.set_codebook(fit_codebook(features, self.dim, self.seed))

    def set_codebook(self, codebook: Float[Tensor, "k d"]) -> None:
        """Freeze these codes, e.g. from `fit_codebook`; raises ValueError for other shapes or lengths than 1."""
        if codebook.shape != self.codebook.shape:
            raise ValueError(f"this target holds a codebook {tuple(self.codebook.shape)}, got {tuple(codebook.shape)}")
        lengths = codebook.norm(dim=-1)
        if not torch.allclose(lengths, torch.ones_like(lengths), atol=1e-4):
            raise ValueError(f"codes have length 1, got {lengths.min():.4f} to {lengths.max():.4f}; normalise them")
        self.codebook.copy_(codebook)
        self.fitted.fill_(True)

    def targets(self, images: Float[Tensor, "m 3 s s"]) -> Int[Tensor, "m p"]:
        """Code of every patch; raises ValueError before the codebook is fitted."""
        if not self.fitted:
            raise ValueError(
                "the k-means codebook of the image target is not fitted: call prepare(images) on the objective before "
                "the first step, load a checkpoint that holds one, or choose target='rpq_random'"
            )
        return super().targets(images)


class Pixels(ImageTarget):
    """The patch's own normalised pixels; mean squared error over the values of a patch."""

    kind = "regress"

    def __init__(self, patch_size: int) -> None:
        super().__init__(patch_size)
        self.dim = 3 * patch_size**2

    @torch.no_grad()
    def targets(self, images: Float[Tensor, "m 3 s s"]) -> Float[Tensor, "m p c"]:
        """Normalised values of every patch."""
        return normalise_patches(patchify(images, self.patch_size))

    def loss(self, prediction: Float[Tensor, "n c"], target: Float[Tensor, "n c"]) -> Float[Tensor, ""]:
        """Sum over patches of the mean squared error of each."""
        return (at_least_fp32(prediction) - target).square().mean(-1).sum()

    def fingerprint(self) -> str:
        """Nothing is fitted or drawn: the patch size decides."""
        return hashlib.sha256(f"pixels:{self.patch_size}".encode()).hexdigest()


def nearest(features: Float[Tensor, "n d"], codebook: Float[Tensor, "k d"]) -> Int[Tensor, " n"]:
    """Index of the code with the largest inner product, the first of equals, in chunks of bounded memory."""
    if not len(features):
        return torch.zeros(0, dtype=torch.int64, device=features.device)
    chunks = features.split(max(1, _CHUNK // len(codebook)))
    return torch.cat([(chunk @ codebook.T).argmax(-1) for chunk in chunks])


@torch.no_grad()
def fit_codebook(features: Float[Tensor, "n d"], codes: int, seed: int, iterations: int = 20) -> Float[Tensor, "k d"]:
    """Unit centroids by spherical k-means from `codes` distinct starting points; equal for equal arguments.

    Zero vectors have no direction and are left out. A centroid that loses all its points, or whose points cancel,
    restarts at the point worst represented, so no code stays unused for want of points. Raises ValueError where there
    are fewer distinct points than codes.
    """
    points = features[features.any(dim=-1)]
    points = F.normalize(points.float(), dim=-1)
    order = torch.randperm(len(points), generator=torch_generator("image_target", "kmeans", codes, seed))
    starts = _first_distinct(points[order.to(points.device)], codes)
    if len(starts) < codes:
        raise ValueError(
            f"k-means needs at least {codes} distinct patches for {codes} codes, got {len(features)} patches with "
            f"{len(starts)} distinct and {len(features) - len(points)} flat: prepare with more images or ask for fewer "
            "codes"
        )
    centroids, added = starts, points.cpu()
    for _ in range(iterations):
        assigned = nearest(points, centroids)
        # On the CPU: a GPU adds them in another order each time, and so would fit other codes.
        sums = torch.zeros(centroids.shape).index_add_(0, assigned.cpu(), added).to(points.device)
        lost = torch.nonzero(sums.norm(dim=-1) < _CANCELLED).flatten()
        if len(lost):
            fit = (points * centroids[assigned]).sum(-1)
            sums[lost] = points[fit.topk(len(lost), largest=False).indices]
        centroids = F.normalize(sums, dim=-1)
    return centroids


def _first_distinct(points: Float[Tensor, "n d"], count: int) -> Float[Tensor, "k d"]:
    """The first `count` different rows, or all of them where there are fewer."""
    _, group = torch.unique(points, dim=0, return_inverse=True)
    first = torch.full((int(group.max()) + 1 if len(points) else 0,), len(points), device=points.device)
    first = first.scatter_reduce(0, group, torch.arange(len(points), device=points.device), "amin")
    return points[first.sort().values[:count]]
