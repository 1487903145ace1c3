"""Student's t and Holm: against scipy 1.17.1 and statsmodels 0.15.0, whose numbers stand here, and by simulation."""

import random

import pytest

from results.stats import holm, seeds_needed, t_cdf, t_quantile, t_test

# scipy.stats.t.cdf(t, df), scipy.stats.t.ppf(p, df)
CDF = [
    (-3.0, 1, 0.10241638234956672),
    (0.7, 2, 0.7218034876835673),
    (2.1, 3, 0.9367173987251577),
    (-0.2, 4, 0.4256185070684612),
    (12.7, 5, 0.9999730951865797),
    (2.1, 30, 0.9778787643688382),
]
QUANTILE = [
    (0.975, 1, 12.706204736174694),
    (0.975, 2, 4.302652729749462),
    (0.001, 4, -7.1731822197823085),
    (0.8, 7, 0.8960296443137653),
    (0.9995, 101, 3.3894748840473063),
]


@pytest.mark.parametrize(("t", "df", "expected"), CDF)
def test_distribution_function_equals_scipys(t: float, df: int, expected: float) -> None:
    assert t_cdf(t, df) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("p", "df", "expected"), QUANTILE)
def test_quantile_equals_scipys(p: float, df: int, expected: float) -> None:
    assert t_quantile(p, df) == pytest.approx(expected, rel=1e-9)


def test_the_test_equals_scipys_ttest_1samp() -> None:
    found = t_test([1.2, -0.3, 2.2, 0.9, 1.7])
    assert (found.p, found.p_above) == pytest.approx((0.05423369271729681, 0.027116846358648417), rel=1e-9)
    assert (found.low, found.high) == pytest.approx((-0.03335605406064768, 2.313356054060648), rel=1e-9)
    assert (found.mean, found.sd, found.n) == pytest.approx((1.14, 0.9449867723941963, 5))


def test_the_example_of_three_seeds() -> None:
    found = t_test([75.1, 75.2, 75.3])
    assert found.high - found.mean == pytest.approx(0.248, abs=5e-4)


def test_equal_differences_have_no_noise() -> None:
    assert t_test([0.0, 0.0]).p == 1.0
    assert t_test([2.0, 2.0]).p_above == 0.0 and t_test([-2.0, -2.0]).p_below == 0.0


def test_one_seed_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        t_test([1.0])


def test_holm_by_hand() -> None:
    # sorted: .005 x 5 = .025; .01 x 4 = .04; .03 x 3 = .09; .04 x 2 = .08, not below .09; .5 x 1. As statsmodels.
    assert holm([0.01, 0.04, 0.03, 0.005, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.5])
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


@pytest.mark.parametrize(
    # statsmodels' TTestPower, the exact answer, rounded up: 9.94, 33.37, 66.62, 7.65
    ("effect", "sd", "level", "n"),
    [(1, 1, 0.025, 10), (-1, 2, 0.025, 34), (0.5, 1, 0.001, 67), (1, 0.5, 0.025 / 14, 8)],
)
def test_seeds_needed_equals_statsmodels_power(effect: float, sd: float, level: float, n: int) -> None:
    assert seeds_needed(effect, sd, level) == n


def test_no_number_of_seeds_shows_nothing() -> None:
    assert seeds_needed(0.0, 1.0, 0.025) is None
    assert seeds_needed(0.001, 1.0, 0.025) is None
    assert seeds_needed(1.0, 0.0, 0.025) == 2


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_cover_and_the_test_keeps_its_level(n: int) -> None:
    """Differences of two rows that share their seeds' luck: the pairing takes it out."""
    draw, trials = random.Random(n), 4000
    covered = found = 0
    for _ in range(trials):
        luck = [draw.gauss(0, 5) for _ in range(n)]
        a, b = ([each + draw.gauss(level, 2) for each in luck] for level in (71, 70))
        test = t_test([x - y for x, y in zip(a, b, strict=True)])
        covered += test.low <= 1 <= test.high
        found += t_test([x - y - 1 for x, y in zip(a, b, strict=True)]).p <= 0.05
    assert 0.93 <= covered / trials <= 0.97
    assert found / trials <= 0.06
