"""A page as a document: sentences, the pictures between them, and the sentence each picture belongs to.

Our choice: what a page says about a picture (alt, title) follows it as text, a
<figcaption> follows its figure, and without similarity scores a picture is matched with the sentence nearest in reading
order, the preceding one on ties. Text written for another picture is not a candidate.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data.convert.html import Block, Picture
from data.convert.sentences import UNSPACED, spans
from data.convert.site import Found

# A word: a run of letters and digits, or one character of a script that writes no spaces.
_NO_SPACES = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_NO_SPACES}]|[^\W_{_NO_SPACES}]+")


@dataclass(frozen=True)
class Sentence:
    """A sentence, and for whom it was written when that is not everyone."""

    text: str
    paragraph: int  # equal for sentences of one
    image: int | None = None  # it is the alt or title of this image
    figure: int | None = None  # it is the caption of this figure


@dataclass(frozen=True)
class Placed:
    """A kept picture in its place."""

    picture: Picture
    found: Found
    before: int  # number of sentences before it
    inside: int | None  # the sentence it interrupts; it is placed right after that one


@dataclass(frozen=True)
class Article:
    """A page's sentences and kept pictures, both in reading order."""

    sentences: tuple[Sentence, ...]
    images: tuple[Placed, ...]
    words: int  # of the page's own text, without alt and title

    def anchors(self) -> list[int]:
        """The sentence each picture belongs to."""
        places = [k + sum(placed.before <= k for placed in self.images) for k in range(len(self.sentences))]
        return [self._anchor(image, places) for image in range(len(self.images))]

    def record(self, url: str) -> dict[str, Any]:
        """The line of a jsonl shard. `dom_order` is, for each image, the number of sentences before it on the page."""
        images = [
            {
                "image_name": placed.found.image_name,
                "raw_url": placed.found.url,
                "matched_text_index": anchor,
                "matched_sim": None,
                "face_detections": None,
                "width": placed.found.width,
                "height": placed.found.height,
                "alt_text": placed.picture.alt,
                "title": placed.picture.title,
            }
            for placed, anchor in zip(self.images, self.anchors(), strict=True)
        ]
        return {
            "url": url,
            "text_list": [sentence.text for sentence in self.sentences],
            "image_info": images,
            "similarity_matrix": None,
            "could_have_url_duplicate": 0,
            "dom_order": [placed.before for placed in self.images],
        }

    def nodes(self) -> list["str | Placed"]:
        """Texts and pictures in reading order, as OBELICS has them: paragraphs of a text have a blank line between."""
        nodes: list[str | Placed] = []
        at = 0
        for placed in self.images:
            nodes += [*_text(self.sentences[at : placed.before]), placed]
            at = placed.before
        return nodes + _text(self.sentences[at:])

    def _anchor(self, image: int, places: Sequence[int]) -> int:
        placed = self.images[image]
        if placed.inside is not None:
            return placed.inside
        here = placed.before + image
        all_of_them = range(len(self.sentences))
        free = [k for k in all_of_them if self._may_match(self.sentences[k], image)]
        return min(free or all_of_them, key=lambda k: (abs(places[k] - here), k))

    def _may_match(self, sentence: Sentence, image: int) -> bool:
        if sentence.figure is not None:
            return sentence.figure == self.images[image].picture.figure
        return sentence.image in (None, image)


def _text(sentences: Sequence[Sentence]) -> list[str]:
    """The text of some sentences, if any: those of a paragraph behind one another."""
    text, last = "", -1
    for sentence in sentences:
        same = sentence.paragraph == last
        between = "" if not text or (same and text[-1] in UNSPACED) else " " if same else "\n\n"
        text += between + sentence.text
        last = sentence.paragraph
    return [text] if text else []


def assemble(blocks: Sequence[Block], choose: Callable[[Sequence[str]], Found | None], language: str) -> Article:
    """Split the blocks of a page into sentences and put the pictures that `choose` accepts between them."""
    sentences: list[Sentence] = []
    images: list[Placed] = []
    words = 0
    texts = [block.text for block in blocks]
    for number, block in enumerate(blocks):
        words += len(_WORD.findall(texts[number]))
        pictures = _chosen(block, choose)
        for start, end in _spans(texts[number], block.preformatted, language):
            while pictures and pictures[0][0] <= start:
                _place(pictures.pop(0), None, sentences, images, _nearby(texts, number), language)
            own = len(sentences)
            sentences.append(Sentence(texts[number][start:end], number, figure=block.figure))
            while pictures and pictures[0][0] < end:
                _place(pictures.pop(0), own, sentences, images, _nearby(texts, number), language)
        for each in pictures:
            _place(each, None, sentences, images, _nearby(texts, number), language)
    return Article(tuple(sentences), tuple(images), words)


def _chosen(block: Block, choose: Callable[[Sequence[str]], Found | None]) -> list[tuple[int, Picture, Found]]:
    """(characters before it, picture, file) of the pictures of a block that are kept."""
    chosen = []
    offset = 0
    for part in block.parts:
        if isinstance(part, str):
            offset += len(part)
        elif (found := choose(part.sources)) is not None:
            chosen.append((offset, part, found))
    return chosen


def _place(
    chosen: tuple[int, Picture, Found],
    inside: int | None,
    sentences: list[Sentence],
    images: list[Placed],
    nearby: str,
    language: str,
) -> None:
    """Append a picture and, as sentences after it, what its alt and title say that the page does not say beside it."""
    _, picture, found = chosen
    image = len(images)
    images.append(Placed(picture, found, len(sentences), inside))
    names = {source.rsplit("/", 1)[-1].lower() for source in picture.sources}
    names |= {name.rsplit(".", 1)[0] for name in names}
    said = nearby
    for text in (picture.alt, picture.title):
        lower = text.lower()
        if lower in names or lower in said or not any(character.isalpha() for character in text):
            continue
        sentences += [Sentence(text[start:end], -1 - image, image=image) for start, end in spans(text, language)]
        said += "\n" + lower


def _nearby(texts: Sequence[str], number: int) -> str:
    """The text of a block and of the few around it, captions among them, in lower case."""
    before = [text for text in texts[max(0, number - 10) : number] if text][-3:]
    after = [text for text in texts[number + 1 : number + 11] if text][:3]
    return "\n".join((*before, texts[number], *after)).lower()


def _spans(text: str, preformatted: bool, language: str) -> list[tuple[int, int]]:
    """Sentences of a paragraph; of a <pre> the parts between blank lines, which are not prose."""
    if not preformatted:
        return spans(text, language)
    return [match.span() for match in re.finditer(r"\S[^\n]*(?:\n[^\S\n]*\S[^\n]*)*", text)]
