"""MMC4-Pair matched again and exported: the optimum of the similarities, for the images that are there."""

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from plan_helpers import TINY

from data.convert.__main__ import main
from data.corpora import open_corpus
from data.document import Bad, Cause
from data.loading.select import Rules, choose_images
from data.readers.rematch import Rematched, match
from experiments.configuration.corpora import CORPORA
from experiments.configuration.place import Place
from experiments.planning.specs import CorpusSpec
from experiments.running.world import open_part


def write(folder, matrix, texts, there, sims=None):
    (folder / "images").mkdir(parents=True)
    for number in there:
        Image.new("RGB", (9, 7), (number, 0, 0)).save(folder / "images" / f"{number}.png")
    info = [
        {"image_name": f"{number}.png", "matched_text_index": 0, "matched_sim": 0.3 if sims is None else sims[number]}
        for number in range(len(matrix))
    ]
    line = {"url": "http://a.invalid/", "text_list": texts, "image_info": info, "similarity_matrix": matrix}
    (folder / "docs_shard_0_v2.jsonl").write_text(json.dumps(line) + "\n")
    return open_corpus(folder)


@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (1, 1), (4, 4)])
def test_no_other_matching_has_a_larger_sum(shape):
    rng = np.random.default_rng(0)
    images, sentences = shape
    for _ in range(20):
        similarity = rng.uniform(-1, 1, shape)
        anchors = match(similarity)
        if images <= sentences:
            best = max(
                sum(similarity[image, sentence] for image, sentence in enumerate(order))
                for order in itertools.permutations(range(sentences), images)
            )
            assert len(set(anchors)) == images
            assert sum(similarity[image, anchors[image]] for image in range(images)) == pytest.approx(best)
        else:  # every sentence has an image of its own, the others their most similar one
            assert set(anchors) == set(range(sentences))
            own = sum(anchor != row.argmax() for anchor, row in zip(anchors, similarity, strict=True))
            assert own <= sentences


def test_an_image_that_is_gone_holds_no_sentence(tmp_path):
    matrix = [[0.9, 0.1], [0.8, 0.2]]
    both = Rematched(write(tmp_path / "both", matrix, ["one", "two"], there=[0, 1]))[0]
    assert (both.anchors, both.scores) == ((0, 1), (0.9, 0.2))
    one = Rematched(write(tmp_path / "one", matrix, ["one", "two"], there=[1]))[0]
    assert (one.anchors, one.scores, [image.name for image in one.images]) == ((0,), (0.8,), ["1.png"])
    assert one.meta["similarity_matrix"] == [[0.8, 0.2]]


def test_what_is_gone_takes_the_place_of_nothing_that_is_there_and_is_counted(tmp_path):
    matrix = [[0.9, 0.1], [0.8, 0.3]]
    for number in range(20):  # which of two images of a sentence is chosen depends on the document
        corpus = Rematched(write(tmp_path / str(number), matrix, ["one", "two"], there=[1]))
        raw = replace(corpus[0], doc_id=f"mmc4/0/{number}")
        assert [raw.images[at].name for at in choose_images(raw, Rules(), 0)] == ["1.png"]
        assert [(bad.cause, "0.png" in bad.message) for bad in raw.removed] == [(Cause.MISSING_IMAGE, True)]


@pytest.mark.parametrize(("wanted", "counted"), [(None, 2), (0.24, 1), (0.95, 0)])
def test_of_images_that_are_gone_those_count_that_the_rules_want(tmp_path, wanted, counted):
    corpus = write(tmp_path, [[0.9, 0.1], [0.8, 0.3], [0.1, 0.2]], ["one", "two"], there=[1])
    assert len(Rematched(corpus, wanted)[0].removed) == counted


