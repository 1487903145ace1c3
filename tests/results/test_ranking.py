"""Orderings of the paper, on numbers small enough to check by eye."""

from results.ranking import Ranked, Verdict, orderings


def names(verdicts: list[Verdict]) -> list[tuple[str, str]]:
    return [(each.better, each.worse) for each in verdicts]


def test_each_ranked_pair_appears_once_with_the_papers_winner_first() -> None:
    rows = [Ranked("a", (1.0,), 10.0), Ranked("b", (3.0,), 30.0), Ranked("c", (2.0,), 20.0)]
    assert names(orderings(rows, higher_is_better=True)) == [("b", "a"), ("b", "c"), ("c", "a")]
    assert names(orderings(rows, higher_is_better=False)) == [("a", "b"), ("a", "c"), ("c", "b")]


def test_the_gap_is_positive_exactly_if_the_order_comes_out() -> None:
    a, b = Ranked("a", (5.0, 7.0), 2.0), Ranked("b", (1.0, 1.0), 1.0)
    (verdict,) = orderings([a, b], True)
    assert (verdict.paper_gap, verdict.gap) == (1.0, 5.0) and not verdict.within_noise
    (verdict,) = orderings([a, b], higher_is_better=False)  # the paper's winner is b, the smaller
    assert (verdict.better, verdict.paper_gap, verdict.gap) == ("b", 1.0, 5.0)
    (verdict,) = orderings([Ranked("a", b.values, 2.0), Ranked("b", a.values, 1.0)], True)
    assert verdict.gap == -5.0


def test_within_noise_is_the_sd_of_the_difference() -> None:
    # sd 3 and 4, hence 5 for the difference
    a, noise_4 = (0.0, 3 * 2**0.5), (0.0, 4 * 2**0.5)
    mean_gap = (noise_4[1] - a[1]) / 2
    for shift, within in ((5 - mean_gap - 0.01, True), (5 - mean_gap + 0.01, False)):
        moved = tuple(value + shift for value in noise_4)
        (verdict,) = orderings([Ranked("b", moved, 2.0), Ranked("a", a, 1.0)], True)
        assert verdict.within_noise is within


def test_ties_of_the_paper_and_rows_without_a_number_rank_nothing() -> None:
    rows = [Ranked("a", (1.0,), 10.0), Ranked("b", (2.0,), 10.0), Ranked("c", (3.0,), None), Ranked("d", (), 5.0)]
    assert orderings(rows, True) == []


def test_one_seed_has_no_noise_and_only_equality_is_undecided() -> None:
    (verdict,) = orderings([Ranked("a", (1.0,), 2.0), Ranked("b", (1.0, 2.0), 1.0)], True)
    assert verdict.noise is None and not verdict.within_noise
    (verdict,) = orderings([Ranked("a", (1.0,), 2.0), Ranked("b", (1.0,), 1.0)], True)
    assert verdict.within_noise
