"""BLEU-4 and CIDEr(-D) of captions, as pycocoevalcap computes them on Penn Treebank tokens.

Source: LCL paper 4.1 (COCO and NoCaps captioning); package pycocoevalcap for the scorers and the tokenizer's jar. The
jar is run here rather than by the package's wrapper, which writes into site-packages, ignores Java's exit status and,
where a caption holds a line separator, moves every later caption to the next image: captions are cleaned first, and the
number of lines that come back must be the number sent.
"""

import math
import re
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pycocoevalcap.bleu.bleu_scorer import BleuScorer
from pycocoevalcap.cider.cider_scorer import CiderScorer

from transfer.metrics.java import JavaError, run_java

ORDERS = 4  # n-grams of 1 to 4 words
_JAR = "stanford-corenlp-3.4.1.jar"
# Words that the scoring convention drops. Brackets are listed in upper case although the tokenizer lower-cases, so
# "-lrb-" stays: results are only comparable if it does.
_DROPPED = frozenset(["''", "'", "``", "`", "-LRB-", "-RRB-", "-LCB-", "-RCB-", "--", "...", *".?!,:-;"])


@dataclass(frozen=True)
class Bleu:
    """Sufficient statistics of corpus BLEU. They add: never average BLEU itself."""

    correct: tuple[int, ...]  # clipped matches of n-grams, n = 1..4
    guess: tuple[int, ...]  # n-grams of the prediction
    length: int  # words of the prediction
    reference: int  # words of the closest reference, the shorter of two equally close ones

    def score(self, order: int = ORDERS) -> float:
        """BLEU of that order in [0, 1], with the reference implementation's guards against division by zero."""
        product = math.prod((c + 1e-15) / (g + 1e-9) for c, g in zip(self.correct[:order], self.guess, strict=False))
        ratio = (self.length + 1e-15) / (self.reference + 1e-9)
        return product ** (1 / order) * (math.exp(1 - 1 / ratio) if ratio < 1 else 1.0)

    def __add__(self, other: "Bleu") -> "Bleu":
        return Bleu(
            tuple(a + b for a, b in zip(self.correct, other.correct, strict=True)),
            tuple(a + b for a, b in zip(self.guess, other.guess, strict=True)),
            self.length + other.length,
            self.reference + other.reference,
        )


@dataclass(frozen=True)
class CaptionScores:
    """Scores of a set of predictions, as fractions (the paper prints x100)."""

    bleu: tuple[float, ...]  # corpus BLEU-1..4
    cider: float  # mean over images; document frequencies from this set's references
    cider_of: Mapping[str, float]  # per image
    bleu_of: Mapping[str, Bleu]  # per image


def clean(caption: str) -> str:
    """A caption on one line: control characters and separators become spaces, runs of spaces one. Nothing else."""
    # Cc and Zl/Zp split lines in one tool or another; a lone surrogate (Cs) cannot be written as UTF-8.
    spaced = "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp", "Cs") else c for c in caption)
    return re.sub(" +", " ", spaced).strip(" ")


def tokenize(captions: Sequence[str]) -> list[str]:
    """Penn Treebank words, lower-cased, punctuation dropped, joined by spaces; one for each caption, in order.

    Raises JavaError where Java fails or gives another number of lines than captions.
    """
    with tempfile.TemporaryDirectory(prefix="captions-") as folder:
        path = Path(folder) / "captions.txt"
        path.write_bytes("".join(clean(caption) + "\n" for caption in captions).encode())
        output = run_java(
            ["-cp", str(_jar()), "edu.stanford.nlp.process.PTBTokenizer", "-preserveLines", "-lowerCase", str(path)]
        )
    lines = output.replace("\r\n", "\n").split("\n")
    if lines and not lines[-1]:
        lines.pop()  # what follows the last line's end
    if len(lines) != len(captions):
        raise JavaError(
            f"the PTB tokenizer gave {len(lines)} lines for {len(captions)} captions; scores would belong to the wrong "
            "images, so there are none"
        )
    return [" ".join(word for word in line.rstrip().split(" ") if word not in _DROPPED) for line in lines]


