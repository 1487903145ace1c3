"""The converter itself: every page of a site becomes a document of a corpus, everything left out is counted."""

import json
import os
import platform
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import PIL
from tqdm import tqdm

from data.convert.article import Article, assemble
from data.convert.encodings import decode
from data.convert.html import parse
from data.convert.mmc4 import Mmc4Shards
from data.convert.obelics import ObelicsShards
from data.convert.site import Found, PictureRules, Site, Skip, Unusable
from data.errors import CorpusError

CONVERTER_VERSION = 1
Format = Literal["mmc4", "obelics"]


class Shards(Protocol):
    """Writes the documents of a format, one shard at a time."""

    def add(self, url: str, article: Article) -> None:
        """Add a document, and its images to the shard."""

    def end(self) -> None:
        """Finish the shard, which holds at least one document."""


SHARDS: Mapping[Format, Callable[[Path, Site], Shards]] = {"mmc4": Mmc4Shards, "obelics": ObelicsShards}

_WHY = {
    Skip.OUTSIDE_SITE: "the file lies outside SITE (links followed)",
    Skip.UNREADABLE: "cannot be opened or unpacked",
    Skip.TOO_LARGE: "larger than the size limit",
    Skip.SAME_FILE: "a link to a page already read",
    Skip.NO_IMAGE: "no image left on the page",
    Skip.TOO_SHORT: "fewer words than --min-words",
    Skip.NO_ADDRESS: "an <img> that names no file",
    Skip.BAD_ADDRESS: "an address that cannot be read",
    Skip.REMOTE: "on the web, not in SITE; --urls can map it to a file",
    Skip.MISSING: "no such file in SITE",
    Skip.FORMAT: "not one of --formats (SVG cannot be read)",
    Skip.UNDECODABLE: "not an image, or damaged",
    Skip.TOO_SMALL: "a side shorter than --min-side",
    Skip.ASPECT: "longer than --max-aspect allows",
    Skip.DUPLICATE: "already on the same page",
    Skip.NAME_COLLISION: "its name is taken by another image",
}


@dataclass(frozen=True)
class Settings:
    """What is kept, and how it is written; the defaults are those of OBELICS."""

    to: Format = "mmc4"
    pictures: PictureRules = PictureRules()
    keep_duplicates: bool = False  # the same picture again on one page
    min_words: int = 10
    docs_per_shard: int = 1000
    language: str = "en"


@dataclass
class Tally:
    """Everything that was counted on the way; it becomes the manifest and the summary."""

    counts: Counter[str] = field(default_factory=Counter)
    pages: Counter[Skip] = field(default_factory=Counter)
    images: Counter[Skip] = field(default_factory=Counter)
    encodings: Counter[str] = field(default_factory=Counter)


class NothingKept(CorpusError):
    """The site was read, and no document is left."""


def convert(site: Site, out: Path, settings: Settings) -> Tally:
    """Write the corpus of a site to `out`, whole or not at all.

    Raises:
        CorpusError: `out` is not empty or a partial result lies beside it, or the site has no pages.
        NothingKept: no page has an image and text that pass the filters.
    """
    out = out.absolute()
    partial = out.with_name(f"{out.name}.partial")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CorpusError(f"{out} exists and is not an empty folder; give another OUT, or delete it first")
    if partial.exists():
        raise CorpusError(
            f"{partial} is left over from a conversion that was killed, or one is running; delete it first"
        )
    names, skipped = site.pages()
    if not names:
        raise CorpusError(
            f"{site.folder} holds no .html, .htm or .xhtml files (packed with .gz or not); nothing to convert"
        )
    tally = Tally()
    tally.counts["pages"] = len(names) + len(skipped)
    tally.pages.update(skip for _, skip in skipped)
    partial.mkdir(parents=True)
    try:
        writer = _Writer(partial, site, settings, tally)
        for name in tqdm(names, unit="page", desc="converting", disable=None):  # None: only on a terminal
            writer.add(name)
        writer.end_shard()
        if not tally.counts["documents"]:
            raise NothingKept(
                f"none of the {len(names)} pages of {site.folder} has an image and text to keep. {_top(tally)}"
            )
        (partial / "manifest.json").write_text(json.dumps(manifest(tally, settings), indent=1) + "\n")
        os.replace(partial, out)
    except BaseException:  # an interrupt too: nothing half-written stays behind
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return tally


