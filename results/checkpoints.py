"""`python -m results.checkpoints table1 LCL CLIP`: two checkpoints of a published table compared over test items.

A question about these two encoders and their heads, as of one seed. Whether one objective is better than another is a
question over seeds: `python -m results.claims`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from results import publish
from results.details import items
from results.details.items import Scores
from results.page.markdown import escape, table
from results.record import RecordError
from results.schema import Publication
from results.scorecard import p_value
from results.statistics.resampling import DRAWS, Paired, Spread, compare, metrics_of, spread
from results.statistics.t_tests import holm

ABOUT = (
    "95 % intervals over test images ({draws:,} draws; the gallery of a retrieval and the document frequencies of "
    "CIDEr stay fixed). p by McNemar's exact test where every image is a hit or a miss, by flipping the signs of the "
    "images' differences for other means, else (BLEU, F1) by the draws beyond 0; Holm over the lines here. This is "
    "about these two checkpoints: another seed of the same rows may differ by more."
)


class ComparisonError(ValueError):
    """A comparison that cannot be made; the message says what there is."""


def page(publication: Publication, found: dict[str, Scores], rows: tuple[str, str], seed: int) -> list[str]:
    """The comparison of two rows at one seed, in Markdown.

    Raises ComparisonError for a row without item scores at that seed, or two rows without a common metric.
    """
    first, second = (_scores(publication, found, row, seed) for row in rows)
    ours, theirs = ({each.metric: each for each in metrics_of(scores)} for scores in (first, second))
    common = [metric for metric in ours if metric in theirs]
    if not common:
        raise ComparisonError(f"{rows[0]} and {rows[1]} have no metric in common; choose two rows with one task")
    pairs = [compare(ours[metric], theirs[metric]) for metric in common]
    adjusted = holm([pair.p for pair in pairs])
    lines = [
        _line(pair, (spread(ours[pair.metric]), spread(theirs[pair.metric])), p)
        for pair, p in zip(pairs, adjusted, strict=True)
    ]
    names = [f"{escape(row)}, seed {seed}" for row in rows]
    body = table(["metric", "images", *names, "difference", "test", "p", "p (Holm)"], lines)
    return [*body, "", ABOUT.format(draws=DRAWS)]


def _line(pair: Paired, values: tuple[Spread, Spread], adjusted: float) -> list[str]:
    numbers = [f"{each.value:.1f} [{each.low:.1f}, {each.high:.1f}]" for each in (*values, pair.difference)]
    return [escape(pair.metric), str(pair.images), *numbers, pair.test, p_value(pair.p), p_value(adjusted)]


def _scores(publication: Publication, found: dict[str, Scores], row: str, seed: int) -> Scores:
    """Item scores of all of a row's transfers at a seed."""
    slots = [slot for slot in publication.slots if slot.row == row]
    scores: Scores = {}
    for slot in slots:
        if slot.seed == seed:
            scores |= found.get(slot.run_id, {})
    if not scores:
        rows = dict.fromkeys(slot.row for slot in publication.slots if slot.row)
        seeds = sorted({slot.seed for slot in slots if slot.run_id in found})
        there = f"it has seeds {', '.join(map(str, seeds))}" if seeds else f"rows are {', '.join(rows)}"
        raise ComparisonError(f"{publication.name} has no item scores of {row!r} at seed {seed}; {there}")
    return scores


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    made = argparse.ArgumentParser(prog="python -m results.checkpoints", description="Two checkpoints, item by item.")
    made.add_argument("table", help="a published table, as table1 or table4")
    made.add_argument("first", help="a row of it")
    made.add_argument("second", help="another")
    made.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    made.add_argument("--records", type=Path, default=publish.ROOT / "records", metavar="DIR", help="published records")
    options = made.parse_args(arguments)
    try:
        publication = publish.load(options.records / f"{options.table}.jsonl")
        found = items.load(options.records / f"{options.table}{items.SUFFIX}")
        lines = page(publication, found, (options.first, options.second), options.seed)
    except (ComparisonError, RecordError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; a sweep writes the records of a table", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
