"""What a process keeps of a corpus between epochs and between the runs of a seed: decoded pictures."""

from collections.abc import Hashable
from typing import Generic, TypeVar

from PIL import Image as Pil

from data.document import ImageRef
from data.images import open_image, open_scaled

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
        self._held: Bounded[Hashable, tuple[tuple[int, int], bytes, int]] = Bounded(budget)

    def __call__(self, ref: ImageRef, at_least: int | None = None) -> tuple[Pil.Image, int]:
        """The picture, and by how much its sides were divided: 1, unless `at_least` allows more (`open_scaled`).

        Raises BadImage as `open_image` does.
        """
        held = self._held.get((ref.read, at_least))
        if held is not None:
            size, pixels, divided = held
            return Pil.frombytes("RGB", size, pixels), divided
        picture, divided = (open_image(ref), 1) if at_least is None else open_scaled(ref, at_least)
        room = 3 * picture.width * picture.height
        if self._held.has_room(room):
            self._held.put((ref.read, at_least), (picture.size, picture.tobytes(), divided), room)
        return picture, divided


PICTURE_BYTES = 512 * 2**20
shared_pictures = Pictures(PICTURE_BYTES)
