"""What a document of the embedded corpus is like, as numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DocumentRules:
    """What a document is like; `redundancy` is the declared degree to which text names what its pictures show."""

    redundancy: float = 0.9
    image_counts: tuple[float, ...] = (0.25, 0.30, 0.25, 0.20)  # probability of 1, 2, 3, 4 pictures
    distractor: float = 0.4
    repeat: float = 0.3
