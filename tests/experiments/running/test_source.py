"""A run goes on only with the source it began with; what decides no result may change at any time."""

import logging
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import objectives
from experiments.running import lifecycle, source
from experiments.running.attempts import claim
from experiments.running.source import SourceChanged, check, is_pinned, pin
from objectives import registry
from results.schema import Kind


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


def test_only_what_is_pinned_and_the_same_counts_as_that(tmp_path: Path, tree: Path) -> None:
    assert not is_pinned(tmp_path)
    pin(tmp_path)
    assert is_pinned(tmp_path)
    edit(tree / "transfer" / "classify.py")
    assert not is_pinned(tmp_path)


LATE = """
from objectives.clip import CLIP
from objectives.registry import register


@register("imported_late")
class Late(CLIP):
    saw = {saw}
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder of objectives."""
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setattr(objectives, "__path__", [*objectives.__path__, str(folder)])
    source.import_all.cache_clear()
    yield folder
    registry._REGISTERED.pop("imported_late", None)
    sys.modules.pop("objectives.imported_late", None)
    source.import_all.cache_clear()


def test_an_objective_is_run_as_it_was_when_the_first_run_began(mine: Path, caplog: pytest.LogCaptureFixture) -> None:
    (mine / "imported_late.py").write_text(LATE.format(saw=1))
    (mine / "half_written.py").write_text(LATE.format(saw=0).replace("imported_late", "half_written") + "oops\n")
    with caplog.at_level(logging.WARNING):
        source.import_all()
    assert "objective half_written cannot be imported: name 'oops' is not defined" in caplog.text
    (mine / "imported_late.py").write_text(LATE.format(saw=22))
    assert registry.get("imported_late").saw == 1  # type: ignore[attr-defined]
    del registry._REGISTERED["half_written"]


def test_everything_is_imported_before_the_code_is_noted_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Pinned(BaseException):
        """Ends it there."""

    order = []

    def pinned(folder: Path) -> None:
        order.append("pinned")
        raise Pinned

    monkeypatch.setattr(source, "import_all", lambda: order.append("imported"))
    monkeypatch.setattr(source, "pin", pinned)
    monkeypatch.setattr(lifecycle, "_code", lambda: order.append("noted"))
    monkeypatch.setattr(lifecycle, "load_spec", lambda folder: SimpleNamespace(kind=Kind.PRETRAIN))
    with pytest.raises(Pinned), claim(tmp_path).beating() as lease:
        lifecycle._owned(tmp_path, None, "tiny", False, lease, None)  # type: ignore[arg-type]
    assert order == ["imported", "noted", "pinned"]
