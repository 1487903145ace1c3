"""MMC4-Pair matched again and exported: the optimum of the similarities, for the images that are there."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from data.convert.__main__ import main
from data.corpora import open_corpus
from data.readers.rematch import Rematched, match


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
        anchors = match(similarity, np.ones(images, bool))
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
    assert one.anchors[1] == 0 and one.scores[1] == 0.8


def test_blank_sentences_and_what_is_no_number_are_never_matched(tmp_path):
    matrix = [[0.9, 0.3, None], ["x", 0.2, float("nan")]]
    found = Rematched(write(tmp_path, matrix, [" ", "two", "three"], there=[0, 1]))[0]
    assert found.anchors[0] == 1 and found.scores[0] == 0.3 and found.scores[1] == -1.0


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
