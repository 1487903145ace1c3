"""A run goes on only with the source it began with; what decides no result may change at any time."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import objectives
from experiments.running import source
from experiments.running.source import SourceChanged, check, pin


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the repository's sources that may be edited."""
    root = tmp_path / "root"
    for name in ("backbones", "data", "objectives", "transfer", "experiments", "results", "docs", "tests"):
        shutil.copytree(source.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "records"))
    monkeypatch.setattr(source, "ROOT", root)
    monkeypatch.setattr(objectives, "__path__", [str(root / "objectives")])
    source.digests.cache_clear()
    yield root
    source.digests.cache_clear()


def edit(path: Path) -> None:
    """As another process would find it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("# edited\n")
    source.digests.cache_clear()


@pytest.mark.parametrize("name", ["objectives/lcl.py", "transfer/caption.py", "experiments/running/fit.py"])
def test_a_change_of_what_decides_results_is_named(tmp_path: Path, tree: Path, name: str) -> None:
    pin(tmp_path)
    check(tmp_path)
    edit(tree / name)
    edit(tree / "data" / "brand_new.py")
    (tree / "backbones" / "sizes.py").unlink()
    with pytest.raises(SourceChanged, match=f"changed {name}; new data/brand_new.py; gone backbones/sizes.py; put it"):
        check(tmp_path)


def test_of_many_changes_the_first_are_named(tmp_path: Path, tree: Path) -> None:
    pin(tmp_path)
    for number in range(9):
        edit(tree / "data" / f"new_{number}.py")
    with pytest.raises(SourceChanged, match=r"new data/new_0\.py, .*data/new_5\.py and 3 more; put it back"):
        check(tmp_path)


@pytest.mark.parametrize("name", ["docs/tiny.md", "tests/helpers.py", "results/publish.py", "experiments/tables.py"])
def test_a_change_of_anything_else_is_not(tmp_path: Path, tree: Path, name: str) -> None:
    pin(tmp_path)
    edit(tree / name)
    check(tmp_path)


def test_a_run_without_a_checkpoint_begins_with_what_there_is(tmp_path: Path, tree: Path) -> None:
    pin(tmp_path)
    edit(tree / "objectives" / "lcl.py")
    pin(tmp_path)
    check(tmp_path)
    (tmp_path / "checkpoint").mkdir()
    edit(tree / "objectives" / "lcl.py")
    pin(tmp_path)
    with pytest.raises(SourceChanged, match="objectives/lcl.py"):
        check(tmp_path)


def test_an_objective_of_another_folder_counts_too(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "siglip.py").write_text("x = 1\n")
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(mine)])
    pin(tmp_path)
    edit(mine / "siglip.py")
    with pytest.raises(SourceChanged, match="siglip.py"):
        check(tmp_path)
