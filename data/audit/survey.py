"""One pass over a corpus: every document read, every image a run would choose decoded, everything counted."""

import hashlib
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from data.audit.windows import Windows
from data.document import Bad, Cause, Corpus, ImageRef, RawDocument, Text
from data.errors import BadImage
from data.images import open_image
from data.loading.select import Prepared, Rules, Sample, build, place, prepare, truncate
from data.tokenizer import Tokenizer

EXAMPLES = 3  # kept per cause
NEAR = 4  # bits of 64 in which fingerprints of one picture may differ; those of two photographs differ in about 32
ALIKE = 0.95  # correlation of the colours of one picture with itself; drawings on white share bits and little else
THUMBNAIL = 16  # pixels of a side
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"))


@dataclass
class Survey:
    """Everything that was counted. Lists hold one number a document that is used."""

    documents: int = 0  # entries of the corpus, lost ones included
    used: int = 0
    images_named: int = 0  # by the documents that could be read
    images_used: int = 0
    tokens: list[int] = field(default_factory=list)  # of text
    images: list[int] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)  # tokens of its row, images included; not of a corpus in windows
    windows: Windows | None = None  # of a corpus that is read in them
    causes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    shards: Counter[str] = field(default_factory=Counter)  # broken documents by shard
    duplicates: int = 0  # images equal to one before, byte for byte
    same_text: int = 0  # documents whose text is equal to one before
    overlap: dict[str, list[str]] = field(default_factory=dict)  # evaluation set -> "image: item of the set"
    against: dict[str, tuple[int, int]] = field(default_factory=dict)  # evaluation set -> pictures looked for, and not

    @property
    def broken(self) -> int:
        """Documents that were wanted and cannot be used, lost shards at their size."""
        return self.documents - self.used - self.causes[Cause.NOT_CHOSEN.value]

    def note(self, bad: Bad) -> None:
        """Count a cause and keep the first examples of it."""
        self.causes[bad.cause.value] += bad.lost
        held = self.examples.setdefault(bad.cause.value, [])
        if len(held) < EXAMPLES:
            held.append(f"{bad.doc_id}: {bad.message}")


def fingerprint(picture: Image.Image) -> int | None:
    """64 bits that survive scaling and compression: which of two neighbours is brighter (difference hash).

    None for a picture without structure, which would equal every other one.
    """
    grey = np.asarray(picture.convert("L").resize((9, 8), Image.Resampling.BOX), np.int16)
    if np.ptp(grey) < 8:
        return None
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    return int.from_bytes(bits.tobytes(), "big")


class Pictures:
    """The pictures below a folder, to be found again by their fingerprints."""

    def __init__(self, folder: Path) -> None:
        """What cannot be read or decoded, or has no structure, is found nowhere again: `blind` of them."""
        names, marks, colours, self.blind = [], [], [], 0
        for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES):
            try:
                picture = open_image(path.read_bytes())
            except (BadImage, OSError):  # OSError: a link to nowhere, a folder called like a picture
                self.blind += 1
                continue
            mark = fingerprint(picture)
            if mark is None:
                self.blind += 1
            else:
                names.append(path.relative_to(folder).as_posix())
                marks.append(mark)
                colours.append(_colours(picture))
        self._names, self._marks, self._colours = names, np.array(marks, np.uint64), colours

    def __len__(self) -> int:
        """How many can be found again."""
        return len(self._names)

    def twin(self, picture: Image.Image) -> str | None:
        """The name of the picture most like this one, None where none is within NEAR bits and ALIKE in its colours."""
        mark = fingerprint(picture)
        if mark is None:
            return None
        near = np.flatnonzero(np.bitwise_count(self._marks ^ np.uint64(mark)) <= NEAR).tolist()
        if not near:
            return None
        colours = _colours(picture)
        alike = {at: float(np.corrcoef(colours, self._colours[at])[0, 1]) for at in near}
        nearest = max(near, key=alike.__getitem__)
        return self._names[nearest] if alike[nearest] >= ALIKE else None


def _colours(picture: Image.Image) -> UInt8[np.ndarray, " c"]:
    return np.asarray(picture.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX)).ravel()