class _Writer:
    """Documents and images of the shard being written."""

    def __init__(self, folder: Path, site: Site, settings: Settings, tally: Tally) -> None:
        self._site, self._settings, self._tally = site, settings, tally
        self._shards = SHARDS[settings.to](folder, site)
        self._documents = 0  # in this shard
        self._urls: dict[str, str] = {}  # image name -> address, in this shard

    def add(self, name: str) -> None:
        """Read one page; write its document when it has one."""
        try:
            text, how = decode(self._site.read_page(name))
        except Unusable as unusable:
            self._tally.pages[unusable.skip] += 1
            return
        self._tally.encodings[how] += 1
        page = parse(text)
        seen: set[str] = set()
        article = assemble(
            page.blocks, lambda sources: self._choose(name, page.base, sources, seen), self._settings.language
        )
        if not article.images:
            self._tally.pages[Skip.NO_IMAGE] += 1
        elif not article.sentences or article.words < self._settings.min_words:
            self._tally.pages[Skip.TOO_SHORT] += 1
        else:
            self._write(name, article)

    def end_shard(self) -> None:
        """Write out the documents collected so far."""
        if not self._documents:
            return
        self._shards.end()
        self._tally.counts["shards"] += 1
        self._documents, self._urls = 0, {}

    def _choose(self, page: str, base: str | None, candidates: Sequence[str], seen: set[str]) -> Found | None:
        """The first candidate that passes; the reason counted for an image is that of its first candidate.

        `seen` holds the hashes of the images kept from this page.
        """
        self._tally.counts["image_tags"] += 1
        reasons: list[Skip] = []
        for candidate in candidates:
            try:
                found = self._site.picture(self._site.address(page, base, candidate), self._settings.pictures)
                if found.sha1 in seen and not self._settings.keep_duplicates:
                    raise Unusable(Skip.DUPLICATE)
                if self._urls.get(found.image_name, found.url) != found.url:
                    raise Unusable(Skip.NAME_COLLISION)
                seen.add(found.sha1)
                return found
            except Unusable as unusable:
                reasons.append(unusable.skip)
        self._tally.images[reasons[0] if reasons else Skip.NO_ADDRESS] += 1
        return None

    def _write(self, page: str, article: Article) -> None:
        self._shards.add(self._site.page_url(page), article)
        self._documents += 1
        self._urls |= {placed.found.image_name: placed.found.url for placed in article.images}
        self._tally.counts.update(
            documents=1, images=len(article.images), sentences=len(article.sentences), words=article.words
        )
        if self._documents == self._settings.docs_per_shard:
            self.end_shard()


def manifest(tally: Tally, settings: Settings) -> dict[str, Any]:
    """What was made and how, without anything that changes between two runs on the same input."""
    return {
        "format": settings.to,
        "converter_version": CONVERTER_VERSION,
        "versions": {"python": platform.python_version(), "pillow": PIL.__version__},
        "similarity": None,
        "sim_threshold": None,  # what the reader must be told: there are no scores to compare with
        "counts": dict(sorted(tally.counts.items())),
        "skipped": {"pages": dict(sorted(tally.pages.items())), "images": dict(sorted(tally.images.items()))},
        "decoded_as": dict(sorted(tally.encodings.items())),
        "filters": {
            "formats": sorted(settings.pictures.formats),
            "min_side": settings.pictures.min_side,
            "max_aspect": settings.pictures.max_aspect,
            "keep_duplicates": settings.keep_duplicates,
            "min_images": 1,
            "min_words": settings.min_words,
        },
        "docs_per_shard": settings.docs_per_shard,
        "language": settings.language,
    }


def summary(tally: Tally) -> str:
    """The counts as a small table: what was kept, then what was left out and why."""
    counts = tally.counts
    rows = [
        (
            "pages read",
            counts["pages"],
            "decoded as " + ", ".join(f"{k} {v}" for k, v in sorted(tally.encodings.items())),
        ),
        ("documents", counts["documents"], f"in {counts['shards']} shard(s)"),
        ("images kept", counts["images"], f"of {counts['image_tags']} <img> tags"),
        ("sentences", counts["sentences"], f"{counts['words']:,} words"),
    ]
    for what, skips in (("page", tally.pages), ("image", tally.images)):
        rows += [(f"{what} skipped: {skip}", number, _WHY[skip]) for skip, number in skips.most_common()]
    width = max(len(name) for name, _, _ in rows)
    return "\n".join(f"{name:<{width}}  {number:>9,}  {note}" for name, number, note in rows)


def _top(tally: Tally) -> str:
    """The commonest reason, in a few words."""
    if not tally.images and not tally.counts["image_tags"]:
        return "No page shows an image"
    what, skips = ("images", tally.images) if tally.images else ("pages", tally.pages)
    skip, number = skips.most_common(1)[0]
    return f"Most {what} were left out as {skip!s} ({number}): {_WHY[skip]}"
