"""From the text of a web page to its blocks of text and pictures in reading order.

Only the standard library's parser is used, and nothing a page contains makes it raise: unknown or unbalanced tags are
read as a browser would roughly read them.
"""

import re
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import groupby
from typing import NamedTuple

from data.convert.encodings import normal


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_VOID = _names("area base br col embed hr img input link meta param source track wbr")
_DROPPED = _names(
    "script style noscript template nav header footer iframe title svg select textarea button audio video canvas"
)
_BLOCKS = _names(
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption figure"
    " form h1 h2 h3 h4 h5 h6 head hgroup hr html li main menu ol optgroup option p pre search section summary table"
    " tbody tfoot thead tr ul"
)
_CELLS = frozenset(("td", "th"))
# An opening tag that closes an element of these names left open just before it.
_CLOSES = {
    "li": frozenset(("li", "p")),
    "dt": frozenset(("dt", "dd", "p")),
    "dd": frozenset(("dt", "dd", "p")),
    "tr": frozenset(("tr", "td", "th", "p")),
    "td": frozenset(("td", "th", "p")),
    "th": frozenset(("td", "th", "p")),
    "body": frozenset(("head", "title")),
}
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff]")
_SPACES = re.compile(r"\s+")
_LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_CANDIDATE = re.compile(r"[\s,]*([^\s,]\S*)")  # an address in a srcset attribute
_FORM_SHARE = 0.75  # of a page's text that stands in a form which is the page itself
_FORM_TEXT = 40  # characters that are more than a login says
_DEEPEST = 512  # open elements that are told apart, as in browsers; keeps hostile pages cheap


@dataclass(frozen=True)
class Picture:
    """An <img>: where its bytes may be, in order of preference, and what the page says about it."""

    sources: tuple[str, ...]  # as written in the page
    alt: str = ""
    title: str = ""
    figure: int | None = None  # number of the <figure> it stands in


@dataclass(frozen=True)
class Block:
    """A paragraph, heading, list item, table row or <pre>, with the pictures inside it in their places."""

    parts: tuple[str | Picture, ...]
    preformatted: bool = False
    figure: int | None = None  # number of the <figure> whose caption this is
    form: int | None = None  # number of the <form> it stands in

    @property
    def text(self) -> str:
        """The text alone; line breaks are those of <br> and <pre>."""
        return "".join(part for part in self.parts if isinstance(part, str))


@dataclass
class Page:
    """What a page shows, top to bottom."""

    blocks: list[Block] = field(default_factory=list)
    base: str | None = None  # <base href>


