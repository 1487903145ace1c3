"""Orderings of the paper, on numbers small enough to check by eye."""

from results.statistics.noise import Standing
from results.statistics.ranking import PAPER_GAP, Ordering, Ranked, orderings


def names(found: list[Ordering]) -> list[tuple[str, str]]:
    return [(each.better, each.worse) for each in found]


def test_each_ranked_pair_appears_once_with_the_papers_winner_first() -> None:
    rows = [Ranked("a", (1.0,), 10.0), Ranked("b", (3.0,), 30.0), Ranked("c", (2.0,), 20.0)]
    assert names(orderings(rows, higher_is_better=True)) == [("b", "a"), ("b", "c"), ("c", "a")]
    assert names(orderings(rows, higher_is_better=False)) == [("a", "b"), ("a", "c"), ("c", "b")]


def test_the_gap_is_positive_exactly_if_the_order_comes_out() -> None:
    a, b = Ranked("a", (5.0, 7.0), 12.0), Ranked("b", (1.0, 1.0), 1.0)
    (found,) = orderings([a, b], True)
    assert (found.paper_gap, found.gap) == (11.0, 5.0)
    (found,) = orderings([a, b], higher_is_better=False)  # the paper's winner is b, the smaller
    assert (found.better, found.paper_gap, found.gap) == ("b", 11.0, 5.0)
    (found,) = orderings([Ranked("a", b.values, 12.0), Ranked("b", a.values, 1.0)], True)
    assert found.gap == -5.0


def test_what_comes_of_an_ordering_is_its_standing() -> None:
    high, low = (10.0, 11.0, 12.0), (1.0, 2.0, 3.0)
    for first, second, expected in ((high, low, "above"), (low, high, "below"), (high, high, "undecided")):
        (found,) = orderings([Ranked("a", first, 12.0), Ranked("b", second, 1.0)], True)
        assert found.standing is Standing(expected)


def test_a_gap_of_the_paper_below_its_minimum_ranks_nothing() -> None:
    def ranked(gap: float) -> list[Ordering]:
        return orderings([Ranked("a", (1.0,), round(2.1 + gap, 1)), Ranked("b", (2.0,), 2.1)], True)

    assert ranked(PAPER_GAP - 0.1) == [] and ranked(0.0) == []
    assert names(ranked(PAPER_GAP)) == [("a", "b")]  # in floats 4.1 - 2.1 is less than 2


def test_rows_without_a_number_rank_nothing() -> None:
    assert orderings([Ranked("a", (1.0,), 10.0), Ranked("c", (3.0,), None), Ranked("d", (), 50.0)], True) == []
