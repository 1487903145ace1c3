"""`python -m results.report`: one HTML file with everything that published records say, readable without a network.

Text that comes from data is escaped by the template; style, script and pictures are inside the file, and its policy
forbids it to load anything. Equal records give equal bytes.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from results import claims, publish, scorecard
from results.declared import table_of
from results.details import curves, items, samples
from results.frame import Filled
from results.html import sections
from results.html.figures import Figure, budget_figure, setting_figure
from results.html.standalone import svg
from results.html.templates import own, template
from results.page import transfers
from results.record import RecordError, write_atomic
from results.schema import EMBEDDED
from results.statistics.hypotheses import judge


@dataclass(frozen=True)
class Report:
    """Published tables, each with the folder of its records."""

    scale: str
    own: tuple[tuple[Filled, Path], ...]  # the paper's claims are judged by these alone
    others: tuple[tuple[Filled, Path], ...] = ()  # the same tables under other settings

    def page(self) -> str:
        """The HTML file. Raises RecordError as `figures` does and for files beside the records that cannot be read."""
        tables = (*self.own, *self.others)
        held = {
            filled.publication.table: filled.publication
            for filled, _ in self.own
            if filled.publication.table in claims.TABLES
        }
        judged = judge(claims.CLAIMS, held)
        shown = [_section(filled, folder) for filled, folder in tables]
        return template("report.html").render(
            headline=scorecard.headline(judged, claims.where(held, self.scale)),
            how=scorecard.HOW.replace("`", ""),
            claims=sections.claimed(judged),
            compared=self._compared(),
            sections=sections.each_run_once(shown),
            environment=sections.environments(
                [record for filled, _ in tables for record in filled.publication.records.values()]
            ),
            about_protocols=transfers.ABOUT.replace("`", ""),
            style=own("style.css"),
            script=own("sort.js"),
        )

    def figures(self) -> list[Figure]:
        """What is drawn of whole tables: what each method needs, and settings compared.

        Raises RecordError where tables of one name differ otherwise than in one number.
        """
        budgets = [budget_figure(filled) for filled, _ in self.own]
        return [*(figure for figure in budgets if figure is not None), *self._compared()]

    def _compared(self) -> list[Figure]:
        """A figure for every table that is there under several settings."""
        groups: dict[str, list[Filled]] = {}
        for filled, _ in (*self.own, *self.others):
            groups.setdefault(filled.publication.name, []).append(filled)
        found = [setting_figure(each) for each in groups.values()]
        return [figure for figure in found if figure is not None]


def load(folder: Path, scale: str, others: Sequence[Path] = ()) -> Report:
    """The report of the records below `folder` at a scale, and of the same tables below `others` under other settings.

    Raises RecordError for a file that cannot be read, or where there is none of that scale.
    """
    found = Report(scale, _tables(folder, scale), tuple(table for other in others for table in _tables(other, scale)))
    if not found.own and not found.others:
        raise RecordError(
            f"{folder} holds no published table at scale {scale!r}; python -m experiments.sweep makes one"
        )
    return found


def _tables(folder: Path, scale: str) -> tuple[tuple[Filled, Path], ...]:
    held = [publish.load(path) for path in sorted(folder.glob("*.jsonl"))]
    return tuple((Filled(table_of(each), each), folder) for each in held if each.scale == scale)


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
    made.add_argument(
        "--figures", type=Path, metavar="DIR", help="also write figures of whole tables as SVG files, for a document"
    )
    options = made.parse_args(arguments)
    for folder in (options.records, *options.also):
        if not folder.is_dir():
            print(f"error: there is no folder {folder}; a sweep writes one, OUT/records", file=sys.stderr)
            return 2
    try:
        found = load(options.records, options.scale, options.also)
        written = {options.out: found.page()}
        if options.figures is not None:
            written |= {options.figures / f"{figure.name}.svg": svg(figure) for figure in found.figures()}
        for path, text in written.items():
            write_atomic(path, text)
    except (RecordError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(map(str, written)))
    if options.figures is not None and len(written) == 1:
        print("no figures: no table varies its budget, and none is there under several settings", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
