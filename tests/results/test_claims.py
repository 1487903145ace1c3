"""The declared claims ask for rows, columns and weights that exist, and the paper's own numbers fulfil them."""

from pathlib import Path

import pytest

from experiments.tables import get_table
from results import claims
from results.claims import CLAIMS, TEXT_LOSS, UNTOUCHED
from results.paper import value
from results.publish import ROOT
from results.statistics.hypotheses import FRESH, Claim, Judged, Verdict, judge


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_claim_asks_for_rows_and_columns_of_its_table(claim: Claim) -> None:
    table = get_table(claim.table)
    known = {(column.task, column.metric_key) for column in table.columns} | {(TEXT_LOSS.stage, TEXT_LOSS.key)}
    assert {(part.measure.stage, part.measure.key) for part in claim.parts} <= known
    assert {label for part in claim.parts for label in part.weights} <= {row.label for row in table.rows}
    assert claim.why and claim.seeds >= 3


def test_claims_have_names_of_their_own() -> None:
    assert len({claim.name for claim in CLAIMS}) == len(CLAIMS)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_the_papers_own_numbers_fulfil_its_claims(claim: Claim) -> None:
    """With an untouched encoder that scores nothing, which the paper does not print."""
    table = get_table(claim.table)
    rows = {row.label: row for row in table.rows}
    columns = {(column.task, column.metric_key): column.key for column in table.columns}
    for part in claim.parts:
        if part.measure is TEXT_LOSS:
            pytest.skip("the paper prints no text loss")
        column = columns[part.measure.stage, part.measure.key]
        numbers = {
            label: 0.0 if label == UNTOUCHED else value(table.paper_csv, rows[label].paper, column)
            for label in part.weights
        }
        assert sum(weight * (numbers[label] or 0.0) for label, weight in part.weights.items()) > 0, part.text


def test_committed_seeds_below_the_fresh_ones_decide_no_claim() -> None:
    """Whatever is committed: a verdict stands on fresh seeds only."""

    def fresh(each: Judged) -> bool:
        return min(each.seeds, default=0) >= FRESH and len(each.seeds) >= each.claim.seeds

    found = judge(claims.CLAIMS, claims.load(ROOT / "records", "tiny"))
    assert len(found) == len(CLAIMS)
    assert all(fresh(each) for each in found if each.verdict in (Verdict.REPRODUCED, Verdict.REFUTED))


def test_the_command_prints_every_claim(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert claims.main(["--records", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("**16 claims of the paper (TINY SCALE, not comparable with the paper): 16 not run.**")
    assert all(claim.section in said for claim in CLAIMS) and "there are no records of table6b" in said
    assert claims.main(["--parts"]) == 0
    assert "0.5 Random encoder + 0.5 LCL − Emu in NoCaps CIDEr" in capsys.readouterr().out


def test_a_folder_that_is_not_there_and_a_file_that_is_none_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert claims.main(["--records", str(tmp_path / "none")]) == 2
    (tmp_path / "table1.jsonl").write_text("no json\n")
    assert claims.main(["--records", str(tmp_path)]) == 2
    assert "table1.jsonl, line 1" in capsys.readouterr().err
