"""One MMC4 record, a JSON object, as a document. A fault of one image or sentence costs that one and is counted."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from data.document import LABELS, Bad, Cause, ImageRef, RawDocument, encodable
from data.readers.zips import Unusable

# From an entry of image_info, its name checked, to what reads the bytes.
Locate = Callable[[Mapping[str, Any]], Callable[[], bytes]]


def parse_line(line: bytes) -> dict[str, Any]:
    """The object on a line. Raises Unusable: bad_utf8, bad_json, or schema for anything but an object."""
    try:
        record = json.loads(line.decode("utf-8-sig"))  # a mark may stand before the first line of a file
    except UnicodeDecodeError as error:
        raise Unusable(Cause.BAD_UTF8, str(error)) from error
    except (ValueError, RecursionError) as error:
        raise Unusable(Cause.BAD_JSON, str(error)) from error
    if not isinstance(record, dict):
        raise Unusable(Cause.SCHEMA, f"the line holds {type(record).__name__}, not an object")
    return record


def read_document(doc_id: str, record: Mapping[str, Any], locate: Locate) -> RawDocument:
    """The document of a record, `removed` naming its images and sentences that cannot be used.

    Raises Unusable: text_list or image_info is no list, or no sentence has text.
    """
    texts, removed = _sentences(doc_id, _listed(record, "text_list"))
    entries = _listed(record, "image_info")
    if not any(text.strip() for text in texts):
        reason = removed[0].message if removed else f"none of the {len(texts)} sentences has text"
        raise Unusable(removed[0].cause if removed else Cause.EMPTY_TEXT, reason)
    kept: list[int] = []
    images: list[ImageRef] = []
    for number, entry in enumerate(entries):
        try:
            images.append(_image(entry, len(texts), locate))
            kept.append(number)
        except Unusable as error:
            removed.append(Bad(doc_id, error.cause, f"image {number}: {error}"))
    order = record.get("dom_order")
    if order is not None and not (
        isinstance(order, list) and len(order) == len(entries) and all(type(at) is int for at in order)
    ):
        raise Unusable(Cause.SCHEMA, f"dom_order must list one position for each of the {len(entries)} images")
    matrix: Any = record.get("similarity_matrix")
    meta = {
        "url": record.get("url"),
        "dom_order": None if order is None else tuple(order[number] for number in kept),
        # users filter image_info and leave the matrix: then its rows no longer say which image they are
        "similarity_matrix": [matrix[number] for number in kept]
        if _has_shape(matrix, len(entries), len(texts))
        else None,
    }
    anchors = tuple(entries[number]["matched_text_index"] for number in kept)
    scores = tuple(finite(entries[number].get("matched_sim")) for number in kept)
    return RawDocument(doc_id, tuple(texts), tuple(images), anchors, scores, meta=meta, removed=tuple(removed))


def image_name(entry: Any) -> str:
    """The name an entry of image_info gives. Raises Unusable for none, and for one that leads out of its folder."""
    if not isinstance(entry, dict):
        raise Unusable(Cause.BAD_IMAGE_ENTRY, f"image_info holds {type(entry).__name__}, expected an object")
    name = entry.get("image_name")
    if not isinstance(name, str):
        raise Unusable(Cause.BAD_IMAGE_ENTRY, f"image_name is {type(name).__name__}, expected text")
    if not encodable(name):
        raise Unusable(Cause.BAD_IMAGE_ENTRY, f"image_name {name!r} holds half a character, which no file name does")
    path = PurePosixPath(name)
    if not path.parts or path.is_absolute() or ".." in path.parts or any(c in name for c in "\\:\0"):
        raise Unusable(Cause.BAD_IMAGE_ENTRY, f"image_name {name!r} does not stay inside the image folder")
    return name


def _image(entry: Any, sentences: int, locate: Locate) -> ImageRef:
    name = image_name(entry)
    anchor, label = entry.get("matched_text_index"), entry.get("label")
    if not (type(anchor) is int and 0 <= anchor < sentences):
        raise Unusable(
            Cause.BAD_IMAGE_ENTRY, f"matched_text_index of {name} is {anchor!r}; there are {sentences} sentences"
        )
    if label is not None and not (type(label) is int and label in LABELS):
        raise Unusable(Cause.BAD_IMAGE_ENTRY, f"label of {name} is {label!r}, expected an integer of 64 bits")
    return ImageRef(locate(entry), name, label)


def finite(value: Any) -> float | None:
    """A similarity, or None for anything that is none: null, NaN, text. Sampling says what becomes of such an image."""
    try:
        number = float(value) if type(value) in (int, float) else math.nan
    except OverflowError:  # JSON has integers of any length
        return None
    return number if math.isfinite(number) else None


def _sentences(doc_id: str, texts: list[Any]) -> tuple[list[str], list[Bad]]:
    """All sentences, those that are no text as "", so that the others keep their numbers."""
    kept, removed = [], []
    for number, text in enumerate(texts):
        if isinstance(text, str) and text.isascii():
            kept.append(text)
            continue
        try:
            text.encode()  # JSON can escape lone surrogates, which no tokenizer takes
            kept.append(text)
        except AttributeError:
            message = f"sentence {number} is {type(text).__name__}, expected text"
            removed.append(Bad(doc_id, Cause.BAD_SENTENCE, message))
            kept.append("")
        except UnicodeEncodeError as error:
            removed.append(Bad(doc_id, Cause.BAD_SENTENCE, f"sentence {number}: {error}"))
            kept.append("")
    return kept, removed


def _listed(record: Mapping[str, Any], field: str) -> list[Any]:
    value = record.get(field)
    if not isinstance(value, list):
        raise Unusable(Cause.SCHEMA, f"{field} is {type(value).__name__}, expected list")
    return value


def _has_shape(matrix: Any, rows: int, columns: int) -> bool:
    if not isinstance(matrix, list) or len(matrix) != rows:
        return False
    return all(isinstance(row, list) and len(row) == columns for row in matrix)
