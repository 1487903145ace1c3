"""Where the images of OBELICS lie: the corpus names them by address only, so that is how they are found.

images/00000.tar, images/<part>/00000.tar    as img2dataset writes them, the address in the .json beside each picture
images/<name>.jpg, images/<xx>/<name>.jpg    the name made of the address in one of the ways of `NAMES`, any suffix of a
                                             picture or none, <xx> the first two characters of the name
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from data.document import Cause
from data.errors import BadImage, CorpusError
from data.files import FileBytes, SpanBytes
from data.readers.mmc4_images import MIN_HIT_RATE, TarImages
from data.readers.tars import tar_paths

SUFFIXES = ("", ".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
NAMES: Mapping[str, Callable[[str], str]] = {
    "SHA-1 of the address": lambda url: hashlib.sha1(url.encode()).hexdigest(),
    "SHA-256 of the address": lambda url: hashlib.sha256(url.encode()).hexdigest(),
    "MD5 of the address": lambda url: hashlib.md5(url.encode(), usedforsecurity=False).hexdigest(),
    "the address, percent-encoded": lambda url: quote(url, safe=""),
}
Locate = Callable[[str], Callable[[], bytes]]  # from an address to what reads the bytes


class Place(NamedTuple):
    """A way in which the images may lie, and which share of the probed ones was found there."""

    name: str
    hit_rate: float
    locate: Locate


@dataclass(frozen=True)
class Absent:
    """An image that is nowhere."""

    url: str

    def __call__(self) -> bytes:
        """Raises BadImage: missing_image."""
        raise BadImage(Cause.MISSING_IMAGE, f"{self.url}: not among the images")


@dataclass(frozen=True)
class NamedImages:
    """Files named after addresses."""

    folder: Path
    name: str  # key of NAMES

    def find(self, url: str) -> FileBytes | None:
        """What reads the file of an address; None where there is none."""
        name = NAMES[self.name](url)
        for stem in (name, f"{name[:2]}/{name}"):
            for suffix in SUFFIXES:
                try:
                    if (self.folder / f"{stem}{suffix}").is_file():
                        return FileBytes(self.folder, f"{stem}{suffix}")
                except OSError:  # longer than a file name can be
                    return None
        return None

    def __call__(self, url: str) -> Callable[[], bytes]:
        """As `Locate`."""
        return _Later(self, url)


@dataclass(frozen=True)
class _Later:
    """Looks for a file when it is wanted: most images of a document are never read."""

    images: NamedImages
    url: str

    def __call__(self) -> bytes:
        return (self.images.find(self.url) or Absent(self.url))()


@dataclass(frozen=True)
class _Packed:
    """Images in tars."""

    images: TarImages

    def __call__(self, url: str) -> SpanBytes | Absent:
        """As `Locate`."""
        return self.images.find("address", url) or Absent(url)


def find_images(images: Path, urls: Sequence[str], cache: Path | None, processes: int) -> Place:
    """The way in which most of the probed images lie.

    Args:
        images: the folder.
        urls: addresses to look for.
        cache: folder for the index of tars.
        processes: how many processes read tars.

    Raises:
        CorpusError: hardly any image is found in any way; says what was tried.
    """
    places = []
    for name in NAMES:
        named = NamedImages(images, name)
        places.append(Place(name, _share([named.find(url) is not None for url in urls]), named))
    if max(place.hit_rate for place in places) < MIN_HIT_RATE and (tars := tar_paths(images)):
        packed = _Packed(TarImages(images, tars, cache, processes))
        places.append(Place("tars, by address", _share([isinstance(packed(url), SpanBytes) for url in urls]), packed))
    best = max(places, key=lambda place: place.hit_rate)  # the first of equals
    if urls and best.hit_rate < MIN_HIT_RATE:
        raise CorpusError(
            f"{images}: of {len(urls)} image addresses probed, {best.hit_rate:.1%} are there (at least "
            f"{MIN_HIT_RATE:.0%} is needed). For {urls[0]} I looked for a file named by {', by '.join(NAMES)}, and for "
            f"a .json in tars that gives this address. Download the images of the corpus with img2dataset "
            f"--output_format webdataset into {images}, or pass the folder that holds them"
        )
    return best


def _share(found: Sequence[bool]) -> float:
    return sum(found) / max(1, len(found))
