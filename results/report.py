"""`python -m results.report`: one HTML file with everything that published records say, readable without a network.

Text that comes from data is escaped by the template; style, script and pictures are inside the file, and its policy
forbids it to load anything. Equal records give equal bytes.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from results import claims, curves, publish, scorecard
from results.declared import table_of
from results.frame import Filled
from results.html import charts, sections
from results.record import RecordError, write_atomic
from results.schema import EMBEDDED, Publication

TEMPLATES = Path(__file__).parent / "html"


def render(folder: Path, scale: str) -> str:
    """The report of the records below `folder` at a scale.

    Raises RecordError for a file that cannot be read, or where there is none of that scale.
    """
    publications = _publications(folder, scale)
    if not publications:
        raise RecordError(
            f"{folder} holds no published table at scale {scale!r}; python -m experiments.sweep makes one"
        )
    judged = claims.judged(folder, scale)
    shown = [sections.section(Filled(table_of(each), each), _curves(folder, each)) for each in publications]
    records = [record for each in publications for record in each.records.values()]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("report.html").render(
        headline=scorecard.headline(judged, scale),
        how=scorecard.HOW.replace("`", ""),
        claims=sections.claimed(judged),
        sections=shown,
        environment=sections.environments(records),
        style=_own("style.css"),
        script=_own("sort.js"),
        width=charts.WIDTH,
        height=charts.HEIGHT,
        left=charts.LEFT,
        right=charts.RIGHT,
        bottom=charts.BOTTOM,
    )


def _own(name: str) -> Markup:
    """A file of ours, which is no data and must not be escaped."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _publications(folder: Path, scale: str) -> list[Publication]:
    found = [publish.load(path) for path in sorted(folder.glob("*.jsonl"))]
    return [each for each in found if each.scale == scale]


def _curves(folder: Path, publication: Publication) -> curves.Curves:
    path = folder / f"{publication.name}{curves.SUFFIX}"
    return curves.load(path) if path.exists() else {}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    made = argparse.ArgumentParser(
        prog="python -m results.report", description="One HTML file of all published results."
    )
    made.add_argument("--records", type=Path, default=publish.ROOT / "records", metavar="DIR", help="published records")
    made.add_argument("--scale", default=EMBEDDED, help="default: %(default)s")
    made.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="default: %(default)s")
    options = made.parse_args(arguments)
    try:
        write_atomic(options.out, render(options.records, options.scale))
    except (RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
