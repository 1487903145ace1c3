"""The pages and pictures of a folder that holds a web site, and nothing outside that folder.

Addresses are joined as a browser would, with the folder as the root of the site. A file is read only when, with all
symbolic links followed, it still lies in the folder; nothing is ever fetched.
"""

import hashlib
import os
import zlib
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urljoin, urlsplit

from data.document import Cause
from data.errors import BadImage, CorpusError
from data.images import open_image

PAGE_SUFFIXES = (".html", ".htm", ".xhtml")
MAX_PAGE_BYTES = 16 * 2**20
MAX_PICTURE_BYTES = 64 * 2**20
_SIGNATURES = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "gif": b"GIF8", "bmp": b"BM"}
FORMATS = (*_SIGNATURES, "webp")


class Skip(StrEnum):
    """Why a page or a picture is left out; every one is counted."""

    OUTSIDE_SITE = "outside_site"
    UNREADABLE = "unreadable"
    TOO_LARGE = "too_large"
    SAME_FILE = "same_file"
    NO_IMAGE = "no_image"
    TOO_SHORT = "too_short"
    NO_ADDRESS = "no_address"
    BAD_ADDRESS = "bad_address"
    REMOTE = "remote"
    MISSING = "missing"
    FORMAT = "format"
    UNDECODABLE = "undecodable"
    TOO_SMALL = "too_small"
    ASPECT = "aspect"
    DUPLICATE = "duplicate"
    NAME_COLLISION = "name_collision"


class Unusable(Exception):
    """A page or picture that is left out, with the reason under which it is counted."""

    def __init__(self, skip: Skip) -> None:
        super().__init__(skip.value)
        self.skip = skip


@dataclass(frozen=True)
class PictureRules:
    """What a picture must be like to be kept; the defaults are those of OBELICS."""

    formats: frozenset[str] = frozenset(("jpg", "png", "webp"))
    min_side: int = 150  # pixels
    max_aspect: float = 2.0  # longer side over shorter side


@dataclass(frozen=True)
class Found:
    """A picture that may be kept."""

    url: str  # "file:///images/a.png" with the site's folder as root; for a data: URI its type and hash
    address: str = field(repr=False)  # what Site.read takes
    sha1: str  # of its bytes
    suffix: str  # of its real format
    width: int
    height: int

    @property
    def address_sha1(self) -> str:
        """SHA-1 of the address as it is written out."""
        return hashlib.sha1(self.url.encode()).hexdigest()

    @property
    def image_name(self) -> str:
        """The file name in MMC4: 12 hexadecimal digits of the address's SHA-1, and the real format."""
        return f"{self.address_sha1[:12]}.{self.suffix}"


