"""From a spec and the folders of this machine to the things a run works on: corpora, tokenizer, splits, encoders.

Specs say what is read by content; `Place` says where it lies here. Everything is opened through data/'s readers: the
embedded corpus comes in by the same door as a user's own.
"""

import hashlib
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from backbones.build import build_vision
from backbones.foreign.source import Preprocess, rebuild
from backbones.sizes import Size
from backbones.tower import Tower
from data.batch import Batch, Split
from data.corpora import FolderCorpus, open_corpus
from data.document import Bad, Corpus
from data.errors import CorpusError
from data.images import Centred, ImageTransform
from data.loading.held_out import SHARE, Rest, Subset, split
from data.loading.loader import Loader
from data.loading.mixture import Mixture
from data.loading.readable import count_pairs, training_classes, training_pairs
from data.loading.select import PairOrder, Rules, choose_images, unscored
from data.loading.windows import Filling
from data.readers import downstream
from data.readers.imagenet import IMAGENET_VAL, imagenet
from data.readers.laion import LaionCorpus
from data.readers.mmc4 import Mmc4Corpus
from data.readers.mmc4_pair import Mmc4Pairs
from data.readers.mmc4_tars import Mmc4TarCorpus
from data.readers.rematch import Rematched
from data.readers.splits import checked
from data.tokenizer import Tokenizer
from experiments.configuration.corpora import Part, get_corpus, own_sets
from experiments.configuration.place import Place
from experiments.configuration.typed import from_plain
from experiments.planning.specs import CorpusSpec, EncoderSpec, PretrainSpec, load_spec
from experiments.running.checkpoint import sync
from experiments.running.distributed.agree import is_writer
from experiments.running.distributed.sharding import gathered
from experiments.running.training import device
from objectives.base import Objective
from transfer.encoder import Encoder

ENCODER_FILE = "encoder.safetensors"


def open_source(place: Place, field: str) -> FolderCorpus:
    """The corpus in a field of DataConfig."""
    folder = getattr(place.data, field)
    return open_corpus(Path(folder), cache=place.shared / "indexes")


def open_part(place: Place, spec: CorpusSpec, part: Part, seed: int) -> tuple[Corpus, Rules]:
    """A corpus of those a row reads, and its sampling rules."""
    field = part.field(place.data)
    opened: FolderCorpus | Rematched = open_source(place, field)
    if part.matching == "optimal" and isinstance(opened, Mmc4Corpus | Mmc4TarCorpus):
        opened = Rematched(opened, spec.sim_threshold)
    pairs, mixed = part.entries == "pairs", spec.text_len is not None and spec.seq_len is not None
    rules = Rules(
        sim_threshold=spec.sim_threshold if part.source == "mmc4" else None,
        text_len=spec.text_len if pairs else None,
        max_images=spec.max_images or Rules.max_images,
        before_probability=spec.before_probability,
        # Beside documents a pair is one, and has its image before or after its sentence as theirs.
        pair_order=PairOrder.RANDOM if pairs and mixed else PairOrder.IMAGE_FIRST,
    )
    if pairs and not isinstance(opened, LaionCorpus):
        # Images are chosen exactly as for documents, so that paired and interleaved rows share one pool of images.
        documents = replace(rules, text_len=None)
        there = opened.images if isinstance(opened, Rematched) else ""  # what is published holds whatever is there
        key = (getattr(place.data, field), opened.digest, there, documents, seed)
        rule = hashlib.sha256(f"2 {opened.digest} {documents} {seed}{there}".encode()).hexdigest()[:16]
        saved = place.shared / "indexes" / f"pairs-{rule}.npy"
        choose, unjudged = partial(choose_images, rules=documents, seed=seed), partial(unscored, rules=documents)
        return _kept(key, lambda: Mmc4Pairs(opened, choose, saved=saved, unjudged=unjudged)), rules
    return _kept((getattr(place.data, field), opened.digest, rules.sim_threshold), lambda: opened), rules


KEPT = 4  # corpora that stay open in a process
_open: dict[Hashable, Corpus] = {}


