"""Block-wise masking of a patch grid: which patches masked image modelling hides.

BEiT (Bao et al. 2021, Algorithm 1), as released in microsoft/unilm `beit2/masking_generator.py`: rectangles of random
area and aspect ratio until the count is nearly reached, then single patches to the exact count.

The grid is one Python integer with a bit per patch, row-major: a mask costs microseconds, so it can be drawn per image
from the document's own random stream instead of from one stream per batch.
"""

import math

import numpy as np
from jaxtyping import Bool

ATTEMPTS = 10  # rectangles tried before the rest is filled with single patches
LOG_ASPECT = math.log(1 / 0.3)  # height over width lies between 0.3 and its inverse, log-uniform


def block_mask(
    generator: np.random.Generator, rows: int, columns: int, count: int, min_block: int
) -> Bool[np.ndarray, " p"]:
    """One mask with exactly `count` True patches, flattened row-major.

    min_block: smallest area asked of a rectangle, in patches (BEiT: 16 of 196); rounding of the sides may change it.
    Raises ValueError where the count does not fit the grid or the block is not at least one patch.
    """
    patches = rows * columns
    if not 0 <= count <= patches:
        raise ValueError(f"cannot mask {count} patches of a {rows}x{columns} grid; choose between 0 and {patches}")
    if min_block < 1:
        raise ValueError(f"min_block is an area in patches and at least 1, got {min_block}")
    hidden = 0
    while hidden.bit_count() < count:
        block = _block(generator, rows, columns, count - hidden.bit_count(), min_block, hidden)
        if not block:
            break
        hidden |= block
    mask = np.array([hidden >> place & 1 for place in range(patches)], dtype=bool)
    missing = count - int(mask.sum())
    if missing:
        mask[generator.permutation(np.flatnonzero(~mask))[:missing]] = True
    return mask


def _block(generator: np.random.Generator, rows: int, columns: int, room: int, smallest: int, hidden: int) -> int:
    """Bits of a rectangle that hides at least one new patch and at most `room`, or 0 when none was found."""
    draws = generator.random((ATTEMPTS, 4)).tolist()
    for area_draw, aspect_draw, top_draw, left_draw in draws:
        area = smallest + area_draw * max(room - smallest, 0)
        aspect = math.exp((2 * aspect_draw - 1) * LOG_ASPECT)
        height = max(1, round(math.sqrt(area * aspect)))
        width = max(1, round(math.sqrt(area / aspect)))
        if height > rows or width > columns:
            continue
        top, left = int(top_draw * (rows - height + 1)), int(left_draw * (columns - width + 1))
        line = ((1 << width) - 1) << left
        bits = sum(line << (columns * row) for row in range(top, top + height))
        if 0 < (bits & ~hidden).bit_count() <= room:
            return bits
    return 0
