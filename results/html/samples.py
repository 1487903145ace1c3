"""What rows said of the same few test images: pictures from easy to hard, right and wrong answers marked."""

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean

from results.details.samples import Image, Said, Samples
from results.frame import Filled
from results.schema import Kind, Row

SHOWN = 4  # images of a task and test set
SHOWN_OF_DIALOGUE = 10  # questions of a benchmark: an answer of a word or two takes little room

ABOUT = (
    "The same images in every row, chosen by their ids alone; of these {shown} of {kept}, from the one that the rows "
    "together did best on to the one they did worst on. One seed a row."
)


@dataclass(frozen=True)
class Answer:
    """What a row said of an image."""

    row: str
    seed: int
    texts: tuple[tuple[str, str], ...]  # with "right", "wrong" or ""
    score: str


@dataclass(frozen=True)
class Pictured:
    """An image with its reference and every row's answer."""

    item_id: str
    picture: str  # data URI
    meant: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Gallery:
    """Images of one task on one test set."""

    title: str
    about: str
    images: tuple[Pictured, ...]


Told = list[tuple[Row, int, Said]]  # row, seed, what it said


def galleries(filled: Filled, samples: Samples) -> list[Gallery]:
    """One for each task and test set that rows of the table have samples of."""
    found: dict[tuple[str, str], dict[Image, Told]] = defaultdict(lambda: defaultdict(list))
    for row in filled.rows:
        for slot in filled.publication.slots:
            if slot.row == row.label:
                for image, said in samples.said.get(slot.run_id, {}).items():
                    found[slot.stage, image[0]][image].append((row, slot.seed, said))
    return [_gallery(*key, images, samples) for key, images in sorted(found.items())]


def _gallery(stage: str, dataset: str, images: dict[Image, Told], samples: Samples) -> Gallery:
    def ease(image: Image) -> tuple[float, Image]:
        return fmean(said.score or 0.0 for _, _, said in images[image]), image

    retrieved = any(said.right for told in images.values() for _, _, said in told)
    ordered = sorted(images, key=ease, reverse=True)
    asked = stage == Kind.DIALOGUE
    last = min(SHOWN_OF_DIALOGUE if asked else SHOWN, len(ordered)) - 1
    chosen = [ordered[round(place * (len(ordered) - 1) / last) if last else 0] for place in range(last + 1)]
    title = f"Captions {'retrieved' if retrieved else 'written'} for images of {dataset} ({stage})"
    return Gallery(
        title=f"Answers to questions in the form of {dataset} ({stage})" if asked else title,
        about=ABOUT.format(shown=len(chosen), kept=len(ordered)),
        images=tuple(
            Pictured(image[1], samples.pictures[image][1], samples.pictures[image][0], _answers(images[image]))
            for image in chosen
        ),
    )


def _answers(told: Told) -> tuple[Answer, ...]:
    answers = []
    for row, seed, said in told:
        marks = [("right" if each else "wrong") for each in said.right] or [""] * len(said.said)
        score = "" if said.right else "not scored" if said.score is None else f"{said.metric} {said.score:.0f}"
        answers.append(Answer(row.label, seed, tuple(zip(said.said, marks, strict=True)), score))
    return tuple(answers)