def parse(text: str) -> Page:
    """The blocks and pictures of a page. Any text is accepted."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    reader.finish()
    return reader.page


def _hidden(attributes: dict[str, str]) -> bool:
    style = attributes.get("style", "").replace(" ", "").lower()
    return "hidden" in attributes or "display:none" in style or "visibility:hidden" in style


def _largest(srcset: str) -> str | None:
    """The candidate of a srcset attribute with the largest width or density."""
    best: tuple[float, str] | None = None
    position = 0
    while match := _CANDIDATE.match(srcset, position):
        address, position = match.group(1), match.end()
        descriptor = ""
        if not address.endswith(","):  # commas inside an address belong to it: data: URIs and file names have them
            end = srcset.find(",", position)
            end = len(srcset) if end < 0 else end
            descriptor, position = srcset[position:end].strip(), end
        number = re.fullmatch(r"([0-9.]+)[wx]", descriptor)
        size = float(number.group(1)) if number and number.group(1).count(".") < 2 and number.group(1) != "." else 1.0
        if best is None or size > best[0]:
            best = (size, address.rstrip(","))
    return best[1] if best else None


class _Element(NamedTuple):
    """An open element, and what it or an element around it is."""

    tag: str
    hidden: bool = False
    pre: bool = False
    figure: bool = False
    figcaption: bool = False
    form: int | None = None


class _Reader(HTMLParser):
    """Builds a Page while the parser calls it; keeps the stack of open elements to know what is hidden or figure."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._open = [_Element("")]  # the innermost last; the first is the page
        self._parts: list[str | Picture] = []
        self._captions: list[Block] = []  # of the open figure: they follow its pictures, wherever they are written
        self._figure: int | None = None
        self._figures = 0
        self._forms = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in reversed(attrs)}  # of a repeated attribute the first counts
        if tag == "base" and self.page.base is None and attributes.get("href"):
            self.page.base = attributes["href"].strip()
        self._close_implied(tag)
        if tag in _BLOCKS:
            self._flush()
        around = self._open[-1]
        hidden = around.hidden or tag in _DROPPED or _hidden(attributes)
        if tag not in _VOID and len(self._open) < _DEEPEST:
            self._open.append(
                _Element(
                    tag,
                    hidden,
                    around.pre or tag == "pre",
                    around.figure or tag == "figure",
                    around.figcaption or tag == "figcaption",
                    around.form if tag != "form" or around.form is not None else self._next_form(),
                )
            )
        if hidden:
            return
        if tag == "br":
            self._parts.append("\n")
        elif tag in _CELLS:
            self._parts.append(" ")
        elif tag == "figure" and self._figure is None:
            self._figures += 1
            self._figure = self._figures
        elif tag == "img":
            self._add_picture(attributes)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        at = next((k for k in range(len(self._open) - 1, 0, -1) if self._open[k].tag == tag), None)
        if at is None:
            return  # closes nothing that is open
        if any(element.tag in _BLOCKS for element in self._open[at:]):
            self._flush()
        del self._open[at:]
        if self._figure is not None and not self._open[-1].figure:
            self._end_figure()

    def handle_data(self, data: str) -> None:
        if not self._open[-1].hidden:
            self._parts.append(_LINE_ENDS.sub("\n", data) if self._open[-1].pre else _SPACES.sub(" ", data))

    def parse_html_declaration(self, i: int) -> int:
        """As the parser, but "<![" starts a comment as in browsers; some versions of the parser raise on it."""
        if not self.rawdata.startswith("<![", i):
            return super().parse_html_declaration(i)
        return self.rawdata.find(">", i) + 1 or len(self.rawdata)

    def finish(self) -> None:
        """Write out what the end of the page left open, and leave out forms unless one of them holds the page."""
        self._flush()
        self._end_figure()
        sizes: Counter[int | None] = Counter({None: 0})
        for block in self.page.blocks:
            sizes[block.form] += len(block.text)
        # Whole sites stand in one form (ASP.NET): then the form is the page, else it is a search box or a login.
        kept: set[int | None] = {None}
        form, size = sizes.most_common(1)[0]
        if size > max(_FORM_SHARE * sizes.total(), _FORM_TEXT):
            kept.add(form)
        self.page.blocks = [block for block in self.page.blocks if block.form in kept]

    def _next_form(self) -> int:
        self._forms += 1
        return self._forms

    def _close_implied(self, tag: str) -> None:
        """Close what HTML lets an author leave open: a <p> before a block, a <li> before the next one, and so on."""
        closes = _CLOSES.get(tag, frozenset(("p",)) if tag in _BLOCKS else frozenset())
        while self._open[-1].tag in closes:
            self.handle_endtag(self._open[-1].tag)

    def _add_picture(self, attributes: dict[str, str]) -> None:
        named = [attributes.get(name, "").strip() for name in ("src", "data-src", "data-original", "data-lazy-src")]
        named.append(_largest(attributes.get("srcset", "")) or "")
        sources = tuple(dict.fromkeys(each for each in named if each))
        alt, title = (_one_line(attributes.get(name, "")) for name in ("alt", "title"))
        self._parts.append(Picture(sources, alt, title, self._figure))

    def _flush(self) -> None:
        """End the paragraph."""
        preformatted = self._open[-1].pre
        parts = _clean(self._parts, preformatted)
        self._parts = []
        if not parts:
            return
        if self._figure is not None and self._open[-1].figcaption:
            self._captions.append(Block(parts, preformatted, self._figure, self._open[-1].form))
        else:
            self.page.blocks.append(Block(parts, preformatted, form=self._open[-1].form))

    def _end_figure(self) -> None:
        self.page.blocks.extend(self._captions)
        self._captions = []
        self._figure = None


def _one_line(text: str) -> str:
    return _SPACES.sub(" ", _INVISIBLE.sub("", normal(text))).strip()


def _clean(parts: list[str | Picture], preformatted: bool) -> tuple[str | Picture, ...]:
    """Neighbouring strings joined, white space as a page shows it; () when nothing visible is left."""
    joined: list[str | Picture] = []
    for is_text, group in groupby(parts, key=lambda part: isinstance(part, str)):
        if is_text:
            joined.append(_INVISIBLE.sub("", normal("".join(str(part) for part in group))))
        else:
            joined.extend(group)
    before = "\n"  # the character shown last, across pictures
    for k, part in enumerate(joined):
        if isinstance(part, str):
            if not preformatted:
                part = re.sub(r" *\n *", "\n", re.sub(" +", " ", part))
                part = part.lstrip(" ") if before in " \n" else part
            joined[k] = part
            before = part[-1:] or before
    texts = [k for k, part in enumerate(joined) if isinstance(part, str)]
    if texts:
        joined[texts[0]] = str(joined[texts[0]]).lstrip("\n" if preformatted else " \n")
        joined[texts[-1]] = str(joined[texts[-1]]).rstrip()
    return tuple(part for part in joined if part != "")
