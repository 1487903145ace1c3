"""What a process keeps of a corpus between epochs and between the runs of a seed: decoded pictures."""

from collections.abc import Hashable
from typing import Generic, TypeVar

from PIL import Image as Pil

from data.document import ImageRef
from data.images import open_image

K = TypeVar("K")
V = TypeVar("V")


class Bounded(Generic[K, V]):
    """A cache that fills up and stays: over reshuffled epochs it hits more often than evicting the least recent."""

    def __init__(self, budget: int) -> None:
        self._left = budget
        self._held: dict[K, V] = {}

    def get(self, key: K) -> V | None:
        """What is held under the key, or None."""
        return self._held.get(key)

    def has_room(self, size: int) -> bool:
        """Whether so much more could be held."""
        return size <= self._left

    def put(self, key: K, value: V, size: int) -> None:
        """Hold the value if there is room for it."""
        if self.has_room(size):
            self._left -= size
            self._held[key] = value


class Pictures:
    """Decoded images of this process, shared by all loaders: rows of a seed read the same ones in the same order.

    Kept as plain bytes: a Pillow image holds four bytes a pixel and some kilobytes besides.
    """

    def __init__(self, budget: int) -> None:
        """budget: bytes to hold."""
        self._held: Bounded[Hashable, tuple[tuple[int, int], bytes]] = Bounded(budget)

    def __call__(self, ref: ImageRef) -> Pil.Image:
        """The picture. Raises BadImage as `open_image` does."""
        held = self._held.get(ref.read)
        if held is not None:
            return Pil.frombytes("RGB", *held)
        picture = open_image(ref)
        size = 3 * picture.width * picture.height
        if self._held.has_room(size):
            self._held.put(ref.read, (picture.size, picture.tobytes()), size)
        return picture


PICTURE_BYTES = 512 * 2**20
shared_pictures = Pictures(PICTURE_BYTES)
