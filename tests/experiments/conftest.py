"""The small corpus and one finished sweep over it, made once for all tests that only look at them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_helpers import SMALL, start, tables

from data.toyworld.write import ensure_toyworld


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small corpus, once for the tests that only need it to be there."""
    return ensure_toyworld(tmp_path_factory.mktemp("corpora"), SMALL)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """A finished sweep by the local launcher, in a process of its own, and its tables."""
    runs = tmp_path_factory.mktemp("reference") / "runs"
    process = start(runs)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "small.md" in out and "Traceback" not in err
    yield runs, tables(runs)
