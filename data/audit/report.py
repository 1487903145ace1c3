"""What a survey found, as JSON values and as a page of text."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data.audit.survey import Survey, packed
from data.audit.windows import Windows
from data.document import Cause, Corpus

SHOWN = 5  # shards and overlaps on the page


def report(found: Survey, corpus: Corpus, seq_len: int, images_per_step: int) -> dict[str, Any]:
    """Everything that is said about a corpus, as JSON values."""
    wanted = found.documents - found.causes[Cause.NOT_CHOSEN.value]
    windows = found.windows
    return {
        "corpus": {"name": corpus.name, "digest": corpus.digest, "entries": len(corpus)},
        "documents": {
            "looked_at": found.documents,
            "used": found.used,
            "not_chosen": found.causes[Cause.NOT_CHOSEN.value],
            "broken": found.broken,
            "broken_share_of_wanted": round(found.broken / wanted, 4) if wanted else None,
            "same_text_as_one_before": found.same_text,
        },
        "images": {"named": found.images_named, "used": found.images_used, "exact_duplicates": found.duplicates},
        "per_document": _typical(images=found.images, text_tokens=found.tokens, row_tokens=found.rows),
        "windows": None if windows is None else _counted(windows),
        "text_tokens_per_image": round(sum(found.tokens) / found.images_used, 2) if found.images_used else None,
        "causes": {cause: {"count": count, "examples": found.examples[cause]} for cause, count in found.causes.items()},
        "worst_shards": dict(found.shards.most_common()),
        "evaluation_overlap": found.overlap,
        "evaluation_sets": {
            name: {"looked_for": known, "not_looked_for": blind} for name, (known, blind) in found.against.items()
        },
        "steps_of_an_epoch": math.ceil(found.images_used / images_per_step),
        "not_padding": {
            "one_document_a_row": _filled(found.rows, seq_len),
            "packed": round(packed(found.rows, seq_len), 4) if found.rows else None,
            "windows": _filled(windows.tokens, seq_len) if windows else None,
        },
    }


def _counted(windows: Windows) -> dict[str, Any]:
    return {
        "count": len(windows.tokens),
        "without_image": windows.images.count(0),
        "per_window": _typical(images=windows.images, documents=windows.documents, tokens=windows.tokens),
    }


def _typical(**numbers: Sequence[int]) -> dict[str, dict[str, float]]:
    """Mean and median of each list that holds anything."""
    return {
        name: {"mean": round(float(np.mean(values)), 2), "median": float(np.median(values))}
        for name, values in numbers.items()
        if values
    }


def _filled(rows: Sequence[int], seq_len: int) -> float | None:
    """Share of the positions of such rows that are no padding."""
    return round(float(np.mean(rows)) / seq_len, 4) if rows else None


def printed(said: dict[str, Any], images_per_step: int) -> str:
    """The report as a page of text."""
    documents, images, padding, windows = (said[name] for name in ("documents", "images", "not_padding", "windows"))
    lines = [
        f"{said['corpus']['name']}: {documents['looked_at']:,} documents looked at",
        f"  used         {documents['used']:>12,}",
        f"  not chosen   {documents['not_chosen']:>12,}  sound, but the rules want none of their images",
        f"  broken       {documents['broken']:>12,}  {_percent(documents['broken_share_of_wanted'])} of the wanted",
        f"images used    {images['used']:>12,}  of {images['named']:,} named",
        f"duplicates     {images['exact_duplicates']:>12,}  images equal to one before, byte for byte",
        f"same text      {documents['same_text_as_one_before']:>12,}  documents equal to one before",
    ]
    lines += _means(said["per_document"], "document")
    if windows is not None:
        lines.append(
            f"windows        {windows['count']:>12,}  rows of a run; {windows['without_image']:,} hold no image"
        )
        lines += _means(windows["per_window"], "window")
    lines.append(f"epoch          {said['steps_of_an_epoch']:>12,}  steps of {images_per_step:,} images")
    if padding["one_document_a_row"] is not None:
        alone, together = padding["one_document_a_row"], padding["packed"]
        lines.append(f"no padding     {alone:>12.1%}  of a row that holds one document; {together:.1%} packed")
    if padding["windows"] is not None:
        lines.append(f"no padding     {padding['windows']:>12.1%}  of a window")
    for cause, each in sorted(said["causes"].items(), key=lambda item: -item[1]["count"]):
        lines += [f"{cause:<24} {each['count']:>8,}", *(f"    {example}" for example in each["examples"])]
    worst = list(said["worst_shards"].items())[:SHOWN]
    if worst:
        lines.append("most is broken in " + ", ".join(f"{shard} ({count:,})" for shard, count in worst))
    for name, hits in said["evaluation_overlap"].items():
        known, blind = said["evaluation_sets"][name].values()
        of = f"of its {known:,} pictures" + (f"; {blind:,} more are broken or blank" if blind else "")
        lines += [f"also in {name}: {len(hits):,} images ({of})", *(f"    {hit}" for hit in hits[:SHOWN])]
    return "\n".join(lines)


def _means(typical: dict[str, dict[str, float]], what: str) -> list[str]:
    return [
        f"{name.replace('_', ' '):<14} {value['mean']:>12,}  a {what} (median {value['median']:g})"
        for name, value in typical.items()
    ]


def _percent(share: float | None) -> str:
    return "nothing" if share is None else f"{share:.1%}"
