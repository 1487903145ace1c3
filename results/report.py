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

from results import claims, publish, scorecard
from results.declared import table_of
from results.details import curves, items, samples
from results.frame import Filled
from results.html import charts, figures, sections
from results.page import transfers
from results.record import RecordError, write_atomic
from results.schema import EMBEDDED, Publication

TEMPLATES = Path(__file__).parent / "html"


def render(folder: Path, scale: str, others: Sequence[Path] = ()) -> str:
    """The report of the records below `folder` at a scale, and of the same tables below `others` under other settings.

    The paper's claims are judged by `folder` alone. Raises RecordError for a file that cannot be read, where there is
    none of that scale, or where a table's settings differ otherwise than in one number.
    """
    loaded = [(held, each) for held in (folder, *others) for each in _publications(held, scale)]
    if not loaded:
        raise RecordError(
            f"{folder} holds no published table at scale {scale!r}; python -m experiments.sweep makes one"
        )
    tables = [(Filled(table_of(each), each), held) for held, each in loaded]
    judged = claims.judged(folder, scale)
    shown = [_section(filled, held) for filled, held in tables]
    records = [record for filled, _ in tables for record in filled.publication.records.values()]
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("report.html").render(
        headline=scorecard.headline(judged, claims.where(folder, scale)),
        how=scorecard.HOW.replace("`", ""),
        claims=sections.claimed(judged),
        compared=_compared([filled for filled, _ in tables]),
        sections=sections.each_run_once(shown),
        environment=sections.environments(records),
        about_protocols=transfers.ABOUT.replace("`", ""),
        style=_own("style.css"),
        script=_own("sort.js"),
        width=charts.WIDTH,
        height=charts.HEIGHT,
        left=charts.LEFT,
        right=charts.RIGHT,
        bottom=charts.BOTTOM,
    )


def _compared(tables: Sequence[Filled]) -> list[figures.Figure]:
    """A figure for every table that is there under several settings."""
    groups: dict[str, list[Filled]] = {}
    for filled in tables:
        groups.setdefault(filled.publication.name, []).append(filled)
    found = [figures.setting_figure(each) for each in groups.values()]
    return [figure for figure in found if figure is not None]


def _own(name: str) -> Markup:
    """A file of ours, which is no data and must not be escaped."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))


def _publications(folder: Path, scale: str) -> list[Publication]:
    found = [publish.load(path) for path in sorted(folder.glob("*.jsonl"))]
    return [each for each in found if each.scale == scale]


def _section(filled: Filled, folder: Path) -> sections.Section:
    """A table with what lies beside its records; what does not lie there is left out."""
    path = {kind: folder / f"{filled.publication.name}{kind.SUFFIX}" for kind in (curves, items, samples)}
    return sections.section(
        filled,
        curves.load(path[curves]) if path[curves].exists() else {},
        items.load(path[items]) if path[items].exists() else {},
        samples.load(path[samples]) if path[samples].exists() else samples.Samples(),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; its exit code."""
    made = argparse.ArgumentParser(
        prog="python -m results.report", description="One HTML file of all published results."
    )
    made.add_argument("--records", type=Path, default=publish.ROOT / "records", metavar="DIR", help="published records")
    made.add_argument(
        "--also",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="more records: the same tables under other values of one setting, drawn against it; may be repeated",
    )
    made.add_argument("--scale", default=EMBEDDED, help="default: %(default)s")
    made.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE", help="default: %(default)s")
    options = made.parse_args(arguments)
    for folder in (options.records, *options.also):
        if not folder.is_dir():
            print(f"error: there is no folder {folder}; a sweep writes one, OUT/records", file=sys.stderr)
            return 2
    try:
        write_atomic(options.out, render(options.records, options.scale, options.also))
    except (RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
