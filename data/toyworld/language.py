"""Texts of the embedded corpus: documents about one subject, whose words are redundant to a declared degree.

A document has a subject (a glyph). Its title names it, and the sentence beside each picture names it and the picture's
foreground colour, each with probability `redundancy`; the background is never named, so it stays a nuisance. A reader
who has the title knows the subject without looking: that is the redundancy of text the paper's 3.2 holds responsible
for the collapse of generation-only training, here as a number.
"""

from dataclasses import dataclass

import numpy as np

from data.toyworld.glyphs import COLOURS, GLYPHS, Scene
from data.toyworld.rules import DocumentRules

NAMES = (
    "alpha bravo charlie echo foxtrot golf hotel juliett kilo lima mike november "
    "papa quebec romeo sierra tango uniform victor whiskey xray yankee zulu two"
).split()
COLOUR_NAMES = tuple(COLOURS)
assert len(NAMES) == len(GLYPHS)

TITLES = ("Notes about the {name} .", "All about the {name} .", "A short guide to the {name} .", "My {name} page .")
EMPTY_TITLES = ("Notes of today .", "A short page .", "Things to keep .")
LEADS = (
    "here is", "this is", "look at", "we found", "on the left is", "i like", "the next one is", "below is",
)  # fmt: skip
EMPTY_LEADS = ("here is one more .", "look at this .", "the next one is below .")
REPEATS = ("that {name} is {colour} .", "a {colour} one again .", "we keep the {colour} {name} .")
DISTRACTORS = (
    "the weather was fine .", "please read the notes first .", "we came back late .", "this took a long day .",
    "there is more to say .", "write to us if you like .", "it was made by hand .", "thanks for your time .",
    "the page is still short .", "we will add more soon .", "you can print it .", "it is free to use .",
    "a picture is below .", "there was one in front of the house .", "it stood on the ground over there .",
    "we came with one and left .",
)  # fmt: skip
CAPTIONS = (
    "a {colour} {name} on {back}",
    "a {colour} {name} on a {back} ground",
    "the {name} is {colour} and the ground is {back}",
    "there is a {colour} {name} in front of {back}",
    "one {colour} {name} over {back}",
    "a picture of a {colour} {name} on {back}",
    "{back} ground with a {colour} {name}",
    "this {name} is {colour} on {back}",
    "the {colour} {name} on {back}",
    "a {name} in {colour} on {back}",
)
HELD_OUT = frozenset((glyph, glyph % len(COLOURS)) for glyph in range(len(GLYPHS)))  # NoCaps analogue: never seen pairs


@dataclass(frozen=True)
class Page:
    """One document before it is written: sentences, the scene of each picture and the sentence it belongs to."""

    sentences: tuple[str, ...]
    scenes: tuple[Scene, ...]
    anchors: tuple[int, ...]


def sample_scene(rng: np.random.Generator, glyph: int, *, held_out: bool = False) -> Scene:
    """A scene of that glyph with a foreground it may have: the held-out one, or any other; background differs."""
    mine = [colour for colour in range(len(COLOURS)) if ((glyph, colour) in HELD_OUT) == held_out]
    foreground = int(mine[rng.integers(len(mine))])
    background = int((foreground + 1 + rng.integers(len(COLOURS) - 1)) % len(COLOURS))
    return Scene(glyph, foreground, background)


def _pick(rng: np.random.Generator, options: tuple[str, ...]) -> str:
    return options[rng.integers(len(options))]


def describe(rng: np.random.Generator, scene: Scene, rules: DocumentRules) -> tuple[str, bool]:
    """The sentence beside a picture, and whether it names what the picture shows."""
    if rng.random() >= rules.redundancy:
        return _pick(rng, EMPTY_LEADS), False
    return f"{_pick(rng, LEADS)} a {COLOUR_NAMES[scene.foreground]} {NAMES[scene.glyph]} .", True


def sample_page(rng: np.random.Generator, rules: DocumentRules) -> Page:
    """A document about one random subject."""
    glyph = int(rng.integers(len(GLYPHS)))
    name = NAMES[glyph]
    told = rng.random() < rules.redundancy
    sentences = [_pick(rng, TITLES).format(name=name) if told else _pick(rng, EMPTY_TITLES)]
    scenes, anchors = [], []
    for _ in range(1 + rng.choice(len(rules.image_counts), p=rules.image_counts)):
        scene = sample_scene(rng, glyph)
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
        "name": NAMES[scene.glyph],
    }
    return tuple(CAPTIONS[i].format(**words) for i in rng.permutation(len(CAPTIONS))[:count])
