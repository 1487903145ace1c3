"""One document at a time: sampled, tokenised, its images decoded and cropped; what cannot be decoded is removed."""

import sys
from collections.abc import Hashable
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

from PIL import Image as Pil

from data.document import Bad, Cause, Corpus, Image
from data.errors import BadImage
from data.images import ImageTransform
from data.loading.cache import Bounded, Pictures
from data.loading.collate import Item
from data.loading.select import Prepared, Rules, Sample, build, place, prepare, truncate
from data.seeds import generator, stable_seed
from data.tokenizer import Tokenizer

# Sampled and tokenised documents by corpus: all loaders over one opened corpus share them, and they go when it goes.
_prepared: WeakKeyDictionary[Corpus, dict[Hashable, Bounded[int, Prepared | Bad]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Drawn:
    """A sampled document with its images decoded, before cropping."""

    document: Sample
    pictures: tuple[Pil.Image, ...]
    numbers: tuple[int, ...]  # of the pictures in the raw document: part of the name of each crop
    epoch: int

    def first(self, images: int) -> "Drawn":
        """The same document with at most that many images, the first ones; its text stays."""
        if images >= len(self.pictures):
            return self
        position = 0
        kept = []
        for part in self.document.segments:
            position += isinstance(part, Image)
            if not isinstance(part, Image) or position <= images:
                kept.append(part)
        document = replace(self.document, segments=tuple(kept))
        return replace(self, document=document, pictures=self.pictures[:images], numbers=self.numbers[:images])


class Drawer:
    """Reads documents of a corpus under the rules of a run; a function of (seed, epoch, index) but for its caches."""

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        transform: ImageTransform,
        rules: Rules,
        *,
        patches: int,
        seq_len: int | None,
        seed: int,
        cache_documents: int,
        pictures: Pictures,
    ) -> None:
        """seq_len: where a document is cut; None: nowhere."""
        self._corpus, self._tokenizer, self._transform, self._rules = corpus, tokenizer, transform, rules
        self._patches, self._seed, self._pictures = patches, seed, pictures
        self._seq_len = sys.maxsize if seq_len is None else seq_len
        self._documents = _prepared.setdefault(corpus, {}).setdefault(
            (rules, tokenizer.digest, seed, cache_documents), Bounded(cache_documents)
        )

    def read(self, index: int, epoch: int) -> tuple[Drawn | Bad, list[Bad]]:
        """One document with its images decoded, and the images that had to be removed on the way."""
        prepared = self._documents.get(index)
        if prepared is None:
            raw = self._corpus[index]
            prepared = raw if isinstance(raw, Bad) else prepare(raw, self._rules, self._tokenizer, self._seed)
            self._documents.put(index, prepared, 1)
        if isinstance(prepared, Bad):
            return prepared, []
        codes = place(prepared, self._rules, self._seed, epoch)
        lengths = [len(text.ids) for text in prepared.texts]
        pictures: dict[int, Pil.Image] = {}
        removed = list(prepared.removed)
        while True:
            kept, cut = truncate(codes, lengths, self._patches, self._seq_len)
            wanted = [code for code in kept if code < 0]
            if not wanted:
                gone = len(removed) - len(prepared.removed)
                message = f"no image lies within the first {self._seq_len} tokens; {gone} could not be decoded"
                return Bad(prepared.uid, Cause.NO_IMAGE_LEFT if gone else Cause.NOT_CHOSEN, message), removed
            broken = set()
            for code in wanted:
                if code not in pictures:
                    try:
                        pictures[code] = self._pictures(prepared.images[-1 - code])
                    except BadImage as error:
                        broken.add(code)
                        removed.append(Bad(prepared.uid, error.cause, error.message))
            if not broken:
                break
            if self._rules.text_len is not None:
                return removed[0], []  # a pair is its image: one cause, counted once
            codes = tuple(code for code in codes if code not in broken)
        numbers = tuple(prepared.numbers[-1 - code] for code in wanted)
        document = build(prepared, kept, cut)
        return Drawn(document, tuple(pictures[code] for code in wanted), numbers, epoch), removed

    def crop(self, drawn: Drawn) -> Item:
        """The document with its crops; each is named by (seed, epoch, document, image) alone."""
        uid = drawn.document.uid
        images = tuple(
            self._transform.train(picture, generator(self._seed, drawn.epoch, uid, "crop", number))
            for picture, number in zip(drawn.pictures, drawn.numbers, strict=True)
        )
        return Item(drawn.document, images, stable_seed(self._seed, drawn.epoch, uid))
