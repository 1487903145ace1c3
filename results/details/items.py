"""Scores of single test items of a published table: results/records/<table>.items.csv.gz.

One line for every item and score, one column for every transfer run, so that two runs are compared item by item in
place. `dataset`, `score`, `group_id` (the image) and `item_id` name a line; a run has no entry where it was not tested.
Numbers have six digits. Scores are those that the table's columns are functions of (`Column.item_scores`): shares and
CIDEr are their means; BLEU is recomputed from the counts of its n-grams and lengths.
"""

import csv
import gzip
import io
import math
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from results.record import ITEMS_FILE, RecordError, read_lines, write_atomic
from results.schema import Column, Kind, Publication, RunRecord, Status, Table, metric_key

KEY = ("dataset", "score", "group_id", "item_id")
Key = tuple[str, str, str, str]
Scores = dict[Key, str]  # of one run, as printed
SUFFIX = ".items.csv.gz"
DIGITS = 1e-5  # relative: what six digits of the items leave of their mean


def export(table: Table, publication: Publication, runs: Path, folder: Path) -> list[str]:
    """Write the item scores of the publication's runs that were scored into `folder`; the ids of runs without any.

    runs: run folders of this machine. A run's scores are taken from there, or else from the file that is there already,
    whichever gives the metrics of its record: published scores stay, and never stand beside a record of other ones.
    A file whose content would be the same is left alone: compressed bytes differ between versions of zlib.
    Raises RecordError for a file that cannot be read, OSError when the disk refuses.
    """
    path = folder / f"{publication.name}{SUFFIX}"
    published = load(path) if path.exists() else {}
    wanted = {
        slot.run_id: record
        for slot in publication.slots
        if (record := publication.records.get(slot.run_id)) is not None
        and (record.kind is Kind.TRANSFER or (record.kind is Kind.DIALOGUE and record.items))
        and record.status is Status.DONE
    }
    columns = (*table.columns, *table.more_columns)
    found: dict[str, Scores] = {}
    for run_id, record in wanted.items():
        here = runs / run_id / ITEMS_FILE
        local = of_run(here, columns) if here.is_file() else {}
        for scores in (local, published.get(run_id, {})):
            if scores and _agree(scores, record):
                found[run_id] = scores
                break
    text = _text(found)
    if not path.exists() or unpacked(path) != text:
        write_atomic(path, packed(text))
    return sorted(wanted.keys() - found.keys())


def load(path: Path) -> dict[str, Scores]:
    """Item scores by run. Raises RecordError naming a file that is no such table."""
    reader = csv.reader(io.StringIO(unpacked(path)))
    header = next(reader, [])
    if tuple(header[: len(KEY)]) != KEY:
        raise RecordError(f"{path}: columns {', '.join(header[:4])}; expected {', '.join(KEY)} and then runs")
    found: dict[str, Scores] = {run_id: {} for run_id in header[len(KEY) :]}
    for number, line in enumerate(reader, start=2):
        if len(line) != len(header):
            raise RecordError(f"{path}, line {number}: {len(line)} fields, expected {len(header)}")
        dataset, score, group, item = line[: len(KEY)]
        for run_id, value in zip(header[len(KEY) :], line[len(KEY) :], strict=True):
            if value:
                found[run_id][dataset, score, group, item] = _checked(value, f"{path}, line {number}")
    return found


def rename(path: Path, names: Mapping[str, str]) -> None:
    """Give published scores the new names of their runs; a file that is not there holds none.

    Raises RecordError for a file that cannot be read, OSError when the disk refuses.
    """
    if path.exists():
        write_atomic(path, packed(_text({names.get(run_id, run_id): held for run_id, held in load(path).items()})))


def _checked(value: str, where: str) -> str:
    try:
        if math.isfinite(float(value)):
            return value
    except ValueError:
        pass
    raise RecordError(f"{where}: {value!r} is no finite number")


def of_run(path: Path, columns: Iterable[Column]) -> Scores:
    """Scores in a run's items.jsonl that a column is a function of."""
    wanted: dict[str, set[str]] = defaultdict(set)
    for column in columns:
        wanted[column.dataset] |= set(column.item_scores or (column.metric,))
    found: Scores = {}
    for item in read_lines(path):
        names = wanted.get(item.get("dataset", ""), set()) & item.keys()
        for score, value in _numbers(item, sorted(names), path):
            found[item["dataset"], score, item["group_id"], item["item_id"]] = f"{value:.6g}"
    return found


def _numbers(item: Mapping[str, Any], names: Iterable[str], path: Path) -> Iterator[tuple[str, float]]:
    """Named numbers of an item; those of a list by place, from 1: counts of n-grams."""
    for name in names:
        value = item[name]
        several = isinstance(value, list)
        for place, number in enumerate(value if several else [value], start=1):
            if type(number) not in (int, float):
                raise RecordError(f"{path}: {name} of {item.get('item_id')!r} is {number!r}, expected a number")
            yield (f"{name}_{place}" if several else name), number


def _agree(scores: Scores, record: RunRecord) -> bool:
    """Whether the means of scores that are metrics of the record are the record's."""
    values: dict[str, list[float]] = defaultdict(list)
    for (dataset, score, _, _), value in scores.items():
        values[metric_key(dataset, score)].append(float(value))
    means = {key: sum(each) / len(each) for key, each in values.items() if key in record.metrics}
    return all(abs(mean - record.metrics[key]) <= DIGITS * max(1.0, abs(mean)) for key, mean in means.items())


def _text(found: Mapping[str, Scores]) -> str:
    runs = sorted(found)
    keys = sorted({key for scores in found.values() for key in scores})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*KEY, *runs])
    writer.writerows([*key, *(found[run].get(key, "") for run in runs)] for key in keys)
    return text.getvalue()


def packed(text: str) -> bytes:
    """The text gzipped: equal texts give equal bytes."""
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=buffer, mtime=0) as file:
        file.write(text.encode())
    return buffer.getvalue()


def unpacked(path: Path) -> str:
    """The text of a gzipped file. Raises RecordError naming a file that is none."""
    try:
        return gzip.decompress(path.read_bytes()).decode()
    except (gzip.BadGzipFile, zlib.error, EOFError, UnicodeDecodeError) as error:
        raise RecordError(f"{path}: not gzipped text ({error}); restore it from git, or delete it") from None