def survey(
    corpus: Corpus,
    entries: Iterable[int],
    rules: Rules,
    tokenizer: Tokenizer,
    *,
    patches: int,
    seq_len: int,
    windows: Windows | None,
    against: Mapping[str, Pictures],
) -> Survey:
    """Read the entries of a corpus as a run of seed 0 reads them in its first epoch.

    Args:
        corpus: documents or pairs.
        entries: which of them.
        rules: sampling, as of the run.
        tokenizer: counts the text.
        patches: positions of an image in a row, less its two markers.
        seq_len: longest row.
        windows: counts the rows where documents are not cut at the end of a row but follow one another.
        against: evaluation sets by name.
    """
    found = Survey(
        windows=windows,
        overlap={name: [] for name in against},
        against={name: (len(known), known.blind) for name, known in against.items()},
    )
    longest = seq_len if windows is None else sys.maxsize
    seen_images: set[bytes] = set()
    seen_texts: set[int] = set()
    for at in entries:
        raw = corpus[at]
        if isinstance(raw, RawDocument):
            found.images_named += len(raw.images)
        prepared = raw if isinstance(raw, Bad) else prepare(raw, rules, tokenizer, 0)
        outcome = prepared if isinstance(prepared, Bad) else _read(prepared, rules, patches, longest, found)
        if isinstance(outcome, Bad):
            found.note(outcome)
            found.documents += outcome.lost
            if outcome.cause is not Cause.NOT_CHOSEN:
                found.shards[outcome.doc_id.rpartition("/")[0]] += outcome.lost
            continue
        assert isinstance(prepared, Prepared)
        document, pictures = outcome
        tokens = sum(len(part.ids) for part in document.segments if isinstance(part, Text))
        found.documents += 1
        found.used += 1
        found.same_text += prepared.caption_hash in seen_texts
        seen_texts.add(prepared.caption_hash)
        found.images_used += len(pictures)
        found.images.append(len(pictures))
        found.tokens.append(tokens)
        if windows is None:
            found.rows.append(tokens + len(pictures) * (patches + 2) + 2)
        else:
            windows.add(document)
        for ref, data, picture in pictures:
            digest = hashlib.sha1(data).digest()
            found.duplicates += digest in seen_images
            seen_images.add(digest)
            for name, known in against.items():
                if (twin := known.twin(picture)) is not None:
                    found.overlap[name].append(f"{prepared.uid} {ref.name}: {twin}")
    if windows is not None:
        windows.finish()
    return found


def _read(
    prepared: Prepared, rules: Rules, patches: int, seq_len: int, found: Survey
) -> tuple[Sample, list[tuple[ImageRef, bytes, Image.Image]]] | Bad:
    """The document as a row of `seq_len` would hold it, and its pictures."""
    for bad in prepared.removed:
        found.note(bad)
    lengths = [len(text.ids) for text in prepared.texts]
    codes = place(prepared, rules, 0, 0)
    gone = 0
    pictures: dict[int, tuple[ImageRef, bytes, Image.Image]] = {}
    while True:
        kept, cut = truncate(codes, lengths, patches, seq_len)
        broken = set()
        for code in kept:
            if code < 0 and code not in pictures:
                ref = prepared.images[-1 - code]
                try:
                    pictures[code] = _opened(ref)
                except BadImage as error:
                    bad = Bad(prepared.uid, error.cause, error.message)
                    if rules.text_len is not None:
                        return bad  # a pair is its image
                    found.note(bad)
                    broken.add(code)
        if not broken:
            break
        gone += len(broken)
        codes = tuple(code for code in codes if code not in broken)
    held = [pictures[code] for code in kept if code < 0]
    if not held:
        cause = Cause.NO_IMAGE_LEFT if gone else Cause.NOT_CHOSEN
        within = "" if seq_len == sys.maxsize else f" within {seq_len} tokens"
        return Bad(prepared.uid, cause, f"no image{within}; {gone} could not be used")
    return build(prepared, kept, cut), held


def _opened(ref: ImageRef) -> tuple[ImageRef, bytes, Image.Image]:
    data = ref.read()
    return ref, data, open_image(replace(ref, read=lambda: data))


def packed(rows: Sequence[int], seq_len: int) -> float:
    """Share of positions that are no padding when rows are laid one after the other into lines of seq_len."""
    lines, left = 0, 0
    for length in rows:
        if length > left:
            lines, left = lines + 1, seq_len
        left -= length
    return sum(rows) / (lines * seq_len) if lines else 0.0
