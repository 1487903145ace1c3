"""Three ways to normalise short answers before they are compared, which disagree, and VQA's soft accuracy.

Source: the evaluation code of VQA (vqaEval.py, Antol et al. 2015) and the processor that LLaVA applies to answers
before it submits them (m4c_evaluator.py); transfer.md 6.1 lists where they differ.

`standard`   every answer is normalised; the one that is reported
`original`   as VQA's script does it: nothing is normalised where the ten answers are one and the same text
`llava`      commas and question marks go first, "'s" becomes a word of its own
"""

import re
from collections.abc import Sequence
from typing import Literal

Normalisation = Literal["standard", "original", "llava"]

NUMBERS = {word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())}
NUMBERS["none"] = "0"
ARTICLES = frozenset({"a", "an", "the"})
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
# The pattern of the script also means to spare a period after a digit, but is mistyped and does not.
PERIOD = re.compile(r"\.(?!\d)")
THOUSANDS = re.compile(r"\d,\d")
# `re.sub(pattern, text, re.UNICODE)`: the flag stands where the number of replacements does, and its value is 32.
SCRIPT_PERIODS = int(re.UNICODE)

# Forms that get their apostrophe back where exactly one is missing; the script's table is this list, spelled out.
_CONTRACTIONS = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
    he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
    o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
    someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've
    there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's
    what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've
    wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()
CONTRACTIONS = {
    form[:at] + form[at + 1 :]: form for form in _CONTRACTIONS for at, letter in enumerate(form) if letter == "'"
} | {"somebody'd": "somebodyd"}  # the one entry that takes an apostrophe away


def soft_accuracy(said: str, answers: Sequence[str], norm: Normalisation) -> float:
    """VQA's accuracy in [0, 1]: mean over the answers i of min(1, how many of the others equal `said` / 3).

    An answer is left out by its place. The script leaves out all entries that equal it, which is the same where each
    has an id of its own (VQAv2), and makes ten equal answers worth 0 where it has none (VizWiz).
    """
    if norm == "original" and len({_spaced(answer) for answer in answers}) == 1:
        said, answers = _spaced(said), [_spaced(answer) for answer in answers]
    else:
        said, answers = normalised(said, norm), [normalised(answer, norm) for answer in answers]
    same = [answer == said for answer in answers]
    return sum(min(1.0, (sum(same) - own) / 3) for own in same) / len(same)


def normalised(text: str, norm: Normalisation) -> str:
    """The text as it is compared; for `original`, as where answers differ."""
    if norm == "llava":
        text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return _words(_without_punctuation(_spaced(text), 0 if norm == "standard" else SCRIPT_PERIODS))


def _spaced(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str, periods: int) -> str:
    """Each mark deleted where it touches a space anywhere in the text, or the text has 1,000; else made a space.

    periods: how many are deleted at most; 0: all.
    """
    thousands = THOUSANDS.search(text)
    found = text
    for mark in PUNCTUATION:
        touches = f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if touches or thousands else " ")
    return PERIOD.sub("", found, count=periods)


def _words(text: str) -> str:
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
