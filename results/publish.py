"""The committed form of a table: results/records/<table>.jsonl, from which results/tables/ can be made again.

The first line is the publication without its records (which run fills which slot, the paper's recipe beside it); every
further line is one run record, by run_id. Wall-clock fields stay as recorded but never reach a printed table.
"""

from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from pathlib import Path

from results.canonical import canonical_json, plain
from results.page.latex import render_latex
from results.page.printed import render, render_csv, render_long
from results.record import RecordError, as_json, check_version, decode, parse, write_atomic
from results.schema import Publication, Slot, Table

ROOT = Path(__file__).parent


def export(publication: Publication, folder: Path = ROOT / "records") -> Path:
    """Write a publication with the records its slots name, and no others; the path of the file."""
    wanted = {slot.run_id for slot in publication.slots} & publication.records.keys()
    header = plain(replace(publication, records={}))
    for name in ("own_sets", "declared", "settings"):  # of later versions: what they do not apply to keeps its bytes
        if not header[name]:
            del header[name]
    lines = [header, *(as_json(publication.records[run_id]) for run_id in sorted(wanted))]
    path = folder / f"{publication.name}.jsonl"
    write_atomic(path, "".join(f"{canonical_json(line)}\n" for line in lines))
    return path


def load(path: Path) -> Publication:
    """Read a published file. Raises RecordError naming the file and line that cannot be used."""
    first, *rest = path.read_bytes().splitlines() or [b""]
    where = f"{path}, line 1"
    header = decode(first, where)
    check_version(header, where)
    known = {f.name: f for f in fields(Publication)}
    required = {n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING}
    if not required <= header.keys() <= known.keys():
        raise RecordError(f"{where}: keys {', '.join(sorted(header))}; expected {', '.join(sorted(known))}")
    header["own_data"] = tuple(header.get("own_data", ()))
    header["stated"] = {stage: tuple(keys) for stage, keys in header.get("stated", {}).items()}
    try:
        header["slots"] = tuple(Slot(**slot) for slot in header["slots"])
    except TypeError as error:
        raise RecordError(f"{where}: a slot cannot be read ({error})") from None
    records = [
        parse(decode(line, at), at) for number, line in enumerate(rest, start=2) for at in [f"{path}, line {number}"]
    ]
    header["records"] = {record.run_id: record for record in records}
    return Publication(**header)


def collate(table: Table, publication: Publication, folder: Path = ROOT / "tables") -> Sequence[Path]:
    """Write a table as a page, as CSV by cell and by seed, as LaTeX; their paths. Equal records give equal bytes."""
    if table.name != publication.table:
        raise ValueError(
            f"publication of {publication.table!r} given for {table.name!r}; collate it with its own table"
        )
    forms = {".md": render, ".csv": render_csv, ".long.csv": render_long, ".tex": render_latex}
    texts = {folder / f"{publication.name}{suffix}": form(table, publication) for suffix, form in forms.items()}
    for path, text in texts.items():
        write_atomic(path, text)
    return tuple(texts)