def _kept(key: Hashable, make: Callable[[], Corpus]) -> Corpus:
    """The corpus under that key, made now where no earlier run of this process made it.

    A pass over all documents finds the pairs of a corpus, and loaders over one corpus share what they tokenised.
    """
    if key not in _open:
        while len(_open) >= KEPT:
            del _open[next(iter(_open))]
        _open[key] = make()
    return _open[key]


def tokenizer_for(place: Place, name: str) -> Tokenizer:
    """The tokenizer of a spec: OPT's from local files, or the BPE of the corpus's text, trained once and kept."""
    if place.data.tokenizer is not None:
        return Tokenizer.opt(place.data.tokenizer)
    source = place.data.tokenizer_text
    corpus = open_source(place, source)
    path = place.shared / "tokenizers" / f"{name}-{corpus.digest}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            Tokenizer.train_bpe(_texts(corpus), place.data.vocabulary).save(path)
    return Tokenizer.load(path)


def _texts(corpus: Corpus) -> Any:
    for index in range(len(corpus)):
        document = corpus[index]
        if not isinstance(document, Bad):
            yield from document.segments


@dataclass(frozen=True)
class _Read:
    """A corpus of those a run reads."""

    name: str
    training: Rest
    held_out: Subset
    rules: Rules
    filling: Filling
    images_per_step: int
    total_images: int


class Pretraining:
    """What a pre-training run reads, opened once; any number of loaders over it."""

    def __init__(self, place: Place, spec: PretrainSpec, objective: type[Objective], config: Objective.Config) -> None:
        assert spec.data is not None
        self.spec, self.objective, self.config = spec, objective, config
        self._max_broken, self._workers = place.data.max_broken, place.data.workers
        self.size: Size = from_plain(Size, spec.model, "model")
        corpus = get_corpus(spec.data.name)
        self.name = corpus.name
        last = spec.images - (spec.steps - 1) * spec.images_per_step
        self._parts = []
        for part, step, rest in zip(
            corpus.parts, corpus.shares(spec.images_per_step), corpus.shares(last), strict=True
        ):
            opened, rules = open_part(place, spec.data, part, spec.seed)
            filling = Filling.WINDOWS if part.entries == "windows" else Filling.DOCUMENT
            self._parts.append(_Read(part.name, *split(opened), rules, filling, step, step * (spec.steps - 1) + rest))
        self.tokenizer = tokenizer_for(place, spec.data.tokenizer)

    def loader(self) -> Loader | Mixture:
        """Batches of the run, never of what is held out."""
        transform = ImageTransform(self.size.vision.image_size)
        return self._together(
            {part.name: self._loader(part, part.training, transform, self._workers) for part in self._parts}
        )

    def probe(self, images: int) -> Batch | None:
        """Up to so many held-out images, the same for every row of the corpus; None where none can be held out."""
        held = [part for part in self._parts if len(part.held_out)]
        transform = Centred(self.size.vision.image_size)
        loaders = {part.name: self._loader(part, part.held_out, transform) for part in held}
        return self._together(loaders).once(images) if held else None

    def why_no_probe(self) -> str:
        """What to say where `probe` gives None."""
        held = sum(len(part.held_out) for part in self._parts)
        entries = held + sum(len(part.training) for part in self._parts)
        return (
            f"{self.name} holds out {held} of {entries} entries and finds no image in them; "
            f"a corpus of fewer than {SHARE} documents holds out none"
        )

    def _together(self, loaders: Mapping[str, Loader]) -> Loader | Mixture:
        return Mixture(self.name, loaders) if len(self._parts) > 1 else next(iter(loaders.values()))

    def _loader(self, part: _Read, corpus: Corpus, transform: ImageTransform, workers: int = 0) -> Loader:
        data, patches = self.spec.data, self.size.vision.num_patches
        assert data is not None
        return Loader(
            corpus,
            self.tokenizer,
            transform,
            layouts=self.objective.layouts_for(self.config),
            patches=patches,
            slots=self.objective.slots(self.config, patches),
            seq_len=data.seq_len or patches + 4 + (data.text_len or 0),
            images_per_step=part.images_per_step,
            total_images=part.total_images,
            seed=self.spec.seed,
            rules=part.rules,
            filling=part.filling,
            max_broken=self._max_broken,
            workers=workers,
            device=device(),
            jpeg=data.jpeg,
        )


