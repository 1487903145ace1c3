"""Batches of a corpus: seeded order, exact image budget, errors counted and skipped, resumable at any step.

Our choice, so that a run continues exactly and on any number of workers: the position in the corpus is all there is to
remember; the order of an epoch is a function of (seed, epoch), and every other choice one of (seed, epoch, document).
A step ends with the document that brings the images of the run to its share, so objectives that read the same corpus
see the same documents in the same steps, whatever layouts they ask for.
"""

from collections import Counter, deque
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from PIL import Image as Pil

from data.batch import Batch, Layout
from data.collate import Item, collate
from data.document import Bad, Cause, Corpus, Image, ImageRef
from data.errors import BadImage, CorpusError
from data.images import ImageTransform, open_image
from data.render import PAIR_LAYOUTS, Writing
from data.seeds import generator, stable_seed
from data.select import Prepared, Rules, Sample, build, place, prepare, truncate
from data.tokenizer import Tokenizer

STATE_VERSION = 1
MAX_STREAK = 100  # consecutive documents without use after which the corpus is taken to be broken
WINDOW = 10_000  # documents over which the share of skipped ones is watched, or one epoch of a smaller corpus
EXAMPLES = 3  # kept per cause

K = TypeVar("K")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """A cache that fills up and stays: over reshuffled epochs it hits more often than evicting the least recent."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._held: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """What is held under the key, or None."""
        return self._held.get(key)

    def put(self, key: K, value: V, size: int) -> None:
        """Hold the value if there is room for it."""
        if size <= self._left:
            self._left -= size
            self._held[key] = value


class Pictures:
    """Decoded images of this process, shared by all loaders: rows of a seed read the same ones in the same order.

    Kept as plain bytes: a Pillow image holds four bytes a pixel and some kilobytes besides.
    """

    def __init__(self, budget: int) -> None:
        """budget: bytes to hold."""
        self._held: Bounded[Hashable, tuple[tuple[int, int], bytes]] = Bounded(budget)

    def __call__(self, ref: ImageRef) -> Pil.Image:
        """The picture. Raises BadImage as `open_image` does."""
        held = self._held.get(ref.read)
        if held is not None:
            return Pil.frombytes("RGB", *held)
        picture = open_image(ref)
        data = picture.tobytes()
        self._held.put(ref.read, (picture.size, data), len(data))
        return picture


PICTURE_BYTES = 512 * 2**20
_pictures = Pictures(PICTURE_BYTES)


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


class Loader:
    """Iterates a corpus for a budget of images."""

    def __init__(
        self,
        corpus: Corpus,
        tokenizer: Tokenizer,
        transform: ImageTransform,
        *,
        layouts: Sequence[Layout],
        patches: int,
        slots: int,
        seq_len: int,
        images_per_step: int,
        total_images: int,
        seed: int,
        rules: Rules,
        writing: Writing | None = None,
        max_skip_fraction: float = 0.3,
        cache_documents: int = 65_536,
        pictures: Pictures = _pictures,
    ) -> None:
        """Check that the pieces fit; nothing is read yet.

        Args:
            corpus: the raw documents.
            tokenizer: turns text into ids and owns the special ones.
            transform: crops and normalises; its `train` method is used.
            layouts: the renderings the batch holds.
            patches: patch tokens per image; truncation counts patches + 2 per image whatever `slots` is.
            slots: image slots a span has in the rows.
            seq_len: longest row, in tokens.
            images_per_step: step k ends once k times this many images were given, exceeded by less than a document.
            total_images: images of the run, exactly: surplus images of the last document are left out.
            seed: names the order, the choices and the crops.
            rules: sampling; `rules.text_len` says whether the corpus is one of pairs.
            writing: markers of the layouts.
            max_skip_fraction: skipped documents over the window beyond which the corpus is refused.
            cache_documents: tokenised documents to keep.
            pictures: holds decoded images; equal for all loaders of a process.

        Raises:
            ValueError: an empty corpus, or lengths, layouts and rules that contradict each other.
        """
        self.corpus, self.tokenizer, self.transform = corpus, tokenizer, transform
        self.layouts, self.slots, self.patches, self.seq_len = tuple(layouts), slots, patches, seq_len
        self.images_per_step, self.total_images, self.seed = images_per_step, total_images, seed
        self.rules, self.writing = rules, writing or Writing()
        self.max_skip_fraction = max_skip_fraction
        self._check()
        self.steps = -(-total_images // images_per_step)
        self._progress = Progress()
        self._order: tuple[int, np.ndarray] | None = None
        self._documents = _prepared.setdefault(corpus, {}).setdefault(
            (rules, tokenizer.digest, seed, cache_documents), Bounded(cache_documents)
        )
        self._pictures = pictures

    def _check(self) -> None:
        name, text_len = self.corpus.name, self.rules.text_len
        problems = []
        if not len(self.corpus):
            problems.append("the corpus is empty")
        pairs_only = [layout.value for layout in self.layouts if layout in PAIR_LAYOUTS]
        if pairs_only and text_len is None:
            problems.append(f"layouts {pairs_only} write pairs, but rules.text_len is None (a corpus of documents)")
        if not 1 <= self.slots <= self.patches:
            problems.append(f"slots is {self.slots}; lengths are counted with patches={self.patches}, the most allowed")
        need = self.patches + 4 + (text_len or 0)
        if self.seq_len < need:
            problems.append(f"seq_len is {self.seq_len}; an image, its text and the markers need {need}")
        most = self.rules.max_images if text_len is None else 1
        if self.images_per_step < most:
            problems.append(f"images_per_step is {self.images_per_step}, but one document may hold {most} images")
        if self.total_images < 1:
            problems.append(f"total_images is {self.total_images}; a run needs at least 1")
        if problems:
            raise ValueError(f"cannot load corpus {name!r}: " + "; ".join(problems))

    @property
    def coverage(self) -> Counter[str]:
        """Documents, images and skipped documents so far, and every cause of `data.document.Cause` met.

        A cause counts documents, except that in corpora of documents missing_image, decode_error and oversize count
        images removed; segment_hard_split documents are used, not skipped.
        """
        return Counter(self._progress.coverage)

    @property
    def examples(self) -> dict[str, list[str]]:
        """The first few "doc_id: message" of each cause."""
        return {cause: list(held) for cause, held in self._progress.examples.items()}

    def order(self, epoch: int) -> np.ndarray:
        """The corpus indices of an epoch in reading order [len(corpus)]; a function of (seed, epoch)."""
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, generator(self.seed, "order", epoch).permutation(len(self.corpus))
        return self._order[1]

    def state(self) -> dict[str, Any]:
        """Everything to continue after the last batch given, as JSON values; give it to `batches`."""
        progress = vars(self._progress) | {
            "skipped": list(self._progress.skipped),
            "coverage": dict(self._progress.coverage),
            "examples": self.examples,
        }
        return {"version": STATE_VERSION, "of": self._identity(), "progress": progress}

    def _identity(self) -> dict[str, Any]:
        """What must not change between saving and continuing."""
        return {
            "corpus": self.corpus.digest,
            "documents": len(self.corpus),
            "tokenizer": self.tokenizer.digest,
            "rules": asdict(self.rules),
            "patches": self.patches,
            "seq_len": self.seq_len,
            "images_per_step": self.images_per_step,
            "seed": self.seed,
        }

    def batches(self, start: int | Mapping[str, Any] = 0) -> Iterator[Batch]:
        """The batches after `start`, equal to those an uninterrupted iteration gives from there.

        start: a step, found by replaying the run up to it (every image is decoded once, as only that tells the broken
        ones), or a `state()`, which costs nothing. `state`, `coverage` and `examples` follow the latest call.

        Raises:
            ValueError: a step outside the run, or a state of another run.
            CorpusError: too many documents had to be skipped; names causes and examples.
        """
        if isinstance(start, int):
            if not 0 <= start <= self.steps:
                raise ValueError(f"start is step {start}; the run has steps 0 to {self.steps}")
            progress = Progress()
            self._progress = progress
            while progress.step < start:
                self._draw_step(progress)
        else:
            progress = self._restore(start)
            self._progress = progress
        return self._iterate(progress)

    def once(self, images: int) -> Batch | None:
        """The corpus in its own order, read up to so many images, as one batch; None where it holds no image.

        For probes: unshuffled, paired and interleaved views of the same documents give the same images, except where
        the end of a document does not fit into its row. `state` and `coverage` know nothing of it.
        """
        items: list[Item] = []
        held = 0
        for index in range(len(self.corpus)):
            if held == images:
                break
            drawn, _ = self._read(index, 0)
            if isinstance(drawn, Drawn):
                drawn = drawn.first(images - held)
                held += len(drawn.pictures)
                items.append(self._crop(drawn))
        return self._collate(items) if items else None

    def _restore(self, state: Mapping[str, Any]) -> Progress:
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"loader state has version {state.get('version')!r}; this code reads {STATE_VERSION}")
        mine, theirs = self._identity(), state["of"]
        differing = [key for key in mine if mine[key] != theirs.get(key)]
        if differing:
            values = "; ".join(f"{key}: {theirs.get(key)!r} saved, {mine[key]!r} now" for key in differing)
            raise ValueError(
                f"the loader state of {self.corpus.name!r} is of another run ({values}). "
                "Restore what was changed, or start from step 0."
            )
        saved = dict(state["progress"])
        saved |= {"skipped": deque(saved["skipped"]), "coverage": Counter(saved["coverage"])}
        saved["examples"] = {cause: list(held) for cause, held in saved["examples"].items()}
        return Progress(**saved)

    def _iterate(self, progress: Progress) -> Iterator[Batch]:
        while progress.step < self.steps:
            yield self._collate([self._crop(drawn) for drawn in self._draw_step(progress)])

    def _collate(self, items: Sequence[Item]) -> Batch:
        return collate(
            items,
            layouts=self.layouts,
            slots=self.slots,
            seq_len=self.seq_len,
            special=self.tokenizer.special,
            transform=self.transform,
            writing=self.writing,
        )

    def _draw_step(self, progress: Progress) -> list[Drawn]:
        """The documents of the next step. Ends: every skipped document counts towards a fatal limit."""
        target = min((progress.step + 1) * self.images_per_step, self.total_images)
        # At least one image is left to every later step, or the run would end a step early by chance.
        limit = self.total_images - (self.steps - progress.step - 1)
        step: list[Drawn] = []
        while progress.images < target:
            drawn = self._draw(progress)
            if isinstance(drawn, Drawn):
                drawn = drawn.first(limit - progress.images)
                progress.images += len(drawn.pictures)
                progress.coverage["images"] += len(drawn.pictures)
                step.append(drawn)
        progress.step += 1
        return step

    def _draw(self, progress: Progress) -> Drawn | Bad:
        epoch, at = divmod(progress.position, len(self.corpus))
        drawn, removed = self._read(int(self.order(epoch)[at]), epoch)
        for bad in removed:
            progress.note(bad)
        if isinstance(drawn, Bad):
            progress.note(drawn)
            progress.coverage["skipped"] += 1
            progress.skipped.append(progress.position)
            progress.streak += 1
        else:
            progress.coverage["documents"] += 1
            if drawn.document.hard_split:
                progress.coverage[Cause.SEGMENT_HARD_SPLIT.value] += 1
            progress.used_in_epoch += 1
            progress.streak = 0
        progress.position += 1
        self._refuse_broken(progress)
        return drawn

    def _refuse_broken(self, progress: Progress) -> None:
        documents = len(self.corpus)
        window = min(WINDOW, documents)
        while progress.skipped and progress.skipped[0] < progress.position - window:
            progress.skipped.popleft()
        skipped = len(progress.skipped)
        epoch_ends = progress.position % documents == 0
        # A window over two epochs of a small corpus would meet the same bad document twice.
        watched = epoch_ends if documents <= WINDOW else progress.position >= WINDOW
        reason = None
        if watched and skipped > self.max_skip_fraction * window:
            reason = f"{skipped} of the last {window} documents had to be skipped (limit {self.max_skip_fraction:.0%})"
        if progress.streak >= MAX_STREAK:
            reason = f"{progress.streak} consecutive documents had to be skipped"
        if epoch_ends:
            if not progress.used_in_epoch:
                reason = f"a whole epoch of {documents} documents gave not one that can be used"
            progress.used_in_epoch = 0
        if reason is not None:
            examples = progress.examples.items()
            # One line, as a record keeps no more of an error.
            causes = "; ".join(f"{cause} {progress.coverage[cause]}, as {held[0]}" for cause, held in sorted(examples))
            raise CorpusError(
                f"corpus {self.corpus.name!r}: {reason}. Causes so far: {causes}. Repair the corpus or its rules."
            )

    def _read(self, index: int, epoch: int) -> tuple[Drawn | Bad, list[Bad]]:
        """One document with its images decoded, and the images that had to be removed on the way."""
        prepared = self._documents.get(index)
        if prepared is None:
            raw = self.corpus[index]
            prepared = raw if isinstance(raw, Bad) else prepare(raw, self.rules, self.tokenizer, self.seed)
            self._documents.put(index, prepared, 1)
        if isinstance(prepared, Bad):
            return prepared, []
        codes = place(prepared, self.rules, self.seed, epoch)
        lengths = [len(text.ids) for text in prepared.texts]
        pictures: dict[int, Pil.Image] = {}
        removed: list[Bad] = []
        while True:
            kept, cut = truncate(codes, lengths, self.patches, self.seq_len)
            wanted = [code for code in kept if code < 0]
            if not wanted:
                message = f"no image lies within the first {self.seq_len} tokens; {len(removed)} could not be decoded"
                return Bad(prepared.uid, Cause.NO_IMAGE_LEFT, message), removed
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
            if self.rules.text_len is not None:
                return removed[0], []  # a pair is its image: one cause, counted once
            codes = tuple(code for code in codes if code not in broken)
        numbers = tuple(prepared.numbers[-1 - code] for code in wanted)
        document = build(prepared, kept, cut)
        return Drawn(document, tuple(pictures[code] for code in wanted), numbers, epoch), removed

    def _crop(self, drawn: Drawn) -> Item:
        uid = drawn.document.uid
        images = tuple(
            self.transform.train(picture, generator(self.seed, drawn.epoch, uid, "crop", number))
            for picture, number in zip(drawn.pictures, drawn.numbers, strict=True)
        )
        return Item(drawn.document, images, stable_seed(self.seed, drawn.epoch, uid))
