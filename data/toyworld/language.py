"""Texts of the embedded corpus: pages about cloth and tiles, whose words are redundant to a declared degree.

A document has a subject (a pattern). Its title names it, and the sentence beside each picture names it and the colour
it is drawn in, each with probability `redundancy`; the ground is never named, so it stays a nuisance. A picture shows
that subject with probability `one_subject`. Where it does, a reader who has the title or an earlier sentence knows the
pattern without looking: that is the redundancy of text the paper's 3.2 holds responsible for the collapse of
generation-only training, here as two numbers. With `redundancy` 0 the text says nothing of the pictures; with
`one_subject` 0 it says as much as ever, and only who looks knows it beforehand.
"""

from dataclasses import dataclass

import numpy as np

from data.toyworld.patterns import COLOURS, PATTERNS, Scene
from data.toyworld.rules import DocumentRules

NAMES = tuple(pattern.name for pattern in PATTERNS)
COLOUR_NAMES = tuple(COLOURS)

TITLES = ("Notes about {name} .", "All about {name} .", "A short guide to {name} .", "Our page of {name} .")
EMPTY_TITLES = ("Notes of today .", "A short page .", "Things to keep .")
LEADS = (
    "here is a cloth with", "this tile has", "look at these", "we wove", "on the left are", "the next roll shows",
    "below are", "a customer sent us",
)  # fmt: skip
EMPTY_LEADS = ("here is one more .", "look at this .", "the next one is below .")
REPEATS = ("those {name} are {colour} .", "we keep more of this {colour} .", "the {colour} {name} sell well .")
DISTRACTORS = (
    "the weather was good .", "please read the notes first .", "we came back late .", "this took a long day .",
    "there is more to say .", "write to us if you like .", "it was made by hand .", "thanks for your time .",
    "the page is still short .", "we will add more soon .", "you can print it .", "it is free to use .",
    "a picture is below .", "wash it cold and dry it flat .", "the glaze is fired twice .",
    "the price is the same for all of them .",
)  # fmt: skip
CAPTIONS = (
    "{name} in {colour} on {back}",
    "{colour} {name} on a {back} ground",
    "the {name} are {colour} and the ground is {back}",
    "there are {colour} {name} in front of {back}",
    "a cloth with {name} in {colour} over {back}",
    "a picture of {colour} {name} on {back}",
    "{back} ground with {colour} {name}",
    "these {name} are {colour} on {back}",
    "the {colour} {name} on {back}",
    "a {back} tile with {name} in {colour}",
)
# The NoCaps analogue: words that are all known, in combinations that occur nowhere else.
HELD_OUT = frozenset((pattern, pattern % len(COLOURS)) for pattern in range(len(PATTERNS)))


@dataclass(frozen=True)
class Page:
    """One document before it is written: sentences, the scene of each picture and the sentence it belongs to."""

    sentences: tuple[str, ...]
    scenes: tuple[Scene, ...]
    anchors: tuple[int, ...]


def sample_scene(rng: np.random.Generator, pattern: int, *, held_out: bool = False) -> Scene:
    """A scene of that pattern with a foreground it may have: the held-out one, or any other; background differs."""
    mine = [colour for colour in range(len(COLOURS)) if ((pattern, colour) in HELD_OUT) == held_out]
    foreground = int(mine[rng.integers(len(mine))])
    background = int((foreground + 1 + rng.integers(len(COLOURS) - 1)) % len(COLOURS))
    return Scene(pattern, foreground, background)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]


def describe(rng: np.random.Generator, scene: Scene, rules: DocumentRules) -> tuple[str, bool]:
    """The sentence beside a picture, and whether it names what the picture shows."""
    if rng.random() >= rules.redundancy:
        return _pick(rng, EMPTY_LEADS), False
    return f"{_pick(rng, LEADS)} {NAMES[scene.pattern]} in {COLOUR_NAMES[scene.foreground]} .", True


def sample_page(rng: np.random.Generator, rules: DocumentRules) -> Page:
    """A document about a random subject."""
    subject = int(rng.integers(len(PATTERNS)))
    told = rng.random() < rules.redundancy
    sentences = [_pick(rng, TITLES).format(name=NAMES[subject]) if told else _pick(rng, EMPTY_TITLES)]
    scenes, anchors = [], []
    for _ in range(1 + rng.choice(len(rules.image_counts), p=rules.image_counts)):
        own = rules.one_subject < 1 and rng.random() >= rules.one_subject
        scene = sample_scene(rng, int(rng.integers(len(PATTERNS))) if own else subject)
        name = NAMES[scene.pattern]
        colour = COLOUR_NAMES[scene.foreground]
        if rng.random() < rules.distractor:
            sentences.append(_pick(rng, DISTRACTORS))
        sentence, told = describe(rng, scene, rules)
        anchors.append(len(sentences))
        scenes.append(scene)
        sentences.append(sentence)
        if told and rng.random() < rules.repeat:
            sentences.append(_pick(rng, REPEATS).format(colour=colour, name=name))
    return Page(tuple(sentences), tuple(scenes), tuple(anchors))


def captions(scene: Scene, rng: np.random.Generator, count: int) -> tuple[str, ...]:
    """`count` different captions of a scene; unlike pages they name the background too."""
    words = {
        "colour": COLOUR_NAMES[scene.foreground],
        "back": COLOUR_NAMES[scene.background],
        "name": NAMES[scene.pattern],
    }
    return tuple(CAPTIONS[i].format(**words) for i in rng.permutation(len(CAPTIONS))[:count])
