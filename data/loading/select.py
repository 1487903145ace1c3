"""Sampling: which images and how much text of a raw document are read, and where each image stands.

LCL section 4.1 and appendix A.1: images with similarity of at least 0.24, at most six of them at random, each before or
after its sentence with probability one half, sequences cut where neither an image nor a text segment is split. One
image per sentence follows OpenGVLab/LCL, src/training/interleaved.py. Lengths are always those of the interleaved
layout with one slot per patch, so that every objective sees the same text and the same images.

Every choice is a hash of what it is for: (seed, document, purpose) for the images, the epoch too for their places.
Inside this module a reading order is a tuple of codes: k >= 0 is text k, k < 0 is image -1-k.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from data.document import Bad, Cause, Document, Image, ImageRef, RawDocument, Text
from data.errors import CorpusError
from data.seeds import stable_seed
from data.tokenizer import Tokenizer


class CapPolicy(StrEnum):
    """What becomes of a document with more images than `max_images`."""

    RANDOM = "random"  # keep that many at random (the paper)
    FIRST = "first"  # keep the first in reading order (released LCL code)
    DROP = "drop"  # use none of it (the other reading of the OBELICS rule)


class PairOrder(StrEnum):
    """Where the image of a pair stands for an objective that reads documents."""

    IMAGE_FIRST = "image_first"
    RANDOM = "random"  # before or after its caption (LAION-Random, LCL section 4.1)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How raw documents become documents. With `text_len` the corpus is one of pairs, and of the others only
    `pair_order` and with it `before_probability` are read."""

    sim_threshold: float | None = 0.24  # inclusive; None for corpora without scores
    max_images: int = 6
    cap_policy: CapPolicy = CapPolicy.RANDOM
    dedup_per_segment: bool = True  # at most one image per sentence, chosen at random
    before_probability: float = 0.5
    pair_order: PairOrder = PairOrder.IMAGE_FIRST
    text_len: int | None = None  # T_max of a corpus of pairs, in tokens (80 in the paper's setting); None: documents

    def __post_init__(self) -> None:
        if self.max_images < 1:
            raise ValueError(f"max_images is {self.max_images}; a document needs at least 1 image")
        if not 0 <= self.before_probability <= 1:
            raise ValueError(f"before_probability is {self.before_probability}; it must lie in [0, 1]")
        if self.text_len is not None and self.text_len < 1:
            raise ValueError(f"text_len is {self.text_len}; a pair needs at least 1 token (None: corpus of documents)")


@dataclass(frozen=True)
class Sample(Document):
    """A document with what sampling did to its text."""

    truncated: bool = False  # the caption of a pair was cut at T_max: no layout may say that it ends there
    hard_split: bool = False  # the first segment alone was longer than the row and was cut inside


@dataclass(frozen=True)
class Prepared:
    """The part of sampling that is equal in all epochs: images chosen, text tokenised. Cheap to keep."""

    uid: str
    texts: tuple[Text, ...]  # the segments that hold any token
    images: tuple[ImageRef, ...]  # those kept, in reading order
    numbers: tuple[int, ...]  # their indices in the raw document
    anchors: tuple[int, ...]  # per image: index into texts; read only when `fixed` is None
    fixed: tuple[int, ...] | None  # codes, where the corpus gives the order
    caption_hash: int
    truncated: bool = False
    removed: tuple[Bad, ...] = ()  # images and sentences of it that cannot be used, to be counted


def uniform(*parts: str | int) -> float:
    """A number in [0, 1) for the stream of that name; cheaper than a generator for a single draw."""
    return (stable_seed(*parts) >> 10) * 2.0**-53


def choose_images(raw: RawDocument, rules: Rules, seed: int) -> tuple[int, ...]:
    """Indices of the images to keep, in reading order; equal for the interleaved and the pair view of a document.

    An image whose sentence is blank is not kept: it has no text to be paired with or placed beside. Neither is one
    without a score where a threshold is set (`unscored` names those).
    """
    if raw.order is not None:
        place = {-1 - code: position for position, code in enumerate(raw.order) if code < 0}
    else:
        place = {i: a for i, a in enumerate(raw.anchors) if a is not None and raw.segments[a].strip()}
    kept = [i for i, score in enumerate(raw.scores) if i in place and _above(score, rules.sim_threshold)]
    if rules.dedup_per_segment and raw.order is None:
        sharing: dict[int, list[int]] = {}
        for i in kept:
            sharing.setdefault(place[i], []).append(i)
        kept = [group[stable_seed(seed, raw.doc_id, "dedup", anchor) % len(group)] for anchor, group in sharing.items()]
    kept.sort(key=lambda i: (place[i], i))
    if len(kept) > rules.max_images:
        kept = _cap(kept, raw.doc_id, rules, seed)
    return tuple(kept)


