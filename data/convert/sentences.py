"""A rule-based sentence splitter for the converter: no model, no download.

A sentence ends at . ! ? or an ellipsis, with any closing quotes or brackets, when white space and something that can
open a sentence follow; known abbreviations, initials and list numbers do not end one. Full-width terminators of Chinese
and Japanese need no white space. A line break always ends a sentence.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Rules:
    """What a full stop does not end, in one language; all words in lower case, without their last full stop."""

    abbreviations: frozenset[str] = frozenset()  # never at the end of a sentence: titles, "e.g."
    numbered: frozenset[str] = frozenset()  # abbreviations only in front of a number: "No. 5"
    ordinals: bool = False  # "3. Oktober": a number with a full stop is an ordinal


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MONTHS_EN = "jan feb mar apr jun jul aug sep sept oct nov dec"

LANGUAGES: Mapping[str, Rules] = {
    "en": Rules(
        _words("mr mrs ms dr prof st sr gen col lt capt rev hon gov sen rep e.g i.e cf vs viz approx ca resp incl esp"),
        _words(f"no nos fig figs p pp vol ch sec sect eq eqs ref refs ver v art ed {_MONTHS_EN}"),
    ),
    "de": Rules(
        _words("hr fr dr prof dipl ing bzw z.b d.h u.a z.t i.d.r ggf vgl ca evtl inkl sog bspw o.ä s.o s.u st"),
        _words("nr abb kap s bd abs art tab"),
        ordinals=True,
    ),
    "fr": Rules(_words("m mm mme mmes mlle dr pr p.ex cf env st ste"), _words("n no art p pp fig chap vol éd")),
    "es": Rules(_words("sr sra sres srta dr dra d dña p.ej ud uds aprox cf"), _words("n no núm art p pp fig cap vol")),
    "it": Rules(_words("sig sigg dott prof ing avv ecc es cfr ca"), _words("n art p pp fig cap vol")),
    "pt": Rules(_words("sr sra dr dra prof p.ex ex cf aprox"), _words("n art p pp fig cap vol")),
    "nl": Rules(_words("dhr mevr dr drs ir ing prof bijv d.w.z o.a m.a.w nl ca evt incl"), _words("nr art blz fig")),
    "zh": Rules(),
    "ja": Rules(),
}

_CLOSERS = "\"'»”’)\\]」』）】"
UNSPACED = "。！？｡"  # end a sentence without a space behind it
_MARKS = ".!?…؟۔।"
# Only at the first of several marks and all of them at once: a page may be a million of them.
_END = re.compile(rf"(?:(?<![{_MARKS}])[{_MARKS}]++[{_CLOSERS}]*+(?=\s)|[{UNSPACED}]+[{_CLOSERS}]*)")
_OPENERS = re.compile(r"[\s\"'«“‘„(\[¿¡「『（【]*")
_ACRONYM = re.compile(r"(?:\w\.)+\w")  # U.S, e.g: the last full stop is not part of the word

_CONTEXT = 200  # characters looked at on either side of a mark
_NUMBER = re.compile(r"\d+(?:\.\d+)*")


def spans(text: str, language: str = "en") -> list[tuple[int, int]]:
    """Start and end of every sentence of `text`, without the white space around it. Unknown language: ValueError."""
    rules = LANGUAGES.get(language)
    if rules is None:
        raise ValueError(f"no sentence rules for language {language!r}; there are rules for: {', '.join(LANGUAGES)}")
    found: list[tuple[int, int]] = []
    for line in re.finditer(r"[^\n]+", text):
        start = line.start()
        for end in _END.finditer(text, line.start(), line.end()):
            before = text[max(start, end.start() - _CONTEXT) : end.start()]
            after = text[end.end() : min(line.end(), end.end() + _CONTEXT)]
            if _ends_sentence(before, end.group(), after, rules):
                found.append((start, end.end()))
                start = end.end()
        found.append((start, line.end()))
    return [(a, b) for a, b in (_trim(text, *each) for each in found) if a < b]


def _ends_sentence(before: str, mark: str, after: str, rules: Rules) -> bool:
    """Whether the mark between the sentence so far and the rest of the line ends the sentence."""
    opener = _OPENERS.match(after)
    first = after[opener.end() : opener.end() + 1] if opener else ""
    if first.islower():
        return False
    if mark != ".":
        return True
    words = before.split()
    if not words:
        return False
    word = words[-1].lstrip("\"'«“‘„([")
    if _NUMBER.fullmatch(word) and len(words) <= 2 or word.isdigit() and rules.ordinals:
        return False  # "1. Open the lid" and "Figure 4.2. A lid" are numbered; "3. Oktober" is an ordinal
    if len(word) == 1 and word.isupper() and word != "I":
        return False  # an initial
    lower = word.lower()
    if lower in rules.abbreviations or _ACRONYM.fullmatch(lower):
        return False
    return not (lower in rules.numbered and first.isdigit())


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end
