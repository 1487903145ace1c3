"""Backbones from a name and a seed: every row of a table starts from bit-identical weights, and building draws nothing
from the global generator."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from backbones.lm import LanguageModel
from backbones.sizes import Size
from backbones.vit import VisionEncoder
from data.seeds import stable_seed


@contextmanager
def init_stream(*name: str | int) -> Iterator[None]:
    """Inside, torch's CPU generator is the stream of that name; afterwards it is as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stable_seed(*name))  # not torch.manual_seed: it would reseed CUDA as well
        yield


def build_vision(size: Size, seed: int) -> VisionEncoder:
    """The vision encoder of that size, on CPU in fp32; a pure function of (size, seed)."""
    with init_stream(seed, "init", "vision", size.vision.name):
        return VisionEncoder(size.vision)


def build_language(size: Size, vocab_size: int, seed: int) -> LanguageModel:
    """The language model of that size, on CPU in fp32; a pure function of (size, vocab_size, seed)."""
    with init_stream(seed, "init", "language", size.language.name):
        return LanguageModel(size.language, vocab_size)
