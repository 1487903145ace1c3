"""Image targets and block masks: exact counts, invariances, and codebooks that are equal wherever they are built."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.block_mask import block_mask
from backbones.image_targets import (
    CentroidCodes,
    Pixels,
    RandomCodes,
    fit_codebook,
    nearest,
    normalise_patches,
    patchify,
)
from backbones.vit import VisionEncoder
from data.images import CLIP_MEAN, CLIP_STD

PRINT_TARGETS = """
import torch
from backbones.image_targets import CentroidCodes
images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(3))
target = CentroidCodes(8, 16, 16, seed=0, fit_patches=128)
target.fit([images])
print(target.fingerprint(), target.targets(images).flatten().tolist())
"""


def pictures(count: int, seed: int = 3) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("grid, count, smallest", [(14, 78, 16), (16, 102, 16), (4, 6, 2), (4, 0, 2), (4, 16, 2)])
def test_block_mask_has_the_exact_count(grid: int, count: int, smallest: int) -> None:
    for seed in range(50):
        mask = block_mask(np.random.default_rng(seed), grid, grid, count, smallest)
        assert mask.shape == (grid**2,)
        assert mask.sum() == count


def test_block_mask_is_made_of_blocks() -> None:
    def borders(mask: np.ndarray) -> int:
        cells = mask.reshape(14, 14)
        return int((cells[1:] != cells[:-1]).sum() + (cells[:, 1:] != cells[:, :-1]).sum())

    scattered = np.zeros(196, dtype=bool)
    scattered[np.random.default_rng(0).permutation(196)[:78]] = True
    most = max(borders(block_mask(np.random.default_rng(seed), 14, 14, 78, 16)) for seed in range(20))
    assert most < 0.7 * borders(scattered)


def test_every_patch_can_be_hidden() -> None:
    ever = sum(block_mask(np.random.default_rng(seed), 4, 4, 6, 2).astype(int) for seed in range(400))
    assert ever.min() > 0.15 * 400
    assert ever.max() < 0.65 * 400


@pytest.mark.parametrize("count, smallest, named", [(17, 2, "17"), (-1, 2, "-1"), (6, 0, "min_block")])
def test_block_mask_refuses_what_cannot_be(count: int, smallest: int, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        block_mask(np.random.default_rng(0), 4, 4, count, smallest)


def test_patches_are_in_the_order_of_the_encoder(vision: VisionEncoder) -> None:
    weight = vision.vit.patch_embed.proj.weight.detach()
    by_hand = patchify(pictures(2), 8) @ weight.flatten(1).T + vision.vit.patch_embed.proj.bias
    torch.testing.assert_close(vision.vit.patch_embed(pictures(2)), by_hand, atol=1e-5, rtol=0)


def test_patchify_refuses_a_side_that_does_not_divide() -> None:
    with pytest.raises(ValueError, match="32x32.*7x7"):
        patchify(pictures(1), 7)


def test_normalised_patches_have_mean_zero_and_variance_one() -> None:
    patches = normalise_patches(patchify(pictures(4), 8))
    torch.testing.assert_close(patches.mean(-1), torch.zeros(4, 16), atol=1e-5, rtol=0)
    torch.testing.assert_close(patches.var(-1), torch.ones(4, 16), atol=1e-3, rtol=0)


def test_inv_b3_6_codes_do_not_depend_on_brightness_and_contrast() -> None:
    target = RandomCodes(8, 64, 16, seed=0)
    images = pictures(8)
    assert torch.equal(target.targets(images), target.targets(images * 0.3 + 0.2))
    assert not torch.equal(target.targets(images), target.targets(1 - images))


def test_inv_b3_6_same_codes_in_another_process() -> None:
    root = Path(__file__).parents[2]
    other = subprocess.run([sys.executable, "-c", PRINT_TARGETS], cwd=root, capture_output=True, text=True, check=True)
    target = CentroidCodes(8, 16, 16, seed=0, fit_patches=128)
    target.fit([pictures(8)])
    assert other.stdout.strip() == f"{target.fingerprint()} {target.targets(pictures(8)).flatten().tolist()}"


def test_codes_are_the_same_under_autocast() -> None:
    target = RandomCodes(8, 64, 16, seed=0)
    with torch.autocast("cpu", torch.bfloat16):
        inside = target.targets(pictures(8))
    assert torch.equal(inside, target.targets(pictures(8)))


def test_seed_decides_the_random_codebook_and_the_global_generator_does_not() -> None:
    torch.manual_seed(1)
    one = RandomCodes(8, 64, 16, seed=0)
    torch.manual_seed(2)
    assert one.fingerprint() == RandomCodes(8, 64, 16, seed=0).fingerprint()
    assert one.fingerprint() != RandomCodes(8, 64, 16, seed=1).fingerprint()


def on_white(count: int, seed: int = 3) -> Tensor:
    """Pictures whose upper half is white, as on many web pages."""
    images = pictures(count, seed)
    images[:, :, :16] = 1.0
    return images


def jpeg_noise(value: float) -> Tensor:
    """One even picture whose 8-bit values are off by at most one level."""
    stream = torch.Generator().manual_seed(5)
    return (torch.full((1, 3, 32, 32), value * 255) + torch.randint(-1, 2, (1, 3, 32, 32), generator=stream)) / 255


def through_the_transform(images: Tensor) -> Tensor:
    """Normalised by channel and back, as the objective gets them: white is no longer exactly 1."""
    mean, std = torch.tensor(CLIP_MEAN)[:, None, None], torch.tensor(CLIP_STD)[:, None, None]
    return ((images - mean) / std) * std + mean


@pytest.mark.parametrize("kind", ["random", "kmeans"])
@pytest.mark.parametrize("seed", range(3))
def test_flat_patches_have_code_zero_whatever_the_codebook(kind: str, seed: int) -> None:
    if kind == "random":
        target = RandomCodes(8, 16, 16, seed=seed)
    else:
        target = CentroidCodes(8, 16, 16, seed=seed, fit_patches=512)
        target.fit([pictures(32, seed)])
    white, black, cast = (torch.full((1, 3, 32, 32), value) for value in (1.0, 0.0, 0.25))
    cast[:, 0] += 1 / 255  # a grey of (65, 64, 64)
    flat = torch.cat([white, black, cast, through_the_transform(white), jpeg_noise(0.5)])
    assert not target.features(flat).any()
    assert not target.targets(flat).any()
    assert target.targets(pictures(8)).unique().numel() > 8


def test_what_is_faint_but_drawn_is_not_flat() -> None:
    target = RandomCodes(8, 64, 16, seed=0)
    faint = 0.5 + (pictures(2) - 0.5) * 0.03  # about two levels of 255
    assert torch.equal(target.targets(faint), target.targets(pictures(2)))
    red = torch.zeros(1, 3, 32, 32)
    red[:, 0] = 1.0
    torch.testing.assert_close(target.features(red).norm(dim=-1), torch.ones(1, 16))


def test_flat_patches_take_no_part_in_the_fit() -> None:
    target = CentroidCodes(8, 16, 16, seed=0, fit_patches=100)
    read = []
    target.fit(read.append(seed) or on_white(4, seed) for seed in range(10))
    drawn = torch.cat([target.features(on_white(4, seed))[:, 8:].flatten(0, 1) for seed in range(4)])
    assert torch.equal(target.codebook, fit_codebook(drawn[:100], 16, seed=0))
    assert read == [0, 1, 2, 3]  # 32 patches a batch that are not flat


def test_a_picture_on_white_ground_is_fitted_and_read() -> None:
    target = CentroidCodes(8, 16, 16, seed=0, fit_patches=512)
    target.fit([on_white(8, seed) for seed in range(8)])
    codes = target.targets(on_white(8))
    assert not codes[:, :8].any()  # the white half
    torch.testing.assert_close(target.codebook.norm(dim=-1), torch.ones(16))
    assert torch.bincount(target.targets(torch.cat([on_white(8, seed) for seed in range(8)]))[:, 8:].flatten()).min()


def test_too_few_patches_that_are_not_flat_are_counted_truly() -> None:
    images = torch.ones(2, 3, 32, 32)
    images[:, :, :8, :16] = pictures(1)[:, :, :8, :16]  # the same two patches in both
    with pytest.raises(ValueError, match="at least 16 .*got 32 patches with 2 distinct and 28 flat"):
        CentroidCodes(8, 16, 16, seed=0, fit_patches=512).fit([images])


def test_points_that_cancel_leave_no_code_without_a_direction() -> None:
    codebook = fit_codebook(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), 1, seed=0)
    torch.testing.assert_close(codebook.norm(dim=-1), torch.ones(1))


def test_nearest_is_the_smallest_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backbones.image_targets._CHUNK", 100)  # several chunks
    points, codes = F.normalize(torch.randn(57, 5), dim=-1), F.normalize(torch.randn(9, 5), dim=-1)
    assert torch.equal(nearest(points, codes), torch.cdist(points, codes).argmin(-1))
    assert nearest(points[:0], codes).shape == (0,)


def test_kmeans_finds_separated_clusters() -> None:
    centres = torch.eye(6)
    points = (centres[:, None] + 0.05 * torch.randn(6, 40, 6)).flatten(0, 1)
    codebook = fit_codebook(points, 6, seed=0)
    assert (centres @ codebook.T).amax(1).min() > 0.99  # every centre has its code
    assert torch.equal(codebook, fit_codebook(points, 6, seed=0))


def test_kmeans_uses_every_code_and_fits_better_than_random_codes() -> None:
    target = CentroidCodes(8, 64, 16, seed=0, fit_patches=4096)
    images = pictures(256)
    features = target.features(images).flatten(0, 1)
    before = (features @ target.codebook.T).amax(1).mean()
    target.fit(images.split(32))
    assert (features @ target.codebook.T).amax(1).mean() > before + 0.05
    assert torch.bincount(target.targets(images).flatten(), minlength=64).min() > 0


def test_kmeans_restarts_codes_that_have_no_points(monkeypatch: pytest.MonkeyPatch) -> None:
    # All start at one point: the first code takes everything, the others have to be restarted to be of any use.
    monkeypatch.setattr("backbones.image_targets._first_distinct", lambda points, count: points[:1].expand(count, -1))
    points = torch.randn(200, 4)
    codebook = fit_codebook(points, 16, seed=0)
    torch.testing.assert_close(codebook.norm(dim=-1), torch.ones(16))
    assert torch.bincount(nearest(F.normalize(points, dim=-1), codebook), minlength=16).min() > 0


def test_kmeans_refuses_fewer_distinct_points_than_codes() -> None:
    with pytest.raises(ValueError, match="at least 5.*4 patches with 2 distinct and 0 flat"):
        fit_codebook(torch.eye(2).repeat(2, 1), 5, seed=0)


def test_fit_reads_no_more_images_than_it_needs() -> None:
    target = CentroidCodes(8, 16, 16, seed=0, fit_patches=100)
    read = []
    target.fit(read.append(k) or pictures(4, seed=k) for k in range(10))
    assert read == [0, 1]  # 64 patches a batch


def test_unfitted_codebook_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"prepare\(images\).*rpq_random"):
        CentroidCodes(8, 16, 16, seed=0, fit_patches=100).targets(pictures(1))


def test_codebook_travels_in_the_state() -> None:
    target = CentroidCodes(8, 16, 16, seed=0, fit_patches=128)
    target.fit([pictures(8)])
    other = CentroidCodes(8, 16, 16, seed=0, fit_patches=128)
    other.load_state_dict(target.state_dict())
    assert other.fingerprint() == target.fingerprint()
    assert torch.equal(other.targets(pictures(2, seed=9)), target.targets(pictures(2, seed=9)))


def test_codebook_of_another_shape_or_length_is_refused() -> None:
    target = CentroidCodes(8, 16, 16, seed=0, fit_patches=100)
    with pytest.raises(ValueError, match=r"\(16, 16\).*\(8, 16\)"):
        target.set_codebook(torch.randn(8, 16))
    with pytest.raises(ValueError, match="length 1, got 2.0000"):
        target.set_codebook(2 * torch.eye(16))


def test_inv_b3_4_zero_prediction_of_pixels_costs_one() -> None:
    target = Pixels(8)
    values = target.targets(pictures(16)).flatten(0, 1)
    assert target.loss(torch.zeros_like(values), values) / len(values) == pytest.approx(1.0, abs=0.01)


def test_losses_sum_over_patches() -> None:
    codes, pixels = RandomCodes(8, 64, 16, seed=0), Pixels(8)
    assert codes.loss(torch.zeros(5, 64), torch.arange(5)) == pytest.approx(5 * np.log(64))
    assert pixels.loss(torch.full((5, 192), 2.0), torch.zeros(5, 192)) == pytest.approx(20.0)
    assert codes.loss(torch.zeros(0, 64), torch.zeros(0, dtype=torch.int64)) == 0
