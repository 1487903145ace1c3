"""The scorecard in Markdown: every claim of the paper, what became of it, and how sure that is."""

from collections import Counter
from collections.abc import Sequence

from results.page.markdown import DASH, escape, table
from results.page.words import listed, times
from results.statistics.hypotheses import FRESH, LEVEL, Judged, Verdict
from results.statistics.t_tests import TTest

DECISIVE = (Verdict.REPRODUCED, Verdict.REFUTED)


def lines(judged: Sequence[Judged], where: str) -> list[str]:
    """What it says in one sentence, the table of claims, and how they are judged."""
    rows = [
        [
            escape(each.claim.says),
            each.claim.section,
            f"**{each.verdict.value}**" if each.verdict in DECISIVE else each.verdict.value,
            f"{each.held} of {len(each.tests)}" if each.tests else DASH,
            _weakest(each),
            _effect(each),
            ", ".join(map(str, each.seeds)) or DASH,
            DASH if each.adjusted is None else p_value(each.adjusted),
            escape(next_step(each)),
        ]
        for each in judged
    ]
    header = ["the paper's claim", "where", "verdict", "parts above 0", "weakest part", "its mean and 95 % interval"]
    body = table([*header, "seeds", "p (Holm)", "what is missing"], rows, left=5)
    return [f"**{headline(judged, where)}**", "", *body, "", HOW]


def headline(judged: Sequence[Judged], where: str) -> str:
    """How many claims came out how. where: at which scale, under which settings (claims.py:where)."""
    counts = Counter(each.verdict for each in judged)
    said = listed(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])
    return f"{times(len(judged), 'claim')} of the paper ({where}): {said}."


def short(judged: Sequence[Judged], where: str) -> list[str]:
    """The scorecard in three columns, for a page that has little room."""
    rows = [[escape(each.claim.says), each.claim.section, _verdict(each)] for each in judged]
    return [f"**{headline(judged, where)}**", "", *table(["the paper's claim", "where", "verdict"], rows, left=3)]


def _verdict(each: Judged) -> str:
    """With what an undecided claim needs, or what speaks for and against an exploratory one."""
    word = f"**{each.verdict.value}**" if each.verdict in DECISIVE else each.verdict.value
    parts = f": {each.held} of {len(each.tests)} parts lean its way" if each.tests else ""
    missing = "" if each.verdict in DECISIVE else f" ({escape(next_step(each))})"
    return f"{word}{parts}{missing}"


HOW = (
    "A claim is reproduced when all of its parts hold. A part is a difference of rows, paired by seed, and holds above "
    "0; a margin is a weight in it, fixed with its reason in `results/claims.py` before the deciding runs were made. "
    f"Student's t, Holm over the claims that are decided together, level {LEVEL:g}. Only seeds from {FRESH} on decide: "
    "the recipe was chosen on earlier ones, so what those show is exploratory. Seeds added after a look at the "
    "verdicts are judged at the full level again, so adding some until a claim is decided errs more often. All seeds "
    "share one test set."
)


def parts(judged: Sequence[Judged]) -> list[str]:
    """Every part of every claim that has seeds enough for a test."""
    found: list[str] = []
    for each in judged:
        if each.tests:
            rows = [
                [escape(part.text), interval(test), f"{test.sd:.3g}", str(test.n), p_value(test.p)]
                for part, test in zip(each.claim.parts, each.tests, strict=True)
            ]
            title = f"## {escape(each.claim.says)}: {each.verdict.value}"
            about = f"Margins: {escape(each.claim.why)}."
            body = table(["part, above 0", "mean and 95 % interval", "s.d.", "seeds", "p of the part"], rows)
            found += ["", title, "", about, "", *body]
    return found


def interval(test: TTest) -> str:
    """A mean with its interval: "-3.1 [-5.2, -1.0]"."""
    return f"{test.mean:.3g} [{test.low:.3g}, {test.high:.3g}]"


def p_value(p: float) -> str:
    """Three digits, and never 0."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _weakest(each: Judged) -> str:
    return escape(each.claim.parts[each.weakest].text) if each.tests else DASH


def _effect(each: Judged) -> str:
    return interval(each.tests[each.weakest]) if each.tests else DASH


def next_step(each: Judged) -> str:
    """What an undecided claim needs, or why there is no decision."""
    if each.verdict is Verdict.UNDECIDED:
        if each.needed is None:
            return "more than 1,000 seeds"
        leans = "refute" if any(test.mean < 0 for test in each.tests) else "show"  # as _decide counts them
        return f"{each.needed} seeds would {leans} it, if means stay"
    return each.why or DASH
