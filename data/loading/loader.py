"""Batches of a corpus: seeded order, exact image budget, errors counted and skipped, resumable at any step.

Our choice, so that a run continues exactly and on any number of workers: the position in the corpus is all there is to
remember; the order of an epoch is a function of (seed, epoch), and every other choice one of (seed, epoch, document).
A step ends with the document that brings the images of the run to its share, so objectives that read the same corpus
see the same documents in the same steps, whatever layouts they ask for, however many processes read for them
(entries.py). Ranks that train together give each its own documents of a step, and all give equally many steps.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from data.batch import Batch, Layout
from data.document import Bad, Cause, Corpus
from data.images import ImageTransform, JpegDecoding
from data.loading.cache import PICTURE_BYTES, Pictures, shared_pictures
from data.loading.collate import collate
from data.loading.draw import Drawer, Drawing
from data.loading.entries import Elsewhere, Entries, Entry
from data.loading.item import Item
from data.loading.order import Windows, order_of, too_many_readers
from data.loading.progress import Progress
from data.loading.ranks import rank
from data.loading.readers import Readers
from data.loading.render import PAIR_LAYOUTS, Writing
from data.loading.select import Rules
from data.loading.windows import Filling
from data.tokenizer import Tokenizer

STATE_VERSION = 1


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
        filling: Filling = Filling.DOCUMENT,
        max_broken: float = 0.5,
        cache_documents: int = 65_536,
        pictures: Pictures = shared_pictures,
        workers: int = 0,
        device: str = "cpu",
        jpeg: JpegDecoding = "full",
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
            filling: what a row holds: a document, or a window of documents that follow one another in a step.
            max_broken: share of the wanted documents over the window that may be broken; more refuses the corpus.
            cache_documents: tokenised documents to keep.
            pictures: holds decoded images; equal for all loaders of a process.
            workers: processes that read for this rank while it trains; 0 reads in this process, between steps.
            device: where pictures are normalised; until there they are bytes.
            jpeg: whether JPEGs much larger than the encoder's input are decoded at a fraction of their size.

        Raises:
            ValueError: an empty corpus, lengths, layouts and rules that contradict each other, or readers without work.
        """
        self.corpus, self.tokenizer, self.transform = corpus, tokenizer, transform
        self.layouts, self.slots, self.patches, self.seq_len = tuple(layouts), slots, patches, seq_len
        self.images_per_step, self.total_images, self.seed = images_per_step, total_images, seed
        self.rules, self.writing, self.filling = rules, writing or Writing(), filling
        self.max_broken, self.workers, self.device = max_broken, workers, device
        self._order = order_of(corpus, seed)
        self._check()
        self.steps = -(-total_images // images_per_step)
        self._progress = Progress()
        # What is read in windows comes back an epoch later: to keep any of it would fill the memory and serve nobody.
        streamed = isinstance(self._order, Windows)
        self._drawing = Drawing(
            corpus=corpus,
            tokenizer=tokenizer,
            transform=transform,
            rules=rules,
            patches=patches,
            seq_len=seq_len if filling is Filling.DOCUMENT else None,
            seed=seed,
            cache_documents=0 if streamed else cache_documents,
            jpeg=jpeg,
        )
        self._picture_bytes = 0 if streamed else PICTURE_BYTES
        self._drawer = Drawer(self._drawing, Pictures(0) if streamed else pictures)

    def _check(self) -> None:
        name, text_len = self.corpus.name, self.rules.text_len
        problems = []
        if not len(self.corpus):
            problems.append("the corpus is empty")
        pairs_only = [layout.value for layout in self.layouts if layout in PAIR_LAYOUTS]
        if pairs_only and text_len is None:
            problems.append(f"layouts {pairs_only} write pairs, but rules.text_len is None (a corpus of documents)")
        if self.filling is Filling.WINDOWS and text_len is not None:
            problems.append(f"windows hold documents, but rules.text_len={text_len} says pairs")
        if self.filling is Filling.WINDOWS and rank()[1] > 1:
            problems.append(
                "windows run over the documents of a whole step, which several ranks would share; use one rank"
            )
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
        if self.workers < 0:
            problems.append(f"workers is {self.workers}; it is a number of processes, 0 for none")
        if said := too_many_readers(self._order, self.workers, rank()[1]):
            problems.append(said)
        if problems:
            raise ValueError(f"cannot load corpus {name!r}: " + "; ".join(problems))

    @property
    def coverage(self) -> Counter[str]:
        """Documents and images used, documents skipped as broken, and every cause of `data.document.Cause` met.

        Causes count documents, in corpora of documents also the images and sentences that had to be removed: those of
        missing_image, decode_error, oversize, no_score, bad_image_entry and bad_sentence. `skipped` is the number of
        broken documents; not_chosen ones are none of them, and those of segment_hard_split are used.
        """
        return Counter(self._progress.coverage)

    def state(self) -> dict[str, Any]:
        """Everything to continue after the last batch given, as JSON values; give it to `batches`."""
        return {"version": STATE_VERSION, "of": self._identity(), "progress": self._progress.plain()}

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
        } | self._not_usual()

    def _not_usual(self) -> dict[str, Any]:
        """What states do not say where it is as ever."""
        order = {"order": self._order.name} if isinstance(self._order, Windows) else {}
        filling = {"filling": self.filling.value} if self.filling is not Filling.DOCUMENT else {}
        return order | filling | ({} if self._drawing.jpeg == "full" else {"jpeg": self._drawing.jpeg})

    def batches(self, start: int | Mapping[str, Any] = 0) -> Iterator[Batch]:
        """The batches after `start`, equal to those an uninterrupted iteration gives from there.

        start: a step, found by replaying the run up to it (every image is decoded once, as only that tells the broken
        ones), or a `state()`, which costs nothing. `state`, `coverage` and `examples` follow the latest call.

        Raises:
            ValueError: a step outside the run, or a state of another run.
            CorpusError: too many documents had to be skipped; names causes and examples.
        """
        if isinstance(start, Mapping):
            progress, replayed = self._restore(start), 0
        elif 0 <= start <= self.steps:
            progress, replayed = Progress(), start
        else:
            raise ValueError(f"start is step {start}; the run has steps 0 to {self.steps}")
        self._progress = progress
        return self._iterate(progress, replayed)

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
            item, _ = self._drawer.read(index, 0)
            if isinstance(item, Item):
                items.append(item.first(images - held))
                held += len(items[-1].images)
        return self._collate(items) if items else None

    def _restore(self, state: Mapping[str, Any]) -> Progress:
        if state.get("version") != STATE_VERSION:
            raise ValueError(f"loader state has version {state.get('version')!r}; this code reads {STATE_VERSION}")
        mine, theirs = self._identity(), state["of"]
        differing = [key for key in {**theirs, **mine} if mine.get(key) != theirs.get(key)]
        if differing:
            values = "; ".join(f"{key}: {theirs.get(key)!r} saved, {mine.get(key)!r} now" for key in differing)
            raise ValueError(
                f"the loader state of {self.corpus.name!r} is of another run ({values}). "
                "Restore what was changed, or start from step 0."
            )
        return Progress.restore(state["progress"])

    def _iterate(self, progress: Progress, replayed: int) -> Iterator[Batch]:
        with self._entries(progress.position) as entries:
            while progress.step < self.steps:
                documents = self._draw_step(progress, entries)
                if progress.step > replayed:
                    yield self._collate(self._own(documents, progress.step))

    @contextmanager
    def _entries(self, position: int) -> Iterator[Iterator[Entry]]:
        """What is read from there on; readers live as long as that is asked for."""
        entries = Entries(self._order, len(self.corpus), position, ahead=self.images_per_step)
        if not self.workers:
            yield entries.read_here(self._drawer)
            return
        readers = Readers(self._drawing, self.workers, self._picture_bytes)
        try:
            yield entries.read_by(readers)
        finally:
            readers.close()

    def _own(self, documents: Sequence[Item | Elsewhere], step: int) -> list[Item]:
        """The documents of a step that this rank holds. Raises ValueError, on every rank, where one holds none."""
        me, ranks = rank()
        held = Counter(each.rank if isinstance(each, Elsewhere) else me for each in documents)
        if len(held) < ranks:
            raise ValueError(
                f"step {step} has {len(documents)} documents of {self.corpus.name!r}, and {ranks - len(held)} of "
                f"{ranks} ranks would get none of them; use fewer ranks or more than {self.images_per_step} images a "
                "step"
            )
        return [each for each in documents if isinstance(each, Item)]

    def _collate(self, items: Sequence[Item]) -> Batch:
        return collate(
            items,
            layouts=self.layouts,
            slots=self.slots,
            patches=self.patches,
            seq_len=self.seq_len,
            special=self.tokenizer.special,
            transform=self.transform,
            writing=self.writing,
            device=self.device,
            filling=self.filling,
        )

    def _draw_step(self, progress: Progress, entries: Iterator[Entry]) -> list[Item | Elsewhere]:
        """The documents of the next step. Ends: an epoch that gives nothing is fatal."""
        target = min((progress.step + 1) * self.images_per_step, self.total_images)
        # At least one image is left to every later step, or the run would end a step early by chance.
        limit = self.total_images - (self.steps - progress.step - 1)
        step: list[Item | Elsewhere] = []
        while progress.images < target:
            found, removed = next(entries)
            for bad in removed:
                progress.note(bad)
            if isinstance(found, Bad):
                progress.skip(found)
            else:
                self._use(found.first(limit - progress.images), progress, step)
            progress.advance(self.corpus.name, len(self.corpus), self.max_broken)
        progress.step += 1
        return step

    def _use(self, found: Item | Elsewhere, progress: Progress, step: list[Item | Elsewhere]) -> None:
        progress.use()
        images = found.images if isinstance(found, Elsewhere) else len(found.images)
        progress.images += images
        progress.coverage["images"] += images
        hard_split = found.hard_split if isinstance(found, Elsewhere) else found.document.hard_split
        if hard_split:
            progress.coverage[Cause.SEGMENT_HARD_SPLIT.value] += 1
        step.append(found)
