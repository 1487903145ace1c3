"""A look at a corpus before anything is trained on it: documents from all of it, not from its beginning."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from data.document import Bad, Cause, Corpus, RawDocument
from data.errors import BadImage, CorpusError
from data.images import open_image
from data.loading.select import Rules, choose_images, unscored

LOOKED_AT = 200  # documents, evenly over the corpus


def spread(corpus: Corpus, most: int = LOOKED_AT) -> Iterator[RawDocument | Bad]:
    """Up to so many entries, evenly over the corpus; in its order."""
    for index in np.unique(np.linspace(0, len(corpus) - 1, most).astype(int)) if len(corpus) else ():
        yield corpus[int(index)]


def check_corpus(corpus: Corpus, lost: Sequence[Bad], rules: Rules, max_broken: float) -> str | None:
    """Refuse a corpus that a run could not use, judging by documents from all over it; else what to know about it.

    Args:
        corpus: the documents or pairs.
        lost: its shards that cannot be read, each with what is lost with it; known without looking.
        rules: how images are chosen; documents have one image decoded, the first chosen that can be.
        max_broken: share of the wanted documents that may be broken.

    Returns:
        One line where anything is broken, else None.

    Raises:
        CorpusError: nothing is there or usable, more than max_broken is broken beyond what chance allows among the
            documents looked at, or images are to be chosen by similarity and none has one. Names causes, examples and
            shards.
    """
    if not len(corpus):
        raise CorpusError(f"corpus {corpus.name!r} is empty: its shards are there and hold nothing. Download it again.")
    counts: Counter[Cause] = Counter()
    examples: dict[Cause, str] = {}
    used = broken = scored = images = 0
    for entry in spread(corpus):
        if isinstance(entry, RawDocument):
            images += len(entry.images)
            scored += sum(score is not None for score in entry.scores)
        bad = _why_not(entry, rules)
        if bad is None:
            used += 1
            continue
        counts[bad.cause] += 1
        examples.setdefault(bad.cause, f"{bad.doc_id}: {bad.message}")
        broken += bad.cause is not Cause.NOT_CHOSEN and bad.lost == 1
    if rules.text_len is None and rules.sim_threshold is not None and images and not scored:
        raise CorpusError(
            f"corpus {corpus.name!r} has images without a similarity score (none of {images} looked at has one), but "
            f"sim_threshold is {rules.sim_threshold}. Score the corpus, or read it with --set data.sim_threshold=none."
        )
    looked = min(LOOKED_AT, len(corpus))
    scale = len(corpus) / max(1, looked)
    wanted = used + broken
    gone = broken * scale + sum(bad.lost for bad in lost)
    share = gone / max(1.0, used * scale + gone)
    by_chance = 0.0 if looked == len(corpus) else 3 * math.sqrt(0.25 / max(1, wanted))
    causes = "; ".join(f"{cause} {number}, as {examples[cause]}" for cause, number in counts.most_common())
    shards = "".join(f"; {bad.doc_id}: {bad.message}" for bad in lost[:3] if bad.cause not in examples)
    found = f"corpus {corpus.name!r}: of {looked} documents looked at all over it"
    if used and share <= max_broken + by_chance:
        broken_ones = f"{found}, {used} can be used; about {share:.0%} of what is wanted is broken ({causes}{shards})"
        return broken_ones if gone else None
    if not used and not broken and not lost:
        raise CorpusError(f"{found}, none is wanted ({causes}). Lower data.sim_threshold, or look at its scores.")
    if not used:
        raise CorpusError(f"{found}, none can be used ({causes}{shards}). Repair or replace its shards.")
    raise CorpusError(
        f"{found}, {used} can be used; about {share:.0%} of what is wanted is broken and the limit is "
        f"data.max_broken={max_broken} ({causes}{shards}). Repair or replace shards, or bear it with --set "
        f"data.max_broken={min(1.0, math.ceil(share * 20 + 1) / 20):.2f}"
    )


def _why_not(entry: RawDocument | Bad, rules: Rules) -> Bad | None:
    """Why an entry gives nothing to train on; None where it does. Pairs are taken as they are."""
    if isinstance(entry, Bad):
        return entry
    if rules.text_len is None:
        chosen, unjudged = choose_images(entry, rules, seed=0), unscored(entry, rules)
    else:
        chosen, unjudged = tuple(range(len(entry.images[:1]))), ()
    unusable = [bad for bad in (*entry.removed, *unjudged) if bad.cause is not Cause.BAD_SENTENCE]
    if not chosen:
        return unusable[0] if unusable else Bad(entry.doc_id, Cause.NOT_CHOSEN, "no image passes the rules")
    worst: Bad | None = None
    for number in chosen:
        try:
            open_image(entry.images[number])
            return None
        except BadImage as error:
            worst = worst or Bad(entry.doc_id, error.cause, error.message)
    return worst
