"""One document at a time: sampled, tokenised, its images decoded and cropped; what cannot be decoded is removed.

Who reads it makes no difference: an entry of an epoch is the same in this process and in any reader (reader.py).
"""

import sys
from collections.abc import Hashable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from PIL import Image as Pil

from data.document import Bad, Cause, Corpus
from data.errors import BadImage
from data.images import ImageTransform, JpegDecoding
from data.loading.cache import Bounded, Pictures
from data.loading.item import Item
from data.loading.select import Prepared, Rules, build, place, prepare, truncate
from data.seeds import generator, stable_seed
from data.tokenizer import Tokenizer

# Sampled and tokenised documents by corpus: all loaders over one opened corpus share them, and they go when it goes.
_prepared: WeakKeyDictionary[Corpus, dict[Hashable, Bounded[int, Prepared | Bad]]] = WeakKeyDictionary()


# What came of an entry, and the images and sentences that had to be removed on the way.
Drawn = tuple[Item | Bad, list[Bad]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Drawing:
    """What documents of a run are made of and how: all that another process needs to make the same ones."""

    corpus: Corpus
    tokenizer: Tokenizer
    transform: ImageTransform
    rules: Rules
    patches: int  # of an image; lengths are counted with them
    seq_len: int | None  # tokens after which a document is cut; None: it is not
    seed: int
    cache_documents: int  # tokenised documents to keep
    jpeg: JpegDecoding = "full"


class Drawer:
    """Reads documents of a corpus under the rules of a run; a function of (seed, epoch, index) but for its caches."""

    def __init__(self, of: Drawing, pictures: Pictures) -> None:
        self._corpus, self._tokenizer, self._transform, self._rules = of.corpus, of.tokenizer, of.transform, of.rules
        self._patches, self._seed, self._pictures = of.patches, of.seed, pictures
        self._seq_len = sys.maxsize if of.seq_len is None else of.seq_len
        self._at_least = of.transform.size if of.jpeg == "scaled" else None
        self._documents = _prepared.setdefault(of.corpus, {}).setdefault(
            (of.rules, of.tokenizer.digest, of.seed, of.cache_documents), Bounded(of.cache_documents)
        )

    def read(self, index: int, epoch: int) -> Drawn:
        """One document with its crops; each is named by (seed, epoch, document, image) alone."""
        prepared = self._documents.get(index)
        if prepared is None:
            raw = self._corpus[index]
            prepared = raw if isinstance(raw, Bad) else prepare(raw, self._rules, self._tokenizer, self._seed)
            self._documents.put(index, prepared, 1)
        if isinstance(prepared, Bad):
            return prepared, []
        codes = place(prepared, self._rules, self._seed, epoch)
        lengths = [len(text.ids) for text in prepared.texts]
        pictures: dict[int, tuple[Pil.Image, int]] = {}
        removed = list(prepared.removed)
        while True:
            kept, cut = truncate(codes, lengths, self._patches, self._seq_len)
            wanted = [code for code in kept if code < 0]
            if not wanted:
                gone = len(removed) - len(prepared.removed)
                within = "" if self._seq_len == sys.maxsize else f" lies within the first {self._seq_len} tokens"
                message = f"no image{within}; {gone} could not be decoded"
                return Bad(prepared.uid, Cause.NO_IMAGE_LEFT if gone else Cause.NOT_CHOSEN, message), removed
            broken = set()
            for code in wanted:
                if code not in pictures:
                    try:
                        pictures[code] = self._pictures(prepared.images[-1 - code], self._at_least)
                    except BadImage as error:
                        broken.add(code)
                        removed.append(Bad(prepared.uid, error.cause, error.message))
            if not broken:
                break
            if self._rules.text_len is not None:
                return removed[0], []  # a pair is its image: one cause, counted once
            codes = tuple(code for code in codes if code not in broken)
        crops = []
        for code in wanted:
            picture, divided = pictures[code]
            rng = generator(self._seed, epoch, prepared.uid, "crop", prepared.numbers[-1 - code])
            crops.append(self._transform.train(picture, rng, divided))
        return Item(build(prepared, kept, cut), tuple(crops), stable_seed(self._seed, epoch, prepared.uid)), removed