def unscored(raw: RawDocument, rules: Rules) -> tuple[Bad, ...]:
    """The images that cannot be judged: a threshold is set and they have no score. Each is counted."""
    if rules.sim_threshold is None:
        return ()
    names = [image.name for image, score in zip(raw.images, raw.scores, strict=True) if score is None]
    return tuple(Bad(raw.doc_id, Cause.NO_SCORE, f"{name} has no similarity score") for name in names)


def _above(score: float | None, threshold: float | None) -> bool:
    return threshold is None or (score is not None and score >= threshold)


def _cap(kept: list[int], doc_id: str, rules: Rules, seed: int) -> list[int]:
    if rules.cap_policy is CapPolicy.DROP:
        return []
    if rules.cap_policy is CapPolicy.FIRST:
        return kept[: rules.max_images]
    # The images with the smallest independent hashes are a uniform choice without replacement.
    chosen = set(sorted(kept, key=lambda i: stable_seed(seed, doc_id, "cap", i))[: rules.max_images])
    return [i for i in kept if i in chosen]


def prepare(raw: RawDocument, rules: Rules, tokenizer: Tokenizer, seed: int) -> Prepared | Bad:
    """Choose the images and tokenise the text; everything that does not depend on the epoch.

    Raises CorpusError when the rules do not fit the corpus: pairs expected and a page found.
    """
    if rules.text_len is not None:
        return _prepare_pair(raw, rules, rules.text_len, tokenizer)
    kept = choose_images(raw, rules, seed)
    removed = (*raw.removed, *unscored(raw, rules))
    if not kept:
        return _without_images(raw, removed, rules)
    texts: list[Text] = []
    index: dict[int, int] = {}  # segment of the raw document -> position in texts
    for number, segment in enumerate(raw.segments):
        ids = _encode(segment, first=not (texts and texts[-1].ids), tokenizer=tokenizer)
        if ids or (raw.order is not None and not segment):  # empty: another document begins here
            index[number] = len(texts)
            texts.append(Text(ids))
    if not any(text.ids for text in texts):
        return Bad(raw.doc_id, Cause.EMPTY_TEXT, f"none of {len(raw.segments)} segments holds a token")
    fixed = None
    if raw.order is not None:
        new = {-1 - number: -1 - position for position, number in enumerate(kept)} | index
        fixed = tuple(new[code] for code in raw.order if code in new)
        anchors: tuple[int, ...] = ()
    else:
        kept = tuple(i for i in kept if raw.anchors[i] in index)
        anchors = tuple(index[a] for i in kept if (a := raw.anchors[i]) is not None)
        if not kept:
            return Bad(raw.doc_id, Cause.NO_IMAGE_LEFT, "the sentences of all its images tokenise to nothing")
    images = tuple(raw.images[i] for i in kept)
    prepared = Prepared(raw.doc_id, tuple(texts), images, kept, anchors, fixed, text_hash(texts), removed=removed)
    return _checked(prepared, tokenizer)


def _without_images(raw: RawDocument, removed: Sequence[Bad], rules: Rules) -> Bad:
    """Why nothing of a document is used: its images are broken, or sound and not wanted."""
    broken = [bad for bad in removed if bad.cause is not Cause.BAD_SENTENCE]
    if broken:
        message = f"{len(broken)} images cannot be used: {broken[0].cause}: {broken[0].message}"
        return Bad(raw.doc_id, Cause.NO_IMAGE_LEFT, message)
    if not raw.images:
        return Bad(raw.doc_id, Cause.NOT_CHOSEN, "the document has no images")
    scores = [score for score in raw.scores if score is not None]
    best = f"; the best similarity is {max(scores):.3f}" if scores else ""
    return Bad(
        raw.doc_id,
        Cause.NOT_CHOSEN,
        f"the rules want none of its {len(raw.images)} images (threshold {rules.sim_threshold}, "
        f"at most {rules.max_images}, {rules.cap_policy}){best}",
    )


