"""Questions about pictures of four things or one, whose answers are known by construction."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, get_args

import numpy as np

from data.toyworld.corners import CORNERS, THINGS, Shown
from data.toyworld.patterns import COLOURS

Kind = Literal["what", "where", "colour", "count", "there"]
# By how many things a picture shows: of one alone nobody asks where it is.
KINDS: Mapping[int, tuple[Kind, ...]] = {4: get_args(Kind), 1: ("what", "colour", "there")}
Negatives = Literal["random", "popular", "adversarial"]
SHORT = "Answer the question using a single word or phrase."  # LLaVA's prompt for short answers
ROUNDS = 4  # of a conversation: an embedded language model has 256 positions
ASKED_EACH = 3  # things that are there, and as many that are not, about which POPE asks for a picture


@dataclass(frozen=True)
class Question:
    """A question with its answer."""

    kind: Kind
    text: str
    answer: str


def ask(shown: Shown, kind: Kind, rng: np.random.Generator) -> Question:
    """A question of that kind about a picture; half of the yes/no questions are about what is there."""
    place = int(rng.integers(len(shown.things)))
    thing, corner, colour = shown.things[place], CORNERS[place], shown.colours[place]
    where = f"{corner} corner" if len(shown.things) > 1 else "picture"
    match kind:
        case "what":
            return Question(kind, f"What is in the {where}?", thing)
        case "where":
            return Question(kind, f"Where are the {thing}?", corner)
        case "colour":
            return Question(kind, f"Which colour is in the {where}?", colour)
        case "count":
            asked = colour if rng.random() < 0.75 else str(rng.choice(tuple(COLOURS)))
            return Question(kind, f"How many patterns are {asked}?", str(shown.colours.count(asked)))
        case "there":
            absent = [each for each in THINGS if each not in shown.things]
            there = bool(rng.random() < 0.5)
            return is_there(thing if there else str(rng.choice(absent)), there)


def rounds(shown: Shown, rng: np.random.Generator) -> list[Question]:
    """Questions of all kinds about a picture for one conversation, none of them twice."""
    asked: dict[str, Question] = {}
    while len(asked) < ROUNDS:
        question = ask(shown, rng.choice(KINDS[len(shown.things)]), rng)
        asked.setdefault(question.text, question)
    return list(asked.values())


def is_there(thing: str, there: bool) -> Question:
    """POPE's question."""
    return Question("there", f"Are there {thing} in the image?", "yes" if there else "no")


def describe(shown: Shown) -> str:
    """A caption that names everything."""
    if len(shown.things) == 1:
        return f"{shown.things[0]} in {shown.colours[0]}"
    told = zip(shown.things, shown.colours, CORNERS, strict=True)
    return ", ".join(f"{thing} in {colour} at the {corner}" for thing, colour, corner in told)


def pope(several: Sequence[Shown], negatives: Negatives, rng: np.random.Generator) -> list[list[Question]]:
    """For every picture ASKED_EACH questions with yes, where it shows so many things, and as many with no, in turn.

    What is not there is drawn from all that is absent; or it is what the pictures show most often; or what they show
    most often together with what is there (Li et al. 2023, section 5).
    """
    often = Counter(thing for shown in several for thing in shown.things)
    together = Counter(pair for shown in several for pair in permutations(shown.things, 2))
    asked = []
    for shown in several:
        present = [str(thing) for thing in rng.permutation(shown.things)[:ASKED_EACH]]
        absent = [str(thing) for thing in rng.permutation([each for each in THINGS if each not in shown.things])]
        scores: Mapping[str, int] = {
            "random": dict.fromkeys(absent, 0),
            "popular": often,
            "adversarial": {each: sum(together[each, thing] for thing in shown.things) for each in absent},
        }[negatives]
        chosen = sorted(absent, key=lambda each: -scores[each])[: len(present)]  # a stable sort: ties stay shuffled
        pairs = zip(present, chosen, strict=True)
        asked.append([question for yes, no in pairs for question in (is_there(yes, True), is_there(no, False))])
    return asked
