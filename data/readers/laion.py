"""Image-text pairs in tar shards as img2dataset and webdataset write them (rom1504/img2dataset, README).

    root/00000.tar            000000000.jpg 000000000.txt 000000000.json, then the next key; root/<part>/*.tar works too

Members with the same name up to the first dot form one sample. A repeated suffix starts a new sample, as in open_clip
(src/open_clip_train/data.py), and so does a new tar. Samples whose keys hold dots cannot be told apart by this rule and
are counted, not used. Shards are indexed once from their headers; nothing is extracted, member names are only ever
keys, and no member is unpickled. A shard that was cut keeps the samples before the cut; the rest count as lost.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.document import LABELS, Bad, Cause, ImageRef, RawDocument
from data.errors import CorpusError
from data.files import SpanBytes, read_span
from data.readers.index import NOTE_FIELDS, Scan, Shard, build_index, digest_shards, window_of
from data.readers.tars import cut_tar, read_headers

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")
MAX_TEXT = 16 * 2**20  # bytes of a .txt, .json or .cls
_KINDS = {**dict.fromkeys(IMAGE_SUFFIXES, "image"), "txt": "text", "json": "json", "cls": "cls"}
_FIELDS = ("image", "text", "json", "cls")
ROW = np.dtype(
    [*NOTE_FIELDS, ("fault", np.int8), ("suffix", np.int8)]
    + [(f"{kind}_{part}", np.int64) for kind in _FIELDS for part in ("start", "size")]
)

_CUT, _DOTTED = 1, 2  # values of `fault`

# A sample while its shard is scanned: {suffix: (first byte, size)} by lower-cased suffix.
Members = dict[str, tuple[int, int]]


class LaionCorpus:
    """Random access to the pairs of a folder of tar shards, in shard order and then tar order."""

    def __init__(
        self,
        shards: Sequence[Shard],
        name: str = "laion",
        caption_key: str | None = None,
        cache: Path | None = None,
        processes: int = 1,
    ) -> None:
        """Index the shards.

        Args:
            shards: the tar files, see `data.readers.index.list_shards`.
            name: prefix of every doc_id.
            caption_key: take the caption from this field of the .json ("top_caption" for LAION-COCO) instead of .txt.
            cache: folder for the index; without it every start reads all tar headers again.
            processes: how many processes read tar headers.

        Raises:
            CorpusError: the members of a sample are scattered over its shard.
        """
        self.name = name
        self.digest = digest_shards(shards)
        self.caption_key = caption_key
        self._shards = tuple(shards)
        self._index = build_index(shards, ROW, scan_tar, cache, processes)
        self.shard_sizes = self._index.shard_sizes

    def __len__(self) -> int:
        return len(self._index.rows)

    def __getitem__(self, index: int) -> RawDocument | Bad:
        """The pair at `index`, its image still unread; Bad when caption, image or label cannot be used."""
        row = self._index.rows[index]
        shard = self._shards[row["shard"]]
        key = self._index.note(row)
        doc_id = f"{self.name}/{shard.name.removesuffix('.tar')}/{key}"
        if row["fault"] == _CUT:
            return cut_tar(doc_id, shard, self.shard_sizes[row["shard"]] - 1, self._index.typical)
        if row["fault"] == _DOTTED:
            return Bad(
                doc_id,
                Cause.DOT_IN_KEY,
                f"the key {key!r} holds a dot, and webdataset ends keys at the first one; rename the files so that the "
                "only dot is before the suffix, and write the shard again",
            )
        if (size := max(row["text_size"], row["json_size"], row["cls_size"])) > MAX_TEXT:
            return Bad(doc_id, Cause.OVERSIZE, f"{size} bytes beside a picture; at most {MAX_TEXT} are read")
        if row["image_size"] < 0:
            return Bad(doc_id, Cause.MISSING_IMAGE, f"no {' / '.join(IMAGE_SUFFIXES)} member for this key")
        try:
            text, record, label = (_member(shard.path, row, kind) for kind in ("text", "json", "cls"))
        except FileNotFoundError:
            return Bad(doc_id, Cause.MISSING_SHARD, f"{shard.name} is gone since it was indexed")
        except (EOFError, OSError) as error:
            return Bad(doc_id, Cause.BAD_TAR, str(error))
        image = SpanBytes(shard.path, int(row["image_start"]), int(row["image_size"]))
        return self._document(doc_id, f"{key}.{IMAGE_SUFFIXES[row['suffix']]}", image, text, record, label)

    @property
    def window(self) -> int | None:
        """How many shards are read together; None where any order is cheap."""
        return window_of(len(self), len(self._shards))

    def lost_shards(self) -> list[Bad]:
        """Shards that are cut or cannot be read, each with what is lost with it."""
        found = (self[index] for index in self._index.lost)
        return [bad for bad in found if isinstance(bad, Bad)]

    def _document(
        self,
        doc_id: str,
        image_name: str,
        image: SpanBytes,
        text: bytes | None,
        record: bytes | None,
        label: bytes | None,
    ) -> RawDocument | Bad:
        try:
            meta = json.loads(record.decode("utf-8-sig")) if record is not None else {}
            if not isinstance(meta, dict):
                return Bad(doc_id, Cause.SCHEMA, f".json holds {type(meta).__name__}, not an object")
            caption: Any = (text or b"").decode("utf-8-sig") if self.caption_key is None else meta.get(self.caption_key)
            if caption is None:
                caption = ""
            if not isinstance(caption, str):
                found = type(caption).__name__
                return Bad(doc_id, Cause.SCHEMA, f".json field {self.caption_key!r} is {found}, not text")
            caption.encode()  # JSON can escape lone surrogates, which no tokenizer takes
        except UnicodeError as error:
            return Bad(doc_id, Cause.BAD_UTF8, str(error))
        except (ValueError, RecursionError) as error:
            return Bad(doc_id, Cause.BAD_JSON, str(error))
        if not caption.strip():
            source = ".txt" if self.caption_key is None else f".json field {self.caption_key!r}"
            return Bad(doc_id, Cause.EMPTY_TEXT, f"no caption in {source}")
        try:
            number = int(label) if label is not None else None
        except ValueError:
            return Bad(doc_id, Cause.SCHEMA, f".cls holds {(label or b'')[:20]!r}, not an integer")
        if number is not None and number not in LABELS:
            return Bad(doc_id, Cause.SCHEMA, f".cls holds {(label or b'')[:20]!r}, more than an integer of 64 bits")
        return RawDocument(doc_id, (caption.strip(),), (ImageRef(image, image_name, number),), (0,), (None,), meta=meta)


def _member(path: Path, row: np.void, kind: str) -> bytes | None:
    size = int(row[f"{kind}_size"])
    return None if size < 0 else read_span(path, int(row[f"{kind}_start"]), size)


def scan_tar(path: Path) -> Scan:
    """Index one tar from its headers: a row per sample, and one `cut` row where the archive is broken.

    Raises:
        CorpusError: members of one key do not lie together.
    """
    samples: list[tuple[str, Members]] = []
    seen: dict[str, set[str]] = {}
    dotted: dict[tuple[str, str], set[str]] = {}  # (key by the first dot, name before the last one) -> kinds
    headers = read_headers(path)
    for key, suffix, start, size in headers.members:
        rest, _, last_suffix = suffix.rpartition(".")
        if rest:
            dotted.setdefault((key, rest), set()).add(_KINDS.get(last_suffix, ""))
            continue
        last_key, last = samples[-1] if samples else ("", {})
        if key != last_key or suffix in last:
            if key != last_key and key in seen and suffix not in seen[key]:
                raise CorpusError(
                    f"{path}: the members of key {key!r} do not lie together ({suffix!r} comes after other keys), so "
                    "pictures and captions cannot be paired in order; write the shard again sorted by name"
                )
            samples.append((key, last := {}))
        last[suffix] = (start, size)
        seen.setdefault(key, set()).add(suffix)
    with_image = {key for key, last in samples if "image" in _kinds(last)}
    lost = [f"{key}.{rest}" for (key, rest), kinds in dotted.items() if _is_sample(kinds, key in with_image)]
    # A sample whose picture could not be downloaded may lie there as its .json, and is declared by nobody.
    pictures = sum("image" in _kinds(last) for _, last in samples) + len(lost)
    cut = None if headers.whole(path, pictures) else _partial_sample(samples, headers.broken_key)
    return _scan(samples, lost, cut)


def _is_sample(kinds: set[str], beside_image: bool) -> bool:
    """Whether members under a key with dots are a sample of their own, not more files of one ("a.seg.png")."""
    return {"image", "text"} <= kinds if beside_image else not kinds.isdisjoint(("image", "text"))


def _partial_sample(samples: list[tuple[str, Members]], broken_key: str | None) -> str:
    """Take the incomplete last sample of a cut archive out of `samples` and name it; "end" when the cut fell between.

    When the next header is unreadable nobody knows whose it was: the last sample counts as complete if it has every
    kind of member that the one before has.
    """
    if not samples:
        return broken_key or "end"
    key, last = samples[-1]
    if broken_key is not None and broken_key != key:
        return broken_key
    expected = _kinds(samples[-2][1]) if len(samples) > 1 else {"image", "text"}
    if broken_key == key or not expected <= _kinds(last):
        samples.pop()
        return key
    return "end"


def _kinds(members: Members) -> set[str]:
    return {_KINDS[suffix] for suffix in members if suffix in _KINDS}


def _scan(samples: list[tuple[str, Members]], dotted: list[str], cut: str | None) -> Scan:
    samples = [(key, members) for key, members in samples if _kinds(members)]
    rows = np.zeros(len(samples) + len(dotted) + (cut is not None), ROW)
    for kind in _FIELDS:
        rows[f"{kind}_size"] = -1
    notes: list[bytes] = []
    times: dict[str, int] = {}
    for row, (key, members) in zip(rows, samples, strict=False):
        times[key] = times.get(key, 0) + 1
        notes.append((key if times[key] == 1 else f"{key}#{times[key]}").encode("utf-8", "backslashreplace"))
        for suffix, (start, size) in members.items():
            field = _KINDS.get(suffix)
            if field is None or row[f"{field}_size"] >= 0:  # the first picture of a sample is the one used
                continue
            row[f"{field}_start"], row[f"{field}_size"] = start, size
            if field == "image":
                row["suffix"] = IMAGE_SUFFIXES.index(suffix)
    rows["fault"][len(samples) : len(samples) + len(dotted)] = _DOTTED
    notes += [key.encode("utf-8", "backslashreplace") for key in dotted]
    if cut is not None:
        rows[-1]["fault"] = _CUT
        notes.append(cut.encode("utf-8", "backslashreplace"))
    rows["note_size"] = [len(note) for note in notes]
    rows["note_start"] = np.cumsum(rows["note_size"]) - rows["note_size"]
    return Scan(rows, b"".join(notes), cut is None)
