"""What became of one entry of the corpus after the other, in the order of the run, whoever reads them.

An entry belongs to a reader by where it lies (`home`, order.py): a shard is then opened by one reader, and a picture
kept by the one that decoded it. Ranks share readers out among them and tell one another what came of their entries, so
that each counts all of them and ends a step at the same one. So neither the number of readers nor that of ranks
changes which documents a step holds (the virtual streams of our specification, each of one entry).
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from data.document import Bad
from data.loading.draw import Drawer, Drawn
from data.loading.item import Item
from data.loading.order import Shuffled, Windows
from data.loading.ranks import rank, told_by_all
from data.loading.reader import portable
from data.loading.readers import Readers

EXCHANGED = 64  # entries that ranks tell one another about at a time


@dataclass(frozen=True)
class Elsewhere:
    """A document that another rank holds, as far as this one has to know."""

    rank: int
    images: int
    hard_split: bool

    def first(self, images: int) -> "Elsewhere":
        """The same with at most that many images."""
        return replace(self, images=min(images, self.images))


Entry = tuple[Item | Elsewhere | Bad, list[Bad]]


class Entries:
    """Entries from a position on, without end."""

    def __init__(self, order: Shuffled | Windows, documents: int, position: int, ahead: int) -> None:
        """ahead: entries that readers are asked for before they are needed."""
        self._order, self._documents, self._position, self._ahead = order, documents, position, ahead

    def read_here(self, drawer: Drawer) -> Iterator[Entry]:
        """Each read when it is asked for, in this process."""

        def local() -> Iterator[Drawn | Exception]:
            for position in self._mine():
                epoch, at = divmod(position, self._documents)
                try:
                    yield drawer.read(self._order.index(epoch, at), epoch)
                except Exception as error:
                    yield error

        return self._of_all_ranks(local())

    def read_by(self, readers: Readers) -> Iterator[Entry]:
        """Read ahead by other processes."""

        def remote() -> Iterator[Drawn | Exception]:
            asked: deque[int] = deque()
            for position in self._mine():
                epoch, at = divmod(position, self._documents)
                reader = self._order.home(epoch, at) // rank()[1] % len(readers)
                readers.ask(reader, self._order.index(epoch, at), epoch)
                asked.append(reader)
                if len(asked) > self._ahead:
                    yield readers.take(asked.popleft())

        return self._of_all_ranks(remote())

    def _mine(self) -> Iterator[int]:
        """Positions of this rank's entries, in order, without end."""
        me, ranks = rank()
        position = self._position
        while True:
            if self._owner(position) == me:
                yield position
            position += 1

    def _owner(self, position: int) -> int:
        return self._order.home(*divmod(position, self._documents)) % rank()[1]

    def _of_all_ranks(self, mine: Iterator[Drawn | Exception]) -> Iterator[Entry]:
        me, ranks = rank()
        if ranks == 1:
            yield from map(_unless_raised, mine)
            return
        start = self._position
        while True:
            owners = [self._owner(position) for position in range(start, start + EXCHANGED)]
            held = deque(next(mine) for owner in owners if owner == me)
            told = [deque(each) for each in told_by_all([_in_short(each, me) for each in held])]
            for owner in owners:
                short = told[owner].popleft()
                yield _unless_raised(held.popleft() if owner == me else short)
            start += EXCHANGED


def _in_short(drawn: Drawn | Exception, me: int) -> Entry | Exception:
    """What other ranks are told of an entry."""
    if isinstance(drawn, Exception):
        return portable(drawn)
    item, removed = drawn
    if isinstance(item, Bad):
        return item, removed
    return Elsewhere(me, len(item.images), item.document.hard_split), removed


def _unless_raised(drawn: Entry | Exception) -> Entry:
    """Raises what reading the entry raised, at its place in the order and on every rank."""
    if isinstance(drawn, Exception):
        raise drawn
    return drawn