def save_encoder(folder: Path, vision: Tower) -> None:
    """Write the encoder of a run; its size, or its architecture, is in the run's spec."""
    save_module(folder / ENCODER_FILE, vision)


def save_module(path: Path, module: nn.Module) -> None:
    """Write the tensors of a module as `save_tensors` does.

    Every rank must call it, as of sharded weights each holds a part; rank 0 writes. Raises OSError as that does.
    """
    tensors = gathered(module.state_dict())
    if is_writer():
        save_tensors(path, tensors)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors, whole; the file appears under its name when it is on the disk.

    Raises OSError where the disk refuses; what was there stays.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
        sync(partial)
        partial.replace(path)
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        partial.unlink(missing_ok=True)  # the space it took is needed to write down what happened
        raise OSError(f"{path} cannot be written: {error}") from error
    sync(path.parent)  # the record is next, and must not outlive it


def load_encoder(place: Place, run_id: str) -> Encoder:
    """The encoder a run left, pre-trained here or taken in from elsewhere, with the transform that belongs to it."""
    folder = place.runs / run_id
    spec = load_spec(folder)
    weights = load_file(folder / ENCODER_FILE)
    if isinstance(spec, EncoderSpec):
        tower = rebuild(spec.source, spec.architecture)
        tower.load_state_dict(weights)
        looks = {"resize": Preprocess.resize, **spec.preprocess}  # as take_in leaves it out
        return Encoder(tower, ImageTransform(**vars(from_plain(Preprocess, looks, "preprocess"))))
    assert isinstance(spec, PretrainSpec)
    size: Size = from_plain(Size, spec.model, "model")
    size = replace(size, vision=replace(size.vision, drop_path=0.0))  # that of pre-training; full transfer has its own
    vision = build_vision(size, spec.seed)
    vision.load_state_dict(weights)
    return Encoder(vision.eval(), ImageTransform(size.vision.image_size))


def open_split(place: Place, name: str, training: bool) -> Split:
    """A downstream set by its field of DataConfig: its training or its test split.

    Raises CorpusError where a training set is too broken, or a test set is neither complete, nor embedded, nor a set of
    the user's own under its own name (data.called).
    """
    folder = Path(getattr(place.data, name))
    cache = place.shared / "indexes"
    broken = place.data.max_broken
    if training and name == "imagenet":
        return training_classes(folder, max_broken=broken, cache=cache)
    if training:
        return training_pairs(folder, name, _caption_field(name), max_broken=broken, cache=cache)
    split = _test_split(folder, name, cache)
    if own_sets(place.data).get(name) == "":  # it passes for the benchmark
        _refuse_incomplete(split, name)
    return split


def entries(place: Place, name: str, training: bool) -> int:
    """How many items a split has at most, from its index: no picture is read. Raises CorpusError as `open_split`."""
    folder, cache = Path(getattr(place.data, name)), place.shared / "indexes"
    if not training:
        return len(_test_split(folder, name, cache))
    if name == "imagenet":
        return len(imagenet(folder, "train", cache=cache))
    return count_pairs(folder, name, _caption_field(name), cache)


def _caption_field(name: str) -> str | None:
    """Where the captions of a training set are: LAION-COCO's in a field of its .json, the others' in their .txt."""
    return "top_caption" if name == "caption_train" else None


_PUBLISHED = {
    "imagenet": IMAGENET_VAL,
    "coco": downstream.COCO_TEST,
    "flickr30k": downstream.FLICKR30K_TEST,
    "nocaps": downstream.NOCAPS_VAL,
}


def _test_split(folder: Path, name: str, cache: Path) -> Split:
    if name == "imagenet":
        return imagenet(folder, "val", cache=cache)
    if name == "nocaps":
        return downstream.nocaps(downstream.nocaps_file(folder), folder / "val")
    return downstream.captioned(folder, name, "test")


def _refuse_incomplete(split: Split, name: str) -> None:
    try:
        checked(split, _PUBLISHED[name])
    except CorpusError as error:
        raise CorpusError(
            f"data.{name}: {error}. Complete the download, or say what this set is with "
            f"--set data.called.{name}=NAME; its columns then bear that name"
        ) from None
