"""Sizes of the embedded corpus; equal specs write equal bytes. Imports nothing heavy: planning names runs by it."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from data.toyworld.rules import DocumentRules

FORMAT = 2  # bump when the same spec would write different bytes


PREFIX = "toyworld-"  # of folders of embedded corpora; no digest of a folder of files begins like this


@dataclass(frozen=True, kw_only=True)
class ToyworldSpec:
    """Sizes of the embedded corpus and the declared redundancy of its documents."""

    seed: int = 0
    documents: int = 16_000
    documents_per_shard: int = 2_000
    laion_pairs: int = 10_000
    transfer_train: int = 5_000  # labelled pictures; as many captioned ones for retrieval and for captioning
    transfer_val: int = 500
    classification_test: int = 1_500
    caption_test: int = 500
    rules: DocumentRules = field(default_factory=DocumentRules)

    @property
    def digest(self) -> str:
        """Names the corpus: equal specs write equal bytes."""
        parts = asdict(self)
        if self.rules.one_subject == 1:  # as it was before there was a choice: records hold the name
            del parts["rules"]["one_subject"]
        text = json.dumps({"format": FORMAT, **parts}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def folder_name(self) -> str:
        """Where the corpus of this spec lies below a folder of corpora."""
        return f"{PREFIX}{self.digest}"


DIALOGUE_FORMAT = 2  # bump when the same ToyDialogueSpec would write different bytes
DIALOGUE_BENCHMARKS = ("gqa", "pope")  # in whose form the embedded dialogue corpus asks


@dataclass(frozen=True, kw_only=True)
class ToyDialogueSpec:
    """Pictures of each part of the embedded dialogue corpus. 500 of test would make as many questions as POPE has."""

    seed: int = 0
    align: int = 4_000
    tune: int = 4_000
    test: int = 300
    things: Literal[1, 4] = 4  # in a picture

    @property
    def folder_name(self) -> str:
        """Where the corpus of this spec lies below a folder of corpora; equal specs write equal bytes."""
        parts = asdict(self)
        if self.things == 4:  # as it was before there was a choice: records hold the name
            del parts["things"]
        text = json.dumps({"dialogue": DIALOGUE_FORMAT, **parts}, sort_keys=True)
        return f"{PREFIX}dialogue-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def is_embedded(digest: str) -> bool:
    """Whether the fingerprint of a folder, as plans hold it, is that of a part of an embedded corpus."""
    return digest.startswith(PREFIX)
