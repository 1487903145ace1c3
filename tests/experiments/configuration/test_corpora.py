"""Fingerprints of data: equal for equal content wherever it lies, different when something was added."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from plan_helpers import TINY

from data.errors import CorpusError
from experiments.configuration.corpora import CORPORA, digests
from experiments.configuration.overrides import ConfigError
from experiments.configuration.place import Place
from experiments.planning.specs import CorpusSpec
from experiments.running.world import open_part


def folder(root: Path) -> Path:
    for name, size in (("train/a/1.png", 3), ("train/a/2.png", 4), ("train/b/1.png", 5), ("list.json", 6)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    return root


def digest(path: Path, field: str = "imagenet") -> str:
    return digests(replace(TINY.config.data, **{field: path}))[field]


def test_only_fields_that_are_set_have_a_digest() -> None:
    assert digests(TINY.config.data) == {}
    assert digests(replace(TINY.config.data, tokenizer="facebook/opt-125m")) == {"tokenizer": "facebook/opt-125m"}


def test_the_place_does_not_matter_and_the_content_does(tmp_path: Path) -> None:
    first = folder(tmp_path / "here")
    shutil.copytree(first, tmp_path / "there")
    before = digest(first)
    assert digest(tmp_path / "there") == before
    (first / "train" / "b" / "2.png").touch()
    added = digest(first)
    (first / "list.json").write_bytes(b"longer than before")
    assert len({before, added, digest(first)}) == 3


def test_a_tokenizer_folder_is_read_by_content(tmp_path: Path) -> None:
    path = folder(tmp_path / "opt")
    assert digests(replace(TINY.config.data, tokenizer=str(path)))["tokenizer"] == digest(path)


def test_a_language_model_is_known_by_its_weights(tmp_path: Path) -> None:
    """Two trainings of one model, each in a folder `final`."""

    def model(name: str, weights: bytes) -> str:
        path = tmp_path / name / "final"
        path.mkdir(parents=True)
        (path / "config.json").write_text('{"model_type": "llama"}')
        (path / "model.safetensors").write_bytes(weights)
        found = digests(replace(TINY.config.data, llm=str(path)))["llm"]
        assert found.startswith("final ")
        return found

    middle = bytes(3 * 2**20)
    found = [model("a", b"one" + middle + b"two"), model("b", b"ONE" + middle + b"two")]
    found += [model("c", b"one" + middle + b"TWO"), model("d", b"one" + middle + b"two")]
    assert len(set(found)) == 3 and found[0] == found[3]


def test_a_corpus_is_its_shards(tmp_path: Path) -> None:
    path = tmp_path / "laion"
    path.mkdir()
    (path / "00000.tar").write_bytes(b"x" * 100)
    before = digest(path, "laion")
    (path / "notes.txt").write_text("nothing to do with the corpus")
    assert digest(path, "laion") == before
    (path / "00001.tar").write_bytes(b"x" * 100)
    assert digest(path, "laion") != before


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="data.coco is .*--set data.coco=FOLDER"):
        digest(tmp_path / "none", "coco")
    with pytest.raises(CorpusError, match="does not exist"):
        digest(tmp_path / "none", "mmc4")


def test_where_pictures_stand_is_what_documents_are_sampled_by(corpus: Path, tmp_path: Path) -> None:
    place = Place(runs=tmp_path, data=replace(TINY.config.data, mmc4=corpus / "mmc4"))
    for said in ({}, {"before_probability": 0.25}):
        spec = CorpusSpec(
            name="mmc4", tokenizer="opt", text_len=None, seq_len=256, sim_threshold=0.24, max_images=6, **said
        )
        assert open_part(place, spec, CORPORA["mmc4"], seed=0)[1].before_probability == said.get(
            "before_probability", 0.5
        )
