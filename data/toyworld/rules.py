"""What a document of the embedded corpus is like, as numbers."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DocumentRules:
    """What a document is like: how much its text says of its pictures, and how much of that can be read elsewhere."""

    redundancy: float = 0.9  # probability that a title, and the sentence beside a picture, name what is shown
    one_subject: float = 1.0  # probability that a picture shows the document's subject; else a pattern of its own
    image_counts: tuple[float, ...] = (0.25, 0.30, 0.25, 0.20)  # probability of 1, 2, 3, 4 pictures
    distractor: float = 0.4
    repeat: float = 0.3
