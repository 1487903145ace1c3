"""Student's t, Holm and the number of seeds: against printed tables, by hand, and by simulation."""

import random
import subprocess
import sys

import numpy as np
import pytest

from results.statistics.t_tests import holm, seeds_needed, t_quantile, t_test


@pytest.mark.parametrize(
    # the table of Fisher and Yates
    ("p", "df", "expected"),
    [(0.975, 1, 12.706), (0.975, 2, 4.303), (0.999, 4, 7.173), (0.8, 7, 0.896), (0.025, 30, -2.042)],
)
def test_quantiles_are_those_of_printed_tables(p: float, df: int, expected: float) -> None:
    assert t_quantile(p, df) == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize(
    "module", ["statistics.t_tests", "statistics.resampling", "statistics.hypotheses", "statistics.noise", "report"]
)
def test_scipy_waits_until_it_is_used(module: str) -> None:
    """Its import takes longer than most commands."""
    program = f"import sys, results.{module}; sys.exit('scipy' in sys.modules or 'statsmodels' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_test_by_hand() -> None:
    # t = 1.14 / (0.944987 / sqrt 5) = 2.6975 at 4 degrees of freedom; half-width 2.7764 x 0.42261
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
    ("effect", "sd", "level", "n"),
    [(1, 1, 0.025, 10), (-1, 2, 0.025, 34), (0.5, 1, 0.001, 67), (1, 0.5, 0.025 / 14, 8), (2.55, 1, 0.05 / 28, 7)],
)
def test_so_many_seeds_show_an_effect_four_times_in_five(effect: float, sd: float, level: float, n: int) -> None:
    assert seeds_needed(effect, sd, level) == n
    stream = np.random.default_rng(0)

    def shown(seeds: int) -> float:
        draws = stream.normal(abs(effect), sd, size=(100_000, seeds))
        t = draws.mean(axis=1) / draws.std(axis=1, ddof=1) * seeds**0.5
        return float((t > t_quantile(1 - level, seeds - 1)).mean())

    assert shown(n) > 0.795 and shown(n - 1) < 0.805


def test_no_number_of_seeds_shows_nothing() -> None:
    assert seeds_needed(0.0, 1.0, 0.025) is None
    assert seeds_needed(0.001, 1.0, 0.025) is None
    assert seeds_needed(1.0, 0.0, 0.025) == seeds_needed(1e9, 1.0, 0.025) == 2


@pytest.mark.parametrize("n", [3, 5])
def test_intervals_cover_and_the_test_keeps_its_level(n: int) -> None:
    """Differences of two rows that share their seeds' luck: the pairing takes it out."""
    draw, trials = random.Random(n), 1500
    covered = found = 0
    for _ in range(trials):
        luck = [draw.gauss(0, 5) for _ in range(n)]
        a, b = ([each + draw.gauss(level, 2) for each in luck] for level in (71, 70))
        test = t_test([x - y for x, y in zip(a, b, strict=True)])
        covered += test.low <= 1 <= test.high
        found += t_test([x - y - 1 for x, y in zip(a, b, strict=True)]).p <= 0.05
    assert 0.93 <= covered / trials <= 0.97
    assert found / trials <= 0.06