def _prepare_pair(raw: RawDocument, rules: Rules, text_len: int, tokenizer: Tokenizer) -> Prepared | Bad:
    if len(raw.segments) > 1 or len(raw.images) > 1:
        corpus = raw.doc_id.partition("/")[0]
        raise CorpusError(
            f"corpus {corpus!r}: document {raw.doc_id!r} has {len(raw.segments)} segments and {len(raw.images)} "
            f"images, but text_len={text_len} says pairs (one of each). Read its paired view, or set text_len=None."
        )
    if not raw.images:
        return Bad(raw.doc_id, Cause.NO_IMAGE_LEFT, "a pair without an image")
    ids = _encode(raw.segments[0], first=True, tokenizer=tokenizer) if raw.segments else ()
    if not ids:
        return Bad(raw.doc_id, Cause.EMPTY_TEXT, "the caption tokenises to nothing")
    text = Text(ids[:text_len])
    # Read wherever an objective reads documents and the layout leaves the order open.
    fixed = (-1, 0) if rules.pair_order is PairOrder.IMAGE_FIRST else None
    pair = Prepared(raw.doc_id, (text,), raw.images, (0,), (0,), fixed, text_hash([text]), len(ids) > text_len)
    return _checked(pair, tokenizer)


def _encode(segment: str, first: bool, tokenizer: Tokenizer) -> tuple[int, ...]:
    """Each segment on its own; all but the first with the space that separated it from the one before."""
    text = segment.strip()
    return tuple(tokenizer.encode(text if first else " " + text)) if text else ()


def _checked(prepared: Prepared, tokenizer: Tokenizer) -> Prepared | Bad:
    reserved = tokenizer.special.ids
    for text in prepared.texts:
        if not reserved.isdisjoint(text.ids):
            found = sorted(reserved.intersection(text.ids))
            return Bad(prepared.uid, Cause.SPECIAL_TOKEN_IN_TEXT, f"the page's text tokenised to special ids {found}")
    return prepared


def text_hash(texts: Sequence[Text]) -> int:
    """Equal for equal text, 63 bits."""
    return stable_seed("caption", " ".join(str(i) for text in texts for i in text.ids))


def place(prepared: Prepared, rules: Rules, seed: int, epoch: int) -> tuple[int, ...]:
    """The reading order of the whole document as codes; each image before or after its sentence by its own coin."""
    if prepared.fixed is not None:
        return prepared.fixed
    before: dict[int, list[int]] = {}
    after: dict[int, list[int]] = {}
    for image, (number, anchor) in enumerate(zip(prepared.numbers, prepared.anchors, strict=True)):
        coin = uniform(seed, epoch, prepared.uid, "before", number)
        side = before if coin < rules.before_probability else after
        side.setdefault(anchor, []).append(-1 - image)
    codes: list[int] = []
    for text in range(len(prepared.texts)):
        codes += before.get(text, ())
        codes.append(text)
        codes += after.get(text, ())
    return tuple(codes)


def truncate(
    codes: Sequence[int], lengths: Sequence[int], patches: int, seq_len: int
) -> tuple[tuple[int, ...], int | None]:
    """Longest prefix of whole segments and image spans (patches + 2) that fits in seq_len with BOS and EOS.

    lengths: tokens of each text. A first text that alone exceeds the row is cut instead; the second value is then how
    many of its tokens stay, else None. It is always the last code kept.
    """
    room = seq_len - 2
    kept: list[int] = []
    first_text = True
    for code in codes:
        length = patches + 2 if code < 0 else lengths[code]
        if length > room:
            alone_too_long = length > seq_len - 2
            if code >= 0 and first_text and alone_too_long and room > 0:
                return (*kept, code), room
            break
        kept.append(code)
        room -= length
        first_text = first_text and code < 0
    return tuple(kept), None


def build(prepared: Prepared, codes: Sequence[int], cut: int | None) -> Sample:
    """The canonical document of a reading order; `cut` is the second value of `truncate`."""
    segments: list[Text | Image] = [prepared.texts[k] if k >= 0 else Image(prepared.images[-1 - k]) for k in codes]
    if cut is not None:
        segments[-1] = Text(prepared.texts[codes[-1]].ids[:cut])
    return Sample(prepared.uid, tuple(segments), prepared.caption_hash, prepared.truncated, cut is not None)
