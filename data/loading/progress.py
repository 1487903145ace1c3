"""Where an iteration stands, what it counted and why, and when too much of the corpus is broken.

A document the rules do not want is no fault: it is counted apart and never a reason to stop, unless nothing at all is
left. What cannot be used is counted at its size, a lost shard for all it held.
"""

import math
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from data.document import Bad, Cause
from data.errors import CorpusError

MAX_STREAK = 100  # consecutive broken documents after which the corpus is taken to be gone
UNLIKELY = 1e-9  # chance of a longer streak where so much is broken, at random, as is borne
WINDOW = 10_000  # documents over which the share of broken ones is watched, or one epoch of a smaller corpus
EXAMPLES = 3  # kept per cause
SHARDS = 512  # that are kept by name in the count of what is broken where
NAMED = 3  # shards in a message


def longest_streak(max_broken: float) -> float:
    """Consecutive broken documents that are too many to be chance: MAX_STREAK, more from a share of 0.81 on."""
    if max_broken >= 1:
        return math.inf
    return max(MAX_STREAK, math.log(UNLIKELY) / math.log(max_broken)) if max_broken > 0 else MAX_STREAK


@dataclass
class Progress:
    """Where an iteration stands after the last batch it gave. JSON in and out."""

    step: int = 0
    position: int = 0  # entries of the corpus read since the start of the run, whatever became of them
    images: int = 0
    used_in_epoch: int = 0
    streak: int = 0  # broken documents since the last used one
    skipped: deque[tuple[int, int]] = field(default_factory=deque)  # (position, documents lost), within the window
    lost: int = 0  # sum of the above
    unchosen: deque[int] = field(default_factory=deque)  # positions within the window
    coverage: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    shards: Counter[str] = field(default_factory=Counter)  # broken documents by shard

    @classmethod
    def restore(cls, saved: Mapping[str, Any]) -> "Progress":
        """From `plain`, also as it was written when only positions of skipped documents were kept."""
        skipped = [(entry, 1) if isinstance(entry, int) else (entry[0], entry[1]) for entry in saved["skipped"]]
        changed = {
            "skipped": deque(skipped),
            "lost": sum(lost for _, lost in skipped),
            "unchosen": deque(saved.get("unchosen", ())),
            "coverage": Counter(saved["coverage"]),
            "examples": {cause: list(held) for cause, held in saved["examples"].items()},
            "shards": Counter(saved.get("shards", {})),
        }
        return cls(**{**saved, **changed})

    def plain(self) -> dict[str, Any]:
        """A copy as JSON values."""
        return vars(self) | {
            "skipped": [list(entry) for entry in self.skipped],
            "unchosen": list(self.unchosen),
            "coverage": dict(self.coverage),
            "examples": {cause: list(held) for cause, held in self.examples.items()},
            "shards": dict(self.shards),
        }

    def note(self, bad: Bad) -> None:
        """Count one cause; keep the first examples of it."""
        self.coverage[bad.cause.value] += bad.lost
        held = self.examples.setdefault(bad.cause.value, [])
        example = f"{bad.doc_id}: {bad.message}"
        if len(held) < EXAMPLES and example not in held:
            held.append(example)

    def skip(self, bad: Bad) -> None:
        """Count a document that is not used."""
        self.note(bad)
        if bad.cause is Cause.NOT_CHOSEN:
            self.unchosen.append(self.position)
        else:
            self.coverage["skipped"] += bad.lost
            self.skipped.append((self.position, bad.lost))
            self.lost += bad.lost
            self.streak += 1
            self.shards[bad.doc_id.rpartition("/")[0]] += bad.lost
            if len(self.shards) > 2 * SHARDS:
                self.shards = Counter(dict(self.shards.most_common(SHARDS)))

    def use(self) -> None:
        """Count a document that is used."""
        self.coverage["documents"] += 1
        self.used_in_epoch += 1
        self.streak = 0

    def advance(self, corpus: str, documents: int, max_broken: float) -> None:
        """Go to the next entry of the corpus of that name and length.

        Raises CorpusError when more than the share `max_broken` of the documents that were wanted could not be used,
        when one broken document follows another without end, or when nothing of a whole epoch was of use.
        """
        self.position += 1
        window = min(WINDOW, documents)
        while self.skipped and self.skipped[0][0] < self.position - window:
            self.lost -= self.skipped.popleft()[1]
        while self.unchosen and self.unchosen[0] < self.position - window:
            self.unchosen.popleft()
        epoch_ends = self.position % documents == 0
        # A window over two epochs of a small corpus would meet the same bad document twice.
        watched = epoch_ends if documents <= WINDOW else self.position >= WINDOW
        wanted = self.lost + window - len(self.skipped) - len(self.unchosen)
        if epoch_ends and not self.used_in_epoch:
            raise self._error(corpus, f"a whole epoch of {documents} documents gave not one that can be used")
        if self.streak >= longest_streak(max_broken):
            raise self._error(corpus, f"{self.streak} consecutive documents are broken")
        if watched and self.lost > max_broken * wanted:
            share = self.lost / wanted
            raise self._error(
                corpus,
                f"{self.lost} of {wanted} documents are broken, {share:.0%}; the limit is data.max_broken={max_broken}",
                f" or bear them with --set data.max_broken={min(1.0, round(share + 0.06, 1))}",
            )
        if epoch_ends:
            self.used_in_epoch = 0

    def _error(self, corpus: str, reason: str, else_: str = "") -> CorpusError:
        """One line, as a record keeps no more of an error."""
        examples = sorted(self.examples.items())
        causes = "; ".join(f"{cause} {self.coverage[cause]}, as {held[0]}" for cause, held in examples)
        worst = ", ".join(f"{shard} ({number})" for shard, number in self.shards.most_common(NAMED))
        if not worst:
            advice = "Nothing is broken: the rules want none of it; lower data.sim_threshold (none: no threshold)."
        else:
            advice = f"Most is broken in {worst}: repair or replace those shards{else_}."
        return CorpusError(f"corpus {corpus!r}: {reason}. Causes so far: {causes}. {advice}")
