"""Everything a run depends on, as frozen dataclasses. Values live in recipe.py beside this file, none here is a choice.

Fields can be changed with `--set group.field=value` (overrides.py). Settings of objectives and of transfer
tasks are declared by those packages; `objectives`, `transfer`, `full` and `dialogue` hold only what was changed there.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os.path import expanduser
from pathlib import Path
from typing import Any, Literal

from experiments.configuration.distributed import DistributedConfig
from experiments.configuration.slurm import SlurmConfig

Precision = Literal["auto", "bf16", "fp32"]
Algorithm = Literal["adamw", "muon"]
SCRATCH = "scratch"
TEXT_LM: Literal["text_lm"] = "text_lm"
LLM: Literal["llm"] = "llm"


@dataclass(frozen=True, kw_only=True)
class OwnNames:
    """What a test set of your own is called where it takes the place of a benchmark; none: it is the benchmark itself.

    A set without a name must have the benchmark's published counts. A named one may have any, its columns bear its
    name, and it never enters a run's hash.
    """

    imagenet: str | None = None  # in the place of ImageNet-1k
    coco: str | None = None  # in the place of COCO
    flickr30k: str | None = None  # in the place of Flickr30k
    nocaps: str | None = None  # in the place of NoCaps

    def __post_init__(self) -> None:
        for field_, name in vars(self).items():
            words = (name or "").replace("-", " ").casefold().split()
            if name is not None and (not words or set(words) & _BENCHMARK_WORDS):
                raise ValueError(f"data.called.{field_} is {name!r}; a set of your own needs a name of its own")
            if name is not None and (forbidden := sorted(set(name) & _MARKUP)):
                raise ValueError(
                    f"data.called.{field_} is {name!r}; tables cannot print {' '.join(forbidden)} in a name"
                )


# Of names nobody may give a set of their own.
_MARKUP = frozenset("|<>`*\\\n")
_BENCHMARK_WORDS = frozenset("imagenet imagenet1k in 1k coco mscoco flickr30k flickr nocaps toy".split())


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where data lies and how documents are sampled from it. Paths never enter a run's hash, their content does."""

    mmc4: Path | None = None  # MMC4 documents (data/readers/mmc4.py)
    laion: Path | None = None  # image-text pairs in tars (data/readers/laion.py)
    mmc4_pair: Path | None = None  # a paired corpus to use as MMC4-Pair; none: the pairs inside `mmc4`
    obelics: Path | None = None  # OBELICS documents (data/readers/obelics.py)
    imagenet: Path | None = None  # ImageNet-1k: classification trains and is tested on it
    retrieval_train: Path | None = None  # pairs that retrieval trains on
    caption_train: Path | None = None  # pairs that captioning trains on
    coco: Path | None = None  # COCO: tests retrieval and captioning
    flickr30k: Path | None = None  # tests retrieval
    nocaps: Path | None = None  # tests captioning
    dialogue: Path | None = None  # LLaVA's conversations, their pictures and the benchmarks (docs/dialogue.md)
    called: OwnNames = OwnNames()  # test sets that are not the benchmarks their fields are named after
    toyworld_seed: int = 0  # which draw of the embedded corpus stands in for folders that are not set
    toyworld_redundancy: float = 0.9  # how often its texts name what their pictures show, 0 to 1
    toyworld_one_subject: float = 1.0  # how often a picture shows its document's subject, which other sentences name
    tokenizer: str | None = (
        None  # folder or local cache name of OPT's vocabulary; none: one BPE is trained for all runs
    )
    llm: str | None = None  # folder, .gguf file or cached hub name; read by tasks whose language model is "llm"
    tokenizer_text: Literal["mmc4", "laion"] = "mmc4"  # whose text that BPE is trained on
    vocabulary: int  # its entries; not used with `tokenizer`
    max_broken: float = 0.5  # share of the wanted documents that may be unusable: a third of links are dead by now
    workers: int = 0  # processes of each run that decode, crop and tokenise while it trains; 0: the run does it itself
    jpeg: Literal["full", "scaled"] = "full"  # of pre-training; scaled: at a fraction of the size where that is enough
    features_gb: float | None = 500.0  # disk that cached features of a sweep may take, 10**9 bytes; none: any
    sim_threshold: float | None  # of an image to its sentence, inclusive; none: for corpora without scores
    max_images: int  # of one document
    before_probability: float = 0.5  # of an image of a document to stand before its sentence, not after (paper 4.1)
    seq_len: int  # longest row of a document, in tokens
    text_len: int  # longest caption of a pair, in tokens

    def __post_init__(self) -> None:
        for name in ("vocabulary", "max_images", "seq_len", "text_len"):
            if getattr(self, name) < 1:
                raise ValueError(f"data.{name} must be at least 1, got {getattr(self, name)}")
        for name in ("tokenizer", "llm"):
            given = getattr(self, name)
            if given == "":
                raise ValueError(f"data.{name} is empty; give a folder or a cached name, or none")
            if given is not None and given.startswith("~"):  # a name is no path, and stays as it is
                raise ValueError(f"data.{name} begins with ~, which is left to the shell; write {expanduser(given)}")
        if self.workers < 0:
            raise ValueError(f"data.workers is a number of processes, 0 for none, got {self.workers}")
        if not 0 <= self.max_broken <= 1:
            raise ValueError(f"data.max_broken is a share in [0, 1], got {self.max_broken}")
        if self.features_gb is not None and not self.features_gb > 0:
            raise ValueError(f"data.features_gb must be positive, or none for no limit, got {self.features_gb}")
        if self.sim_threshold is not None and not -1 <= self.sim_threshold <= 1:
            raise ValueError(f"data.sim_threshold is a cosine in [-1, 1], got {self.sim_threshold}")
        for name in ("toyworld_redundancy", "toyworld_one_subject", "before_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"data.{name} is a probability, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class PeakRates:
    """Peak learning rates. They belong to the corpus (paper 4.1), never to the objective."""

    laion: float  # corpora made of LAION pairs only
    others: float  # documents, and pairs made of them

    def __post_init__(self) -> None:
        if min(self.laion, self.others) <= 0:
            raise ValueError(f"learning rates must be positive, got {self}")


@dataclass(frozen=True, kw_only=True)
class OptimRecipe:
    """Linear warm-up and cosine to zero, as a recipe: rates by corpus, warm-up as a share of the steps."""

    matrices: (
        Algorithm  # of the weights of linear layers; everything else trains with AdamW (experiments/running/optim.py)
    )
    lr: PeakRates
    warmup_share: float  # of the steps, linear
    weight_decay: float  # of the weights of linear layers, convolutions and embeddings
    betas: tuple[float, float]  # of Adam
    eps: float  # of Adam
    clip_norm: float | None  # of the global gradient norm; none: only logged
    precision: Precision  # auto: bf16 where the machine multiplies matrices in it

    def __post_init__(self) -> None:
        if not 0 <= self.warmup_share < 1:
            raise ValueError(f"warmup_share is a share of the steps in [0, 1), got {self.warmup_share}")
        _check_adam(self)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser of one run: an OptimRecipe with the corpus's rate and the warm-up in steps."""

    matrices: Algorithm  # of the weights of linear layers
    lr: float  # at its peak
    warmup_steps: int  # linear
    weight_decay: float  # of the weights of linear layers, convolutions and embeddings
    betas: tuple[float, float]  # of Adam
    eps: float  # of Adam
    clip_norm: float | None  # of the global gradient norm; none: only logged
    precision: Precision  # auto: bf16 where the machine multiplies matrices in it

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.warmup_steps < 0:
            raise ValueError(f"lr must be positive and warmup_steps >= 0, got {self.lr} and {self.warmup_steps}")
        _check_adam(self)


def _check_adam(given: OptimRecipe | OptimConfig) -> None:
    """Raises ValueError for what AdamW cannot work with, or what would turn its steps around."""
    if given.clip_norm is not None and given.clip_norm <= 0:
        raise ValueError(f"clip_norm must be positive, or none for no clipping, got {given.clip_norm}")
    if given.weight_decay < 0 or given.eps <= 0:
        raise ValueError(f"weight_decay must be >= 0 and eps > 0, got {given.weight_decay} and {given.eps}")
    if not all(0 <= beta < 1 for beta in given.betas):
        raise ValueError(f"betas are two numbers in [0, 1), got {given.betas[0]} and {given.betas[1]}")


def resolve_optim(recipe: OptimRecipe, lr: float, steps: int) -> OptimConfig:
    """The recipe for a run of that many steps at that peak rate."""
    return OptimConfig(
        matrices=recipe.matrices,
        lr=lr,
        warmup_steps=round(recipe.warmup_share * steps),
        weight_decay=recipe.weight_decay,
        betas=recipe.betas,
        eps=recipe.eps,
        clip_norm=recipe.clip_norm,
        precision=recipe.precision,
    )


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """The budget of a pre-training run, counted in images as in the paper, and its optimiser."""

    images: int  # seen in all, repeats included
    images_per_step: int  # the batch
    micro_batch: int | None = None  # documents of a rank computed at once, to save memory; none: its share of a step
    optim: OptimRecipe

    def __post_init__(self) -> None:
        if self.micro_batch is not None and self.micro_batch < 1:
            raise ValueError(f"micro_batch is a number of documents, at least 1, or none, got {self.micro_batch}")
        if self.images < 1 or self.images_per_step < 1:
            raise ValueError(
                f"images and images_per_step must be at least 1, got {self.images}, {self.images_per_step}"
            )


@dataclass(frozen=True, kw_only=True)
class TextLmConfig:
    """Training of the language model that captioning starts from, where no pretrained one is named."""

    source: Literal["mmc4", "laion", "caption_train"]  # whose text
    steps: int  # of the optimiser
    batch: int  # texts a step
    optim: OptimConfig

    def __post_init__(self) -> None:
        if self.steps < 1 or self.batch < 1:
            raise ValueError(f"text_lm.steps and text_lm.batch must be at least 1, got {self.steps} and {self.batch}")


@dataclass(frozen=True, kw_only=True)
class LanguageModels:
    """What transfer tasks that read text start from: "scratch", "text_lm" (trained here, once a seed), "llm" (the
    pretrained model at data.llm), or the name of an OPT."""

    retrieve: str  # the text tower of retrieval
    caption: str  # what writes captions
    dialogue: Literal["text_lm", "llm"]  # what is tuned to converse


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of a sweep. One object resolves every run of every table."""

    size: str  # name in backbones.sizes.SIZES
    data: DataConfig
    pretrain: PretrainConfig
    text_lm: TextLmConfig
    language: LanguageModels
    objectives: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # objective -> changed field -> value
    transfer: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # task -> changed field -> value
    full: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # the same, in rows of full transfer only
    dialogue: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # stage of dialogue -> the same
    # Of the heads and the order of transfer in every row; none: the seed of the row's pre-training.
    transfer_seed: int | None = None
    distributed: DistributedConfig = DistributedConfig()
    slurm: SlurmConfig = SlurmConfig()

    def __post_init__(self) -> None:
        if self.transfer_seed is not None and self.transfer_seed < 0:
            raise ValueError(f"transfer_seed is a whole number from 0 on, or none, got {self.transfer_seed}")
