"""A table's declaration inside its published records, so that whoever has the records can print the table."""

from collections.abc import Mapping
from typing import Any

from results.record import RecordError
from results.schema import Analogue, Column, Publication, Row, Table


def table_of(publication: Publication) -> Table:
    """The table that a publication was made for.

    Raises RecordError where the publication holds none, as those of before 0.4.0, or one that cannot be read.
    """
    name, held = publication.name, publication.declared
    if not held:
        raise RecordError(
            f"{name}.jsonl does not hold the declaration of its table; "
            f"make it again: python -m experiments.sweep {publication.table} --collate"
        )
    try:
        columns, more = (tuple(map(_column, held[key])) for key in ("columns", "more_columns"))
        rows = tuple(Row(**{**row, "only_at": tuple(row["only_at"])}) for row in held["rows"])
        references = tuple(held["references"])
        return Table(**{**held, "columns": columns, "more_columns": more, "rows": rows, "references": references})
    except (KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{name}.jsonl: the declaration of its table cannot be read ({error})") from None


def _column(held: Mapping[str, Any]) -> Column:
    analogue = {scale: Analogue(**each) for scale, each in held["analogue"].items()}
    lists = {name: tuple(held.get(name, ())) for name in ("item_scores", "only_at")}
    return Column(**{**held, **lists, "analogue": analogue})
