"""A cluster for every test, and what a sweep gives without one."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from cluster import HOW_TO_GET_IT, cluster, is_installed
from filelock import FileLock
from slurm_helpers import ROWS, Sweep
from sweep_helpers import SMALL

from data.toyworld.write import ensure_toyworld


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.slurm)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this session of tests have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def corpus(shared: Path) -> Path:
    return ensure_toyworld(shared / "corpora", SMALL)


@pytest.fixture(scope="session")
def reference(shared: Path, corpus: Path) -> Sweep:
    """The sweep without a cluster; the process of tests that comes first makes it."""
    sweep = Sweep(shared / "reference", corpus)
    with FileLock(shared / "reference.lock"):
        if not (sweep.runs / "out").exists():  # written last
            done = sweep.call("sweep", *sweep.command("--launcher", "inline", "--workers", "1", rows=ROWS))
            assert done.returncode == 0, done.stderr
    return sweep


@pytest.fixture
def on(tmp_path: Path, corpus: Path) -> Iterator[Callable[..., Sweep]]:
    """Makes a sweep on a fresh cluster, whose options are those of `cluster.cluster`."""
    if not is_installed():
        pytest.skip(HOW_TO_GET_IT)
    opened = []

    def made(**options: object) -> Sweep:
        context = cluster(**options)  # type: ignore[arg-type]
        opened.append(context)
        return Sweep(tmp_path / "runs", corpus, context.__enter__())

    yield made
    for context in opened:
        context.__exit__(None, None, None)
