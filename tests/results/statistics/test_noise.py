"""The rule of noise, against Student's distribution integrated here and a difference worked out by hand."""

import math

import pytest

from results.statistics.noise import Standing, needed, quantile, standing


def tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's t, by Simpson's rule on its density from 0."""
    scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))

    def density(x: float) -> float:
        return scale * (1 + x * x / freedom) ** (-(freedom + 1) / 2)

    n = 20_000
    h = t / n
    odd, even = (sum(density(i * h) for i in range(first, n, 2)) for first in (1, 2))
    return 0.5 - h / 3 * (density(0) + density(t) + 4 * odd + 2 * even)


@pytest.mark.parametrize("seeds", [2, 3, 4, 11, 50])
def test_the_quantiles_are_students(seeds: int) -> None:
    assert tail(quantile(seeds), seeds - 1) == pytest.approx(0.025, abs=2e-5)


def test_one_seed_has_no_quantile() -> None:
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        quantile(1)


def test_what_a_difference_must_exceed_by_hand() -> None:
    # s.d. 1 over 3 seeds and 2 over 4: 4.302653 sqrt(1 / 3 + 4 / 4)
    a, b = (9.0, 10.0, 11.0), (0.0, 3.0 - math.sqrt(3), 3.0, 3.0 + math.sqrt(3))
    spread = math.sqrt(sum((x - sum(b) / 4) ** 2 for x in b) / 3)
    assert needed(a, b) == pytest.approx(4.302653 * math.sqrt(1 / 3 + spread**2 / 4), rel=1e-6)
    assert needed(a, (1.0,)) is None


def test_a_standing_is_decided_just_beyond_the_noise_and_in_the_direction_that_is_better() -> None:
    a = (9.0, 10.0, 11.0)
    limit = 4.302653 * math.sqrt(2 / 3)
    for shift, higher, expected in (
        (limit + 0.01, True, Standing.BELOW),
        (-limit - 0.01, True, Standing.ABOVE),
        (limit + 0.01, False, Standing.ABOVE),
        (limit - 0.01, True, Standing.UNDECIDED),
        (0.0, True, Standing.UNDECIDED),
    ):
        assert standing(a, tuple(x + shift for x in a), higher) is expected


def test_one_seed_decides_nothing_and_equal_seeds_without_noise_only_a_difference() -> None:
    assert standing((100.0,), (1.0, 1.1, 1.2), True) is Standing.UNDECIDED
    assert standing((2.0, 2.0), (1.0, 1.0), True) is Standing.ABOVE
    assert standing((2.0, 2.0), (2.0, 2.0), True) is Standing.UNDECIDED
