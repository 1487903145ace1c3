"""A claim of the paper as a hypothesis over seeds: what it says in numbers, and how it is judged.

A claim is a list of parts that must all hold. A part is a weighted sum of rows in one measure that must exceed 0, so a
margin is a weight: "LCL - 0.95 CLIP > 0" is "LCL reaches 95 % of CLIP". Parts are paired by seed, as the runs of a seed
share their initial backbones and the order of their documents.

Evidence for a claim is the largest p of its parts (intersection-union: all must hold, so nothing is corrected), against
it the smallest p of a part in the other direction times the number of parts. Twice the smaller of the two is the p of
the claim, and Holm's over all claims that are judged together decides at 5 %.

Only fresh seeds decide: from FRESH on, finished after the claim was declared. The recipe of the embedded scale was
chosen on earlier ones.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from results.schema import Publication, RunRecord, Status
from results.statistics.t_tests import TTest, holm, seeds_needed, t_test

FRESH = 10  # the first seed that no choice of this suite has seen
LEVEL = 0.05


@dataclass(frozen=True)
class Measure:
    """A number of a run's record."""

    stage: str  # whose record: "pretrain" or a transfer task
    key: str  # in RunRecord.metrics
    name: str


@dataclass(frozen=True)
class Part:
    """A weighted sum of rows, by label, in one measure, which a claim says is above 0."""

    measure: Measure
    weights: Mapping[str, float]

    @property
    def text(self) -> str:
        """As a formula: "LCL − 0.95 CLIP in COCO TR@1"."""
        terms = [_term(label, weight, first=not place) for place, (label, weight) in enumerate(self.weights.items())]
        return f"{' '.join(terms)} in {self.measure.name}"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the paper says, and the numbers that would show it."""

    name: str
    section: str  # of the paper
    says: str
    table: str  # whose runs decide
    parts: tuple[Part, ...]
    why: str  # reasons for the margins, and for what is compared
    seeds: int  # fresh ones that are planned; with fewer nothing is decided
    declared: str  # ISO 8601, UTC: before the deciding runs were made


class Verdict(Enum):
    """What became of a claim."""

    REPRODUCED = "reproduced"
    REFUTED = "refuted"
    UNDECIDED = "undecided"
    NOT_RUN = "not run"
    EXPLORATORY = "exploratory"  # there are runs, but of seeds the recipe was chosen on


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A claim with its verdict."""

    claim: Claim
    verdict: Verdict
    why: str = ""  # for a claim without a decision
    seeds: tuple[int, ...] = ()
    tests: tuple[TTest, ...] = ()  # of its parts; empty with fewer than two seeds
    adjusted: float | None = None  # Holm's p; None where the claim takes no part in the family
    needed: int | None = None  # seeds that would decide an undecided claim; None: no such number is known

    @property
    def weakest(self) -> int:
        """Which part decides: the one that speaks least for the claim."""
        return max(range(len(self.tests)), key=lambda each: self.tests[each].p_above)

    @property
    def held(self) -> int:
        """Parts whose mean is above 0."""
        return sum(test.mean > 0 for test in self.tests)


def judge(claims: Sequence[Claim], publications: Mapping[str, Publication]) -> list[Judged]:
    """Verdicts in the order of the claims. publications: by table; a table without one was not run."""
    seen = [_look(claim, publications.get(claim.table)) for claim in claims]
    family = [each for each in seen if each.verdict is Verdict.UNDECIDED]
    adjusted = holm([min(1.0, 2 * min(_for(each), _against(each))) for each in family])
    verdicts = {each.claim.name: _decide(each, p, len(family)) for each, p in zip(family, adjusted, strict=True)}
    return [verdicts.get(each.claim.name, each) for each in seen]


