"""A table comes back out of its published records as it was declared."""

from dataclasses import replace

import pytest
from results_helpers import publication

from experiments.tables import TABLES
from results.canonical import plain
from results.declared import table_of
from results.record import RecordError
from results.schema import Table


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES.keys())
def test_a_declaration_comes_back_whole(table: Table) -> None:
    assert table_of(publication({}, declared=plain(table))) == table


def test_records_without_a_declaration_say_how_to_make_one() -> None:
    with pytest.raises(RecordError, match="table1 --collate"):
        table_of(publication({}))


@pytest.mark.parametrize("broken", [{"rows": None}, {"columns": [{}]}, {"rows": [{"name": "x"}]}])
def test_a_declaration_that_is_none_is_refused_by_name(broken: dict[str, object]) -> None:
    held = {**plain(TABLES["table1"]), **broken}
    with pytest.raises(RecordError, match=r"table1\.jsonl: the declaration"):
        table_of(replace(publication({}), declared=held))
