"""Curves of the pre-trainings of a published table: results/records/<table>.curves.csv.gz.

One line for each number a run's probes gave in training, on documents that no step trains on: run, images seen by then,
metric, value. What is kept are the diagnostics that a page prints the last values of (results/page/pretraining.py).
"""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from results.alarms import DIAGNOSTICS
from results.details.items import packed, unpacked
from results.record import RecordError, read_lines, write_atomic
from results.schema import Kind, Publication, RunRecord, Status

METRICS_FILE = "metrics.jsonl"
SUFFIX = ".curves.csv.gz"
COLUMNS = ("run_id", "images", "metric", "value")
DIGITS = 1e-4  # relative: by how much a curve's end may differ from its record

Curve = list[tuple[float, float]]  # images seen, value
Curves = dict[str, dict[str, Curve]]  # by run and metric


def export(publication: Publication, runs: Path, folder: Path) -> None:
    """Write the curves of the publication's pre-trainings into `folder`.

    runs: run folders of this machine. A run's curves are taken from there, else they stay as they were published, and
    in either case only where they end at the numbers of its record. Raises RecordError for a file that cannot be read,
    OSError when the disk refuses.
    """
    path = folder / f"{publication.name}{SUFFIX}"
    published = load(path) if path.exists() else {}
    found: Curves = {}
    for run_id, record in publication.records.items():
        if record.kind is Kind.PRETRAIN and record.status is Status.DONE and record.images_seen:
            local = _read(runs / run_id / METRICS_FILE, record)
            for curves in (local, published.get(run_id, {})):
                if curves and _ends_right(curves, record):
                    found[run_id] = curves
                    break
    text = _text(found)
    if (found or path.exists()) and not (path.exists() and unpacked(path) == text):
        write_atomic(path, packed(text))


def rename(path: Path, names: Mapping[str, str]) -> None:
    """Give published curves the new names of their runs; a file that is not there holds none.

    Raises RecordError for a file that cannot be read, OSError when the disk refuses.
    """
    if path.exists():
        write_atomic(path, packed(_text({names.get(run_id, run_id): held for run_id, held in load(path).items()})))


def load(path: Path) -> Curves:
    """Published curves. Raises RecordError naming a file that holds none."""
    reader = csv.reader(io.StringIO(unpacked(path)))
    if tuple(next(reader, ())) != COLUMNS:
        raise RecordError(f"{path}: these are no curves, whose columns are {', '.join(COLUMNS)}")
    found: Curves = defaultdict(lambda: defaultdict(list))
    for number, line in enumerate(reader, start=2):
        try:
            run_id, images, metric, value = line
            point = float(images), float(value)
        except ValueError:
            raise RecordError(f"{path}, line {number}: {','.join(line)!r} is no point of a curve") from None
        if not all(map(math.isfinite, point)):
            raise RecordError(f"{path}, line {number}: {','.join(line)!r} is not finite")
        found[run_id][metric].append(point)
    return {run_id: dict(curves) for run_id, curves in found.items()}


def _read(path: Path, record: RunRecord) -> dict[str, Curve]:
    """Curves in a run's metrics.jsonl; empty where it has none. Steps become images in proportion."""
    if not path.is_file():
        return {}
    lines = read_lines(path)
    last = max((line["step"] for line in lines if isinstance(line.get("step"), int)), default=0)
    found: dict[str, Curve] = defaultdict(list)
    for line in lines:
        for metric in DIAGNOSTICS.keys() & line.keys():
            value = line[metric]
            if type(value) in (int, float) and math.isfinite(value) and last:
                images = record.images_seen * line["step"] / last
                found[metric].append((float(f"{images:.6g}"), float(f"{value:.6g}")))
    return dict(found)


def _ends_right(curves: dict[str, Curve], record: RunRecord) -> bool:
    """Whether the curves end at the record's numbers; curves of another attempt of the run would not."""
    ends = [(curve[-1][1], record.metrics[metric]) for metric, curve in curves.items() if metric in record.metrics]
    return bool(ends) and all(abs(a - b) <= DIGITS * max(1.0, abs(b)) for a, b in ends)


def _text(found: Curves) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run_id, curves in sorted(found.items()):
        for metric, curve in sorted(curves.items()):
            writer.writerows((run_id, f"{images:.6g}", metric, f"{value:.6g}") for images, value in curve)
    return text.getvalue()
