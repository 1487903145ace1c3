"""What was read last, kept by its size: shards that have to be unpacked whole are unpacked once for many documents."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, the least recently read dropped first when they exceed `budget` bytes; the last always stays."""

    def __init__(self, read: Callable[[K], V], size: Callable[[V], int], budget: int) -> None:
        """read: makes the value of a key; size: of a value, in bytes."""
        self._read, self._size, self._left = read, size, budget
        self._held: OrderedDict[K, V] = OrderedDict()

    def __call__(self, key: K) -> V:
        """The value, read now where it is not held. Raises what `read` raises."""
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key]
        value = self._read(key)
        self._left -= self._size(value)
        while self._left < 0 and self._held:
            self._left += self._size(self._held.popitem(last=False)[1])
        self._held[key] = value
        return value