def _look(claim: Claim, publication: Publication | None) -> Judged:
    """The claim's seeds and tests; UNDECIDED where there are enough to decide."""
    if publication is None:
        return Judged(claim=claim, verdict=Verdict.NOT_RUN, why=f"there are no records of {claim.table}")
    values, early = _values(claim, publication)
    fresh = [seed for seed in values if seed >= FRESH and seed not in early]
    chosen = fresh or [seed for seed in values if seed < FRESH]
    tests = tuple(map(t_test, zip(*(values[seed] for seed in chosen), strict=True))) if len(chosen) > 1 else ()
    if not chosen:
        return Judged(claim=claim, verdict=Verdict.NOT_RUN, why=_missing(claim, publication, early & values.keys()))
    if not fresh:
        why = "the recipe was chosen on these seeds"
        return Judged(claim=claim, verdict=Verdict.EXPLORATORY, why=why, seeds=tuple(chosen), tests=tests)
    if len(fresh) < claim.seeds:
        why = f"{len(fresh)} of {claim.seeds} planned seeds"
        return Judged(claim=claim, verdict=Verdict.NOT_RUN, why=why, seeds=tuple(fresh), tests=tests)
    return Judged(claim=claim, verdict=Verdict.UNDECIDED, seeds=tuple(fresh), tests=tests)


def _values(claim: Claim, publication: Publication) -> tuple[dict[int, list[float]], set[int]]:
    """The parts' sums for each seed that has them all, in order; and seeds that were run before the declaration."""
    records = {
        (slot.row, slot.stage, slot.seed): record
        for slot in publication.slots
        if (record := publication.records.get(slot.run_id)) is not None and record.status is Status.DONE
    }
    values: dict[int, list[float]] = {}
    early: set[int] = set()
    for seed in sorted({slot.seed for slot in publication.slots}):
        found = [_sum(part, seed, records) for part in claim.parts]
        sums = [each for each in found if each is not None]
        if len(sums) == len(found):
            values[seed] = sums
        rows = {label for part in claim.parts for label in part.weights}
        times = [record.finished_at for (row, _, s), record in records.items() if s == seed and row in rows]
        if any(time[:19] < claim.declared[:19] for time in times):  # both are UTC, to the second
            early.add(seed)
    return values, early


def _sum(part: Part, seed: int, records: Mapping[tuple[str, str, int], RunRecord]) -> float | None:
    terms = []
    for label, weight in part.weights.items():
        record = records.get((label, part.measure.stage, seed))
        if record is None or part.measure.key not in record.metrics:
            return None
        terms.append(weight * record.metrics[part.measure.key])
    return sum(terms)


def _missing(claim: Claim, publication: Publication, early: set[int]) -> str:
    rows = list(dict.fromkeys(label for part in claim.parts for label in part.weights))
    known = {slot.row for slot in publication.slots}
    if early:
        return (
            f"seeds {', '.join(map(str, sorted(early)))} were run before the claim was declared, {claim.declared[:10]}"
        )
    absent = [label for label in rows if label not in known]
    if absent:
        return f"{claim.table} has no runs of {', '.join(absent)}"
    return f"no seed has all numbers of {', '.join(rows)}"


def _for(judged: Judged) -> float:
    return max(test.p_above for test in judged.tests)


def _against(judged: Judged) -> float:
    return min(1.0, len(judged.tests) * min(test.p_below for test in judged.tests))


def _decide(judged: Judged, adjusted: float, family: int) -> Judged:
    claim, tests = judged.claim, judged.tests
    verdict = Verdict.REPRODUCED if _for(judged) < _against(judged) else Verdict.REFUTED
    if adjusted <= LEVEL:
        return Judged(claim=claim, verdict=verdict, seeds=judged.seeds, tests=tests, adjusted=adjusted)
    level = LEVEL / 2 / family  # the strictest step of Holm's
    against = [seeds_needed(test.mean, test.sd, level / len(tests)) for test in tests if test.mean < 0]
    if against:  # a claim with a part on the wrong side can only be refuted, for which one part is enough
        needed = min((each for each in against if each is not None), default=None)
    else:
        support = [seeds_needed(test.mean, test.sd, level) for test in tests]
        needed = None if None in support else max(each for each in support if each is not None)
    return Judged(
        claim=claim, verdict=Verdict.UNDECIDED, seeds=judged.seeds, tests=tests, adjusted=adjusted, needed=needed
    )


def _term(label: str, weight: float, first: bool) -> str:
    sign = "" if first and weight > 0 else "−" if first else "− " if weight < 0 else "+ "
    return f"{sign}{'' if abs(weight) == 1 else f'{abs(weight):g} '}{label}"
