"""The text of a page from its bytes, by the names of encodings as browsers take them."""

import codecs
import re
import unicodedata
from typing import Literal

Decoded = Literal["bom", "declared", "utf-8", "repaired", "cp1252"]

_BOMS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
_DECLARED = re.compile(rb"""(?:charset|<\?xml[^>]*\bencoding)\s*=\s*["']?\s*([A-Za-z0-9_.:-]{1,40})""", re.IGNORECASE)
# What browsers take a declared name for (WHATWG Encoding Standard, "Names and labels"), where Python's codec of that
# name is stricter: pages declare the old set and use characters of its superset.
_SUPERSETS = {
    **dict.fromkeys(("iso8859-1", "ascii"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    **dict.fromkeys(("shift_jis", "shift_jisx0213", "shift_jis_2004"), "cp932"),
    "euc_kr": "cp949",
    "iso8859-9": "cp1254",
    **dict.fromkeys(("iso8859-11", "tis-620"), "cp874"),
    "big5": "big5hkscs",
}
# Labels of the standard that Python does not know.
_LABELS = {
    **dict.fromkeys(("x-sjis", "windows-31j"), "cp932"),
    **dict.fromkeys(("x-gbk", "gb_2312-80", "csgb2312"), "gb18030"),
    **dict.fromkeys(("x-x-big5", "cn-big5"), "big5hkscs"),
    **dict.fromkeys(("windows-949", "korean"), "cp949"),
    **dict.fromkeys(("windows-874", "dos-874"), "cp874"),
    "x-euc-jp": "euc_jp",
    "x-cp1252": "cp1252",
    "x-cp1251": "cp1251",
    "x-mac-roman": "mac-roman",
    "iso-8859-8-i": "iso8859-8",
    "unicode-1-1-utf-8": "utf-8",
}
_REPAIRED = 1 / 8  # of the characters that are not ASCII may be broken for the encoding still to be believed
_HEAD_BYTES = 2048  # a declaration further down is not looked for

# Text encodings to Python that no web page means.
_NOT_FOR_PAGES = frozenset(("unicode_escape", "raw_unicode_escape", "idna", "punycode", "undefined", "utf_7"))


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
        except (UnicodeError, LookupError):  # LookupError: a codec between bytes and bytes, such as "hex"
            continue
    for encoding, _ in candidates:
        text = _repaired(raw, encoding)
        if text is not None:
            return normal(text), "repaired"
    return normal(raw.decode("cp1252", errors="replace")), "cp1252"


def normal(text: str) -> str:
    """The text in Unicode's composed form (NFC)."""
    return unicodedata.normalize("NFC", text)


def _codec(name: str) -> str | None:
    """The encoding a page means by a name; None where Python has none, or one that no page means."""
    try:
        encoding = codecs.lookup(_LABELS.get(name.lower(), name)).name
    except LookupError:
        return None
    encoding = _SUPERSETS.get(encoding, encoding)
    if encoding.replace("-", "_") in _NOT_FOR_PAGES or encoding.startswith(("utf-16", "utf-32")):
        return None
    return encoding


def _repaired(raw: bytes, encoding: str) -> str | None:
    """`raw` with its broken characters replaced, None when they are too many for this to be its encoding."""
    try:
        text = raw.decode(encoding, errors="replace")
    except (UnicodeError, LookupError):
        return None
    broken = text.count("\ufffd")
    good = len(text) - broken - sum(map(str.isascii, text))
    return text if broken <= _REPAIRED * (good + broken) else None
