"""Small encoders, language models, tokenizers and splits for tests of transfer: no corpus, milliseconds to build."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from helpers import SPECIAL, at_tiny
from PIL import Image
from torch import Tensor, nn

from backbones.build import init_stream
from backbones.lm import LanguageModel
from backbones.sizes import LanguageSize, VisionSize
from backbones.vit import Edit, VisionEncoder
from data.batch import Split
from data.images import ImageTransform
from objectives.functional import total
from transfer.base import TextModel, TransferConfig, TransferHead, TransferTask
from transfer.encoder import Encoder
from transfer.features import FeatureSplit, extract
from transfer.freeze import frozen_transfer
from transfer.registry import get
from transfer.stream import FeatureStream

WORDS = "a the red green blue square round one picture of on is there this tall wide and with near small".split()
COLOURS = ("red", "green", "blue")


class Words:
    """A tokenizer of whole words; unknown words are dropped."""

    special = SPECIAL

    def encode(self, text: str) -> list[int]:
        return [3 + WORDS.index(word) for word in text.lower().split() if word in WORDS]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(WORDS[i - 3] for i in ids if 3 <= i < 3 + len(WORDS))


SIZE = VisionSize(name="test", image_size=16, patch_size=8, width=64, depth=1, heads=1)


class ConstantEncoder(VisionEncoder):
    """Collapsed: every image gives the same tokens."""

    def __init__(self) -> None:
        super().__init__(SIZE)
        self.value = nn.Parameter(torch.randn(5, 64, generator=torch.Generator().manual_seed(0)))

    def tokens(self, images: Tensor, edit: Edit | None = None) -> Tensor:
        return self.value.expand(len(images), -1, -1)


def vision(seed: int = 0) -> VisionEncoder:
    """Four patches and a class token of width 64."""
    with init_stream(seed, "test", "vision"):
        return VisionEncoder(SIZE)


def encoder(seed: int = 0) -> Encoder:
    """A random encoder and its transform."""
    return Encoder(vision(seed), ImageTransform(size=16))


def constant_encoder() -> Encoder:
    """A collapsed encoder and its transform."""
    with init_stream(0, "test", "vision"):
        return Encoder(ConstantEncoder(), ImageTransform(size=16))


def language(seed: int = 0) -> LanguageModel:
    """A causal model of width 32 over the test vocabulary."""
    with init_stream(seed, "test", "language"):
        return LanguageModel(LanguageSize(name="test", width=32, depth=2, heads=2, ffn=64, positions=128), 64)


def text_model(pretrained: bool = True) -> TextModel:
    """The language side of a task."""
    return TextModel(Words(), language(), pretrained)


def split(images: int = 12, name: str = "toy/train", captions: int | Sequence[int] = 2) -> Split:
    """Solid pictures of three colours, labelled by colour; captions: how many each image has."""
    counts = [captions] * images if isinstance(captions, int) else list(captions)
    ids = tuple(f"{name}/{i:03d}" for i in range(images))
    labels = tuple(i % len(COLOURS) for i in range(images))
    sayings = ("a {} square", "there is a {} square", "this picture is {}", "the {} one", "a {} picture of a square",
               "one {} square and a picture", "a small {} square")  # fmt: skip
    texts = tuple(tuple(s.format(COLOURS[labels[i]]) for s in sayings[: counts[i]]) for i in range(images))

    def load(i: int) -> Image.Image:
        pixels = np.random.default_rng(i).integers(0, 40, (16, 16, 3))
        pixels[..., labels[i]] += 200
        return Image.fromarray(pixels.astype(np.uint8))

    digest = hashlib.sha256(repr((ids, labels, texts)).encode()).hexdigest()[:16]
    return Split(name, digest, ids, load, labels, COLOURS, texts)


def features(cache: Path, of: Encoder | None = None, **of_split: object) -> FeatureSplit:
    """Features of `split(**of_split)`."""
    return extract(of or encoder(), split(**of_split), cache)  # type: ignore[arg-type]


def task(name: str, **changes: object) -> TransferTask:
    """A registered task in its tiny configuration, with changes."""
    cls = get(name)
    config = replace(at_tiny("transfer", cls), **changes)
    return cls(config, text_model()) if cls.reads_text else cls(config)


def train(
    head: TransferHead, stream: FeatureStream, config: TransferConfig, module: nn.Module, steps: int, start: int = 0
) -> list[float]:
    """A few steps of AdamW over the stream; the losses."""
    groups = frozen_transfer(head, module, config)
    optimiser = torch.optim.AdamW(
        [{"params": list(g.parameters.values()), "lr": g.lr, "weight_decay": g.weight_decay} for g in groups]
    )
    losses = []
    for step in range(start, start + steps):
        loss = total(head(stream.batch(step)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        head.after_step()
        losses.append(loss.item())
    return losses


def pixels(of: Encoder, data: Split, i: int) -> Tensor:
    """One image of a split as the encoder's input, alone in its batch."""
    return of.transform.normalise(torch.from_numpy(np.array(of.transform.eval(data.load(i))))[None])
