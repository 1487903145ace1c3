"""The text of a page from its bytes, by the names of encodings as browsers take them (WHATWG Encoding Standard)."""

import codecs
import re
import unicodedata
from typing import Literal

import webencodings

Decoded = Literal["bom", "declared", "utf-8", "repaired", "cp1252"]

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_DECLARED = re.compile(rb"""(?:charset|<\?xml[^>]*\bencoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
_REPAIRED = 1 / 8  # of the characters that are not ASCII may be broken for the encoding still to be believed
_HEAD_BYTES = 2048  # a declaration further down is not looked for

# Encodings of the standard in which no page can declare itself, or no text is.
_NOT_FOR_PAGES = frozenset(("utf-16le", "utf-16be", "replacement", "x-user-defined"))


def decode(raw: bytes) -> tuple[str, Decoded]:
    """The text of a page and how it was found; never raises.

    By byte order mark, declaration or as UTF-8, without a fault; then by declaration or as UTF-8 with its few broken
    characters replaced by U+FFFD ("repaired"); else as cp1252.
    """
    for bom, encoding in _BOMS:
        if raw.startswith(bom):
            return normal(raw[len(bom) :].decode(encoding, errors="replace")), "bom"
    match = _DECLARED.search(raw, 0, _HEAD_BYTES)
    declared = _codec(match.group(1).decode("ascii")) if match else None
    candidates: list[tuple[str, Decoded]] = [(declared, "declared")] if declared else []
    candidates.append(("utf-8", "utf-8"))
    for encoding, how in candidates:
        try:
            return normal(raw.decode(encoding)), how
        except UnicodeError:
            continue
    for encoding, _ in candidates:
        text = _repaired(raw, encoding)
        if text is not None:
            return normal(text), "repaired"
    return normal(raw.decode("cp1252", errors="replace")), "cp1252"


def normal(text: str) -> str:
    """The text in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", text)


def _codec(label: str) -> str | None:
    """Python's codec for what a page declares; None for a name that no browser knows, or no page can mean."""
    encoding = webencodings.lookup(label)
    if encoding is None or encoding.name in _NOT_FOR_PAGES:
        return None
    # The standard decodes gbk by its superset, webencodings by Python's codec of that name.
    return "gb18030" if encoding.name == "gbk" else str(encoding.codec_info.name)


def _repaired(raw: bytes, encoding: str) -> str | None:
    """`raw` with its broken characters replaced, None when they are too many for this to be its encoding."""
    text = raw.decode(encoding, errors="replace")
    broken = text.count("\ufffd")
    good = len(text) - broken - sum(map(str.isascii, text))
    return text if broken <= _REPAIRED * (good + broken) else None