def test_pairs_are_found_anew_when_more_images_are_there(tmp_path):
    place = Place(runs=tmp_path, data=replace(TINY.config.data, mmc4=tmp_path / "mmc4"))
    spec = CorpusSpec(
        name="mmc4-pair", tokenizer="opt", text_len=80, seq_len=None, sim_threshold=0.24, max_images=6
    )  # fmt: skip
    write(tmp_path / "mmc4", [[0.9, 0.1], [0.8, 0.5]], ["one", "two"], there=[1])

    def texts(name):
        pairs, _ = open_part(place, spec, CORPORA[name], seed=0)
        return [pairs[at].segments for at in range(len(pairs)) if not isinstance(pairs[at], Bad)]

    assert texts("mmc4-pair-rematched") == [("one",)]
    before = {path.name for path in place.shared.rglob("pairs-*.npy")}
    Image.new("RGB", (9, 7)).save(tmp_path / "mmc4" / "images" / "0.png")
    assert texts("mmc4-pair-rematched") == [("one",), ("two",)]
    assert len({path.name for path in place.shared.rglob("pairs-*.npy")} - before) == 1


def test_blank_sentences_and_what_is_no_number_are_never_matched(tmp_path):
    matrix = [[0.9, 0.3, None], ["x", 10**400, float("nan")]]
    found = Rematched(write(tmp_path, matrix, [" ", "two", "three"], there=[0, 1]))[0]
    assert found.anchors[0] == 1 and found.scores[0] == 0.3 and found.scores[1] == -1.0


def test_a_jpeg_with_more_pictures_behind_it_is_exported_as_one(tmp_path):
    write(tmp_path / "mmc4", [[0.9]], ["one"], there=[0])
    path = tmp_path / "mmc4" / "images" / "0.png"
    Image.new("RGB", (9, 7)).save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 7))])
    assert main(["pairs", str(tmp_path / "mmc4"), str(tmp_path / "out")]) == 0
    assert open_corpus(tmp_path / "out")[0].images[0].name.endswith(".jpg")


def test_the_address_of_a_page_that_no_text_holds_is_exported_as_it_was_escaped(tmp_path):
    write(tmp_path / "mmc4", [[0.9]], ["one"], there=[0])
    shard = tmp_path / "mmc4" / "docs_shard_0_v2.jsonl"
    shard.write_text(shard.read_text().replace("http://a.invalid/", r"http://a.invalid/\ud800"))
    assert main(["pairs", str(tmp_path / "mmc4"), str(tmp_path / "out")]) == 0
    assert open_corpus(tmp_path / "out")[0].meta["page"] == "http://a.invalid/\ud800"


def test_a_matrix_of_another_shape_leaves_what_was_published(tmp_path):
    corpus = write(tmp_path, [[0.9], [0.8]], ["one", "two"], there=[0, 1])
    assert Rematched(corpus)[0] == corpus[0] and Rematched(corpus).digest != corpus.digest


def test_pairs_are_exported_as_tars_that_the_reader_of_pairs_gives_back(tmp_path, capsys):
    write(tmp_path / "mmc4", [[0.9, 0.1], [0.8, 0.5], [0.1, 0.2]], ["one", "two"], there=[0, 1])
    assert main(["pairs", str(tmp_path / "mmc4"), str(tmp_path / "out"), "--matching", "optimal"]) == 0
    assert "2 pairs written" in capsys.readouterr().out
    pairs = open_corpus(tmp_path / "out")
    assert pairs.name == "laion" and [pairs[at].segments for at in range(len(pairs))] == [("one",), ("two",)]
    for number in range(2):
        assert pairs[number].images[0].read() == (tmp_path / "mmc4" / "images" / f"{number}.png").read_bytes()
    assert json.loads((tmp_path / "out" / "sizes.json").read_text()) == {"00000.tar": 2}
    assert main(["pairs", str(tmp_path / "mmc4"), str(tmp_path / "out")]) == 2
    assert "is not an empty folder" in capsys.readouterr().err
    assert main(["pairs", str(tmp_path / "out"), str(tmp_path / "other")]) == 2
    assert "holds no MMC4 documents but laion" in capsys.readouterr().err
    assert main(["pairs", str(tmp_path / "mmc4"), str(tmp_path / "none"), "--sim-threshold", "0.99"]) == 2
    assert "gives no pair under a threshold of 0.99" in capsys.readouterr().err and not (tmp_path / "none").exists()
    with pytest.raises(SystemExit):
        main(["pairs", str(tmp_path / "mmc4"), str(tmp_path / "none"), "--sim-threshold", "nan"])
    assert "'nan' is no number" in capsys.readouterr().err
