"""The measured table and the scorecard inside README.md, made and never typed: `python -m results.readme`.

tests/results/test_readme.py compares the two, so a README that shows other numbers than results/tables/ fails.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from results import claims, scorecard
from results.publish import ROOT
from results.record import write_atomic
from results.schema import EMBEDDED
from results.statistics.hypotheses import judge

README = ROOT.parent / "README.md"
PAGE = ROOT / "tables" / "table1.md"
BEGIN, END = "<!-- table1:begin -->", "<!-- table1:end -->"
CLAIMS_BEGIN, CLAIMS_END = "<!-- claims:begin -->", "<!-- claims:end -->"
FIRST, SECOND = "## What was found", "## Measured here"


def block(page: Path = PAGE) -> str:
    """What the README shows of a table's page: title with warning, what was found, the measured table with its notes.

    Empty where the page does not exist. Raises ValueError where it is no page of `results.page.printed`.
    """
    if not page.is_file():
        return ""
    text = page.read_text(encoding="utf-8")
    title = text.partition("\n")[0]
    parts = [text.partition(f"\n{section}\n")[2].partition("\n## ")[0].strip() for section in (FIRST, SECOND)]
    if not all(parts) or not title.startswith("# "):
        wanted = f"no title, no section {FIRST!r} or no section {SECOND!r}"
        raise ValueError(f"{page} has {wanted}; make it again with the sweep's --collate")
    return "\n\n".join([f"**{title.removeprefix('# ')}**", *parts])


def verdicts(folder: Path = ROOT / "records") -> str:
    """What the README shows of the scorecard: how many claims came out how, and each with its verdict."""
    held = claims.load(folder, EMBEDDED)
    return "\n".join(scorecard.short(judge(claims.CLAIMS, held), claims.where(held)))


def refreshed(readme: str, shown: str, begin: str = BEGIN, end: str = END) -> str:
    """The README with that text between its two markers. Raises ValueError unless each marker stands there once."""
    if (readme.count(begin), readme.count(end)) != (1, 1) or readme.index(begin) > readme.index(end):
        raise ValueError(f"{README.name} must hold {begin} and then {end}, each once")
    above, below = readme.partition(begin)[0], readme.partition(end)[2]
    return "\n\n".join(part for part in (above + begin, shown, end + below) if part)


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the README up to date; the exit code."""
    argparse.ArgumentParser(
        prog="python -m results.readme", description="Write Table 1 and the scorecard into README.md, between markers."
    ).parse_args(arguments)
    text = refreshed(README.read_text(encoding="utf-8"), block())
    write_atomic(README, refreshed(text, verdicts(), CLAIMS_BEGIN, CLAIMS_END))
    print(f"{README.name} shows {PAGE.relative_to(ROOT.parent)} and the scorecard")
    return 0


if __name__ == "__main__":
    sys.exit(main())
