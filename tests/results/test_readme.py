"""The README shows the committed table, and every committed table is what its committed records render to."""

import subprocess
from pathlib import Path

import pytest

from experiments.tables import get_table
from results import publish, readme, report
from results.claims import CLAIMS
from results.declared import table_of
from results.html.standalone import svg

# Tables as they are declared, and one folder more for each value of a setting that a table was swept under.
FOLDERS = [publish.ROOT, *sorted(path.parent for path in publish.ROOT.glob("*-*/records"))]
GOLDEN = Path(__file__).parents[1] / "golden" / "report" / "table1.md"


def made_here(path: Path) -> bool:
    """Whether the file differs from the repository's, as after a sweep of one's own."""
    command = ["git", "-C", str(path.parent), "status", "--porcelain", "--", path.name]
    try:
        return bool(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip())
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return False


def test_the_readme_shows_the_committed_table() -> None:
    if made_here(readme.PAGE):
        pytest.skip("the table was made again here; run python -m results.readme before committing it")
    text = readme.README.read_text(encoding="utf-8")
    assert text == readme.refreshed(text, readme.block()), "run python -m results.readme"
    made = readme.refreshed(text, readme.verdicts(), readme.CLAIMS_BEGIN, readme.CLAIMS_END)
    assert text == made, "run python -m results.readme"


def test_the_scorecard_names_its_scale_and_every_claim() -> None:
    shown = readme.verdicts()
    assert shown.startswith(f"**{len(CLAIMS)} claims of the paper (TINY SCALE, not comparable with the paper): ")
    assert len([line for line in shown.splitlines() if line.startswith("| ")]) == len(CLAIMS) + 2


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_committed_table_is_made_of_its_committed_records(folder: Path, tmp_path: Path) -> None:
    made = set()
    for path in sorted((folder / "records").glob("*.jsonl")):
        publication = publish.load(path)
        # Under a setting some rows may be left out, so there the table is what its records say.
        table = get_table(publication.table) if folder == publish.ROOT else table_of(publication)
        made |= {again.name for again in publish.collate(table, publication, tmp_path)}
    committed = {path.name for path in (folder / "tables").glob("*") if path.suffix in (".md", ".csv", ".tex")}
    assert committed == made
    for name in sorted(made):
        assert (folder / "tables" / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_every_committed_figure_is_made_of_committed_records() -> None:
    """Of the tables themselves, and of one table under the values of a setting: folders that differ after the dash."""
    groups: dict[str, list[Path]] = {}
    for folder in FOLDERS:
        groups.setdefault(folder.name.rpartition("-")[0], []).append(folder / "records")
    made = {
        f"{figure.name}.svg": svg(figure)
        for first, *others in groups.values()
        for figure in report.load(first, "tiny", others).figures()
    }
    committed = {path.name: path.read_text(encoding="utf-8") for path in (publish.ROOT / "figures").glob("*.svg")}
    assert committed == made and made


def test_a_committed_page_is_short_enough_to_be_read() -> None:
    for page in (publish.ROOT / "tables").glob("*.md"):
        if not made_here(page):
            lines = page.read_text(encoding="utf-8").splitlines()
            assert len(lines) <= (175 if "# Full transfer" in lines else 135), page.name  # that is two tables


def test_the_block_is_the_title_with_its_warning_the_findings_and_the_first_table() -> None:
    shown = readme.block(GOLDEN)
    assert shown.startswith("**Table 1: TINY SCALE, not comparable with the paper**\n\n- **Learned**")
    assert "\n\nMean ± standard deviation" in shown
    rows = [line for line in shown.splitlines() if line.startswith("|")]
    assert len(rows) == 14 and "LCL" in shown and "*chance*" in rows[-1]
    assert "(a) not run yet" in shown and "The paper's numbers" not in shown and "paper:" not in shown


def test_refreshing_twice_changes_nothing_and_keeps_what_stands_around() -> None:
    page = f"above\n\n{readme.BEGIN}\n\nold\n\n{readme.END}\n\nbelow\n"
    once = readme.refreshed(page, "| new |")
    assert once == f"above\n\n{readme.BEGIN}\n\n| new |\n\n{readme.END}\n\nbelow\n"
    assert readme.refreshed(once, "| new |") == once
    assert readme.refreshed(once, "") == f"above\n\n{readme.BEGIN}\n\n{readme.END}\n\nbelow\n"


@pytest.mark.parametrize(
    "page", ["none", readme.BEGIN, f"{readme.END} {readme.BEGIN}", f"{readme.BEGIN} {readme.BEGIN} {readme.END}"]
)
def test_a_readme_without_its_two_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="each once"):
        readme.refreshed(page, "")


def test_a_page_that_is_none_is_refused_and_a_missing_one_is_empty(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A title\n\nand no table\n")
    with pytest.raises(ValueError, match="no section '## What was found'"):
        readme.block(tmp_path / "page.md")
    assert readme.block(tmp_path / "missing.md") == ""