class Site:
    """A folder of pages. `table` maps addresses on the web to files of the folder, relative to it."""

    def __init__(self, folder: Path, table: Mapping[str, str] | None = None) -> None:
        if not folder.is_dir():
            raise CorpusError(f"{folder} is not a folder; give the folder that holds the .html files")
        self.folder = folder.resolve()
        self._table = dict(table or {})
        self._root = self.folder.as_uri().rstrip("/") + "/"
        self._checked: dict[str, Found | Skip] = {}  # a logo stands on every page and is opened once

    def pages(self) -> tuple[list[str], list[tuple[str, Skip]]]:
        """Paths of the pages relative to the folder, sorted; and of those left out because of where they lead."""
        names: list[str] = []
        skipped: list[tuple[str, Skip]] = []
        for folder, _, files in os.walk(self.folder, onerror=lambda e: skipped.append((e.filename, Skip.UNREADABLE))):
            for file in files:
                if file.lower().removesuffix(".gz").endswith(PAGE_SUFFIXES):
                    names.append((Path(folder) / file).relative_to(self.folder).as_posix())
        kept: list[str] = []
        seen: set[Path] = set()
        for name in sorted(names, key=os.fsencode):
            try:
                path = self._inside(self.folder / name)
            except Unusable as unusable:
                skipped.append((name, unusable.skip))
                continue
            if path in seen:
                skipped.append((name, Skip.SAME_FILE))
            else:
                seen.add(path)
                kept.append(name)
        return kept, skipped

    def read_page(self, name: str) -> bytes:
        """The bytes of a page, unpacked. Raises Unusable: unreadable, too_large, outside_site."""
        data = self._read(self.folder / name, MAX_PAGE_BYTES, absent=Skip.UNREADABLE)
        if not name.lower().endswith(".gz"):
            return data
        try:
            unpacker = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
            data = unpacker.decompress(data, MAX_PAGE_BYTES + 1)
        except zlib.error as error:
            raise Unusable(Skip.UNREADABLE) from error
        if len(data) > MAX_PAGE_BYTES:
            raise Unusable(Skip.TOO_LARGE)
        if not unpacker.eof:
            raise Unusable(Skip.UNREADABLE)
        return data

    def page_url(self, name: str) -> str:
        """The address of a page as it is written out: "file:///" and its path in the folder."""
        return "file:///" + quote(os.fsencode(name))

    def address(self, page: str, base: str | None, source: str) -> str:
        """The absolute address of what `source` names on a page with that <base href>. Raises Unusable: bad_address."""
        try:
            here = self._root + quote(os.fsencode(page))
            return self._join(self._join(here, base) if base else here, source)
        except ValueError as error:  # such as an unclosed [ in the host
            raise Unusable(Skip.BAD_ADDRESS) from error

    def read(self, address: str) -> bytes:
        """The bytes behind an address. Raises Unusable: remote, outside_site, missing, too_large, bad_address."""
        if address[:5].lower() == "data:":
            return _data_uri(address)
        address = address.split("#", 1)[0]
        if address in self._table:
            return self._read(self.folder / self._table[address], MAX_PICTURE_BYTES, absent=Skip.MISSING)
        try:
            parts = urlsplit(address)
        except ValueError as error:
            raise Unusable(Skip.BAD_ADDRESS) from error
        if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
            raise Unusable(Skip.REMOTE)
        path = Path(os.fsdecode(unquote_to_bytes(parts.path)))
        return self._read(path, MAX_PICTURE_BYTES, absent=Skip.MISSING)

    def picture(self, address: str, rules: PictureRules) -> Found:
        """Open and judge a picture. Raises Unusable with the first rule it breaks."""
        result = self._checked.get(address)
        if result is None:
            try:
                result = self._judge(address, rules)
            except Unusable as unusable:
                result = unusable.skip
            if address[:5].lower() != "data:":
                self._checked[address] = result
        if isinstance(result, Skip):
            raise Unusable(result)
        return result

    def _judge(self, address: str, rules: PictureRules) -> Found:
        data = self.read(address)
        suffix = _sniff(data)
        if suffix is None and address.rsplit(".", 1)[-1].lower() in rules.formats:
            raise Unusable(Skip.UNDECODABLE)  # such as a page of HTML saved as .jpg
        if suffix is None or suffix not in rules.formats:
            raise Unusable(Skip.FORMAT)
        try:
            width, height = open_image(data).size
        except BadImage as error:
            raise Unusable(Skip.TOO_LARGE if error.cause is Cause.OVERSIZE else Skip.UNDECODABLE) from error
        if min(width, height) < rules.min_side:
            raise Unusable(Skip.TOO_SMALL)
        if max(width, height) > rules.max_aspect * min(width, height):
            raise Unusable(Skip.ASPECT)
        return Found(self._public(address, data), address, hashlib.sha1(data).hexdigest(), suffix, width, height)

    def _public(self, address: str, data: bytes) -> str:
        """The address without the place of the folder on this machine; a data: URI shortened to type and hash."""
        if address[:5].lower() == "data:":
            kind = address[5:].split(",", 1)[0].split(";", 1)[0]
            return f"data:{kind};sha256,{hashlib.sha256(data).hexdigest()}"
        return "file:///" + address.removeprefix(self._root) if address.startswith(self._root) else address

    def _join(self, here: str, reference: str) -> str:
        reference = "".join(reference.split()) if reference[:5].lower() == "data:" else reference.strip()
        if reference.startswith("/") and not reference.startswith("//") and here.startswith("file:"):
            return self._root + reference.lstrip("/")  # the folder is the root of the site
        return urljoin(here, reference)

    def _inside(self, path: Path) -> Path:
        """The file itself, with links followed. Raises Unusable: outside_site."""
        try:
            real = path.resolve()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a name too long, a null byte
            raise Unusable(Skip.BAD_ADDRESS) from error
        if not real.is_relative_to(self.folder):
            raise Unusable(Skip.OUTSIDE_SITE)
        return real

    def _read(self, path: Path, limit: int, absent: Skip) -> bytes:
        real = self._inside(path)
        try:
            if not real.is_file():
                raise Unusable(absent)
            with real.open("rb") as file:
                data = file.read(limit + 1)
        except (OSError, ValueError) as error:  # ValueError: a null byte, where resolving let it pass
            raise Unusable(absent) from error
        if len(data) > limit:
            raise Unusable(Skip.TOO_LARGE)
        return data


def _sniff(data: bytes) -> str | None:
    """The format by its first bytes, whatever the file is called."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return next((name for name, signature in _SIGNATURES.items() if data.startswith(signature)), None)


def _data_uri(address: str) -> bytes:
    head, comma, body = address.partition(",")
    raw = unquote_to_bytes(body)
    try:
        data = b64decode(raw + b"=" * (-len(raw) % 4), validate=True) if head.lower().endswith(";base64") else raw
    except ValueError as error:
        raise Unusable(Skip.BAD_ADDRESS) from error
    if not comma:
        raise Unusable(Skip.BAD_ADDRESS)
    return data
