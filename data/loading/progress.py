"""Where an iteration stands, what it skipped and why, and when that is too much."""

from collections import Counter, deque
from dataclasses import dataclass, field

from data.document import Bad
from data.errors import CorpusError

MAX_STREAK = 100  # consecutive documents without use after which the corpus is taken to be broken
WINDOW = 10_000  # documents over which the share of skipped ones is watched, or one epoch of a smaller corpus
EXAMPLES = 3  # kept per cause


@dataclass
class Progress:
    """Where an iteration stands after the last batch it gave. JSON in and out."""

    step: int = 0
    position: int = 0  # documents read since the start of the run, skipped ones included
    images: int = 0
    used_in_epoch: int = 0
    streak: int = 0  # skipped documents since the last used one
    skipped: deque[int] = field(default_factory=deque)  # their positions, as far as the window reaches back
    coverage: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def note(self, bad: Bad) -> None:
        """Count one cause; keep the first examples of it."""
        self.coverage[bad.cause.value] += 1
        held = self.examples.setdefault(bad.cause.value, [])
        example = f"{bad.doc_id}: {bad.message}"
        if len(held) < EXAMPLES and example not in held:
            held.append(example)

    def refuse_broken(self, corpus: str, documents: int, max_skip_fraction: float) -> None:
        """Raise CorpusError when too much of the corpus of that name and length had to be skipped."""
        window = min(WINDOW, documents)
        while self.skipped and self.skipped[0] < self.position - window:
            self.skipped.popleft()
        skipped = len(self.skipped)
        epoch_ends = self.position % documents == 0
        # A window over two epochs of a small corpus would meet the same bad document twice.
        watched = epoch_ends if documents <= WINDOW else self.position >= WINDOW
        reason = None
        if watched and skipped > max_skip_fraction * window:
            reason = f"{skipped} of the last {window} documents had to be skipped (limit {max_skip_fraction:.0%})"
        if self.streak >= MAX_STREAK:
            reason = f"{self.streak} consecutive documents had to be skipped"
        if epoch_ends:
            if not self.used_in_epoch:
                reason = f"a whole epoch of {documents} documents gave not one that can be used"
            self.used_in_epoch = 0
        if reason is not None:
            examples = self.examples.items()
            # One line, as a record keeps no more of an error.
            causes = "; ".join(f"{cause} {self.coverage[cause]}, as {held[0]}" for cause, held in sorted(examples))
            raise CorpusError(f"corpus {corpus!r}: {reason}. Causes so far: {causes}. Repair the corpus or its rules.")
