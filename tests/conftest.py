"""Shapes written in annotations are checked at run time in every test; one thread, because the machine is shared."""

import signal
from collections.abc import Iterator

import pytest
import torch
from jaxtyping import install_import_hook

# Before anything of ours is imported: a module that is already in sys.modules is not checked.
install_import_hook(["backbones", "objectives"], "beartype.beartype")
torch.set_num_threads(1)

from ranks import Ranks, pool  # noqa: E402

from backbones.build import build_language, build_vision  # noqa: E402
from backbones.lm import LanguageModel  # noqa: E402
from backbones.sizes import SIZES, Size  # noqa: E402
from backbones.vit import VisionEncoder  # noqa: E402

VOCABULARY = 64  # embedding rows of the `language` fixture; tests/helpers.py writes its batches in it


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny() -> Size:
    """The embedded size."""
    return SIZES["tiny"]


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    """Processes that play the ranks of one run; spawned by the first test that asks for them."""
    with pool(tmp_path_factory.mktemp("ranks")) as started:
        yield started


@pytest.fixture(scope="session", autouse=True)
def _heard() -> None:
    """Signals of a terminal, which `nohup` and a shell's `&` have the tests and all their processes ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def vision(tiny: Size) -> VisionEncoder:
    """A fresh tiny vision encoder."""
    return build_vision(tiny, seed=0)


@pytest.fixture
def language(tiny: Size) -> LanguageModel:
    """A fresh tiny language model over 64 tokens."""
    return build_language(tiny, VOCABULARY, seed=0)
