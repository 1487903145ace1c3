"""Several corpora as one stream: every step holds a declared number of images of each (LCL section 4.4, LAION + MMC4).

Each part is a loader of its own, with its own order, epochs, limits and counts, so a part that ends begins its next
epoch and none waits for another. A step is the steps of the parts, one behind the other in one batch, and a contrastive
loss runs over all of it (our choice: the paper says neither the shares nor whether a batch is mixed). The position of
every part is all there is to remember.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from data.batch import Batch, Rows, TokenType
from data.loading.loader import Loader

STATE_VERSION = 1


class Mixed(NamedTuple):
    """What the parts are together."""

    name: str
    digest: str  # of the parts and of their images a step


class Mixture:
    """Iterates several corpora at once; as a `Loader` to whoever reads batches."""

    def __init__(self, name: str, parts: Mapping[str, Loader]) -> None:
        """parts: by name, with their images of a step; the last step of one may come before the others'."""
        self._parts = dict(parts)
        self.steps = max(part.steps for part in parts.values())
        held = [f"{each} {part.corpus.digest} {part.images_per_step}" for each, part in parts.items()]
        self.corpus = Mixed(name, hashlib.sha256("\n".join(held).encode()).hexdigest()[:16])

    @property
    def coverage(self) -> Counter[str]:
        """As of a `Loader`, over all parts; and of each part alone, as "laion:skipped"."""
        found: Counter[str] = Counter()
        for name, part in self._parts.items():
            found.update(part.coverage)
            found.update({f"{name}:{what}": count for what, count in part.coverage.items()})
        return found

    def state(self) -> dict[str, Any]:
        """Everything to continue after the last batch given, as JSON values; give it to `batches`."""
        return {"version": STATE_VERSION, "parts": {name: part.state() for name, part in self._parts.items()}}

    def batches(self, start: int | Mapping[str, Any] = 0) -> Iterator[Batch]:
        """As of a `Loader`. Raises ValueError for the state of another mixture, and what the parts raise."""
        starts: Mapping[str, Any]
        if isinstance(start, int):
            starts = {name: min(start, part.steps) for name, part in self._parts.items()}
        else:
            if start.get("version") != STATE_VERSION or list(start.get("parts", ())) != list(self._parts):
                raise ValueError(
                    f"the state is of {list(start.get('parts', ()))} in version {start.get('version')!r}, but "
                    f"{self.corpus.name!r} mixes {list(self._parts)} in version {STATE_VERSION}; start from step 0"
                )
            starts = start["parts"]
        return self._iterate([part.batches(starts[name]) for name, part in self._parts.items()])

    def once(self, images: int) -> Batch | None:
        """Up to so many images of the parts in their own order, an equal number of each; None where there is none."""
        many = len(self._parts)
        shares = [images * (at + 1) // many - images * at // many for at in range(many)]
        found = [part.once(share) for part, share in zip(self._parts.values(), shares, strict=True)]
        batches = [batch for batch in found if batch is not None]
        return self._join(batches) if batches else None

    def _iterate(self, parts: Sequence[Iterator[Batch]]) -> Iterator[Batch]:
        for found in zip_longest(*parts):
            yield self._join([batch for batch in found if batch is not None])

    def _join(self, batches: Sequence[Batch]) -> Batch:
        pad = next(iter(self._parts.values())).tokenizer.special.pad
        return join(batches, pad)


def join(batches: Sequence[Batch], pad: int) -> Batch:
    """Batches of the same layouts as one, their rows one below the other; pad: id of the padding."""
    return Batch(
        images=torch.cat([batch.images for batch in batches]),
        rows={layout: _below([batch.rows[layout] for batch in batches], pad) for layout in batches[0].rows},
        labels=torch.cat([batch.labels for batch in batches]),
        doc_uid=tuple(uid for batch in batches for uid in batch.doc_uid),
        doc_seed=torch.cat([batch.doc_seed for batch in batches]),
        caption_hash=torch.cat([batch.caption_hash for batch in batches]),
    )


def _below(parts: Sequence[Rows], pad: int) -> Rows:
    width = max(part.input_ids.shape[1] for part in parts)
    above = [sum(len(part.input_ids) for part in parts[:at]) for at in range(len(parts))]

    def wide(field: str, fill: int | bool) -> torch.Tensor:
        found = [getattr(part, field) for part in parts]
        return torch.cat([F.pad(each, (0, width - each.shape[1]), value=fill) for each in found])

    rows = wide("input_ids", pad)
    return Rows(
        input_ids=rows,
        attn_mask=wide("attn_mask", False),
        token_type=wide("token_type", int(TokenType.PAD)),
        position_ids=torch.arange(width).expand(rows.shape).clone(),
        doc_id=wide("doc_id", -1),
        img_row=torch.cat([part.img_row + first for part, first in zip(parts, above, strict=True)]),
        img_boi=torch.cat([part.img_boi for part in parts]),
        img_has_ctx=torch.cat([part.img_has_ctx for part in parts]),
    )