def score(references: Mapping[str, Sequence[str]], *predictions: Mapping[str, str]) -> tuple[CaptionScores, ...]:
    """BLEU-1..4 and CIDEr of each set of predictions, one for every image; one run of Java for all captions.

    Raises TypeError where references are one string or hold what is no text, or a prediction is no text; ValueError
    where the two do not hold the same images, or an image has no reference with a word in it; JavaError where
    tokenising fails. An empty prediction is scored, and scores 0.
    """
    for each in predictions:
        _same_images(references, each)
        _texts(references, each)
    owner = [image for image, texts in references.items() for _ in texts]
    said = [text for each in predictions for text in each.values()]
    words = tokenize([text for texts in references.values() for text in texts] + said)
    told: dict[str, list[str]] = {image: [] for image in references}
    for image, line in zip(owner, words[: len(owner)], strict=True):
        told[image].append(line)
    for image, lines in told.items():
        if not any(lines):
            texts = repr(list(references[image]))[:200]
            raise ValueError(f"image {image!r} has no reference caption with a word in it: {texts}")
    rest = iter(words[len(owner) :])
    return tuple(_scores(told, {image: next(rest) for image in each}) for each in predictions)


def _scores(told: Mapping[str, list[str]], said: Mapping[str, str]) -> CaptionScores:
    """Scores of captions that are tokenised already."""
    bleu, cider = BleuScorer(n=ORDERS), CiderScorer(n=ORDERS)
    for image, lines in told.items():
        bleu += (said[image], lines)
        cider += (said[image], lines)
    corpus, _ = bleu.compute_score(option="closest", verbose=0)
    mean, each = cider.compute_score()
    statistics = (_statistics(counts) for counts in bleu.ctest)
    return CaptionScores(
        bleu=tuple(float(value) for value in corpus),
        cider=float(mean),
        cider_of={image: float(value) for image, value in zip(told, each, strict=True)},
        bleu_of=dict(zip(told, statistics, strict=True)),
    )


def _statistics(counts: Mapping[str, list[int]]) -> Bleu:
    length: int = counts["testlen"]  # type: ignore[assignment]  # a number among the lists
    closest = min((abs(words - length), words) for words in counts["reflen"])[1]
    return Bleu(tuple(counts["correct"]), tuple(counts["guess"]), length, closest)


def _same_images(references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> None:
    if not references:
        raise ValueError("there are no images to score")
    missing = [image for image in references if image not in predictions]
    extra = [image for image in predictions if image not in references]
    if missing or extra:
        raise ValueError(
            f"{len(references)} images have references and {len(predictions)} have predictions, but "
            f"{len(missing)} lack a prediction (first {missing[:3]}) and {len(extra)} lack references "
            f"(first {extra[:3]}); scores are taken over the whole split, never over what happens to be there"
        )


def _texts(references: Mapping[str, Sequence[str]], predictions: Mapping[str, str]) -> None:
    """A string is a sequence of strings too: each letter would be scored as a reference."""
    for image, texts in references.items():
        if isinstance(texts, str):
            raise TypeError(
                f"references of image {image!r} are one string, {texts!r:.80}; give a list of captions, [{texts!r:.40}]"
            )
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(
                    f"image {image!r} has a reference that is {type(text).__name__}, not text: {text!r:.80}"
                )
    for image, text in predictions.items():
        if not isinstance(text, str):
            raise TypeError(f"the prediction of image {image!r} is {type(text).__name__}, not text: {text!r:.80}")


def _jar() -> Path:
    spec = find_spec("pycocoevalcap.tokenizer")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    for folder in folders:
        if (Path(folder) / _JAR).is_file():
            return Path(folder) / _JAR
    raise JavaError(f"package pycocoevalcap has no {_JAR} in {folders}; reinstall it")
