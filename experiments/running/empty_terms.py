"""A term of a loss that never finds an item is a mistake of the settings, not a loss of zero."""

from collections.abc import Mapping

from objectives.functional import Losses, items

WATCHED = 20  # steps


class EmptyTerm(RuntimeError):
    """A weighted term had no single item over the first steps of a run."""


class TermItems:
    """Counts the items of every term over the first steps, the same whether or not a run is stopped among them."""

    def __init__(self, start: int, steps: int, found: Mapping[str, float]) -> None:
        """start: the step a run begins or goes on at; found: `found` of then. A run shorter than WATCHED steps is
        watched whole.
        """
        self.steps = min(WATCHED, steps)
        self.left = self.steps - start if found or not start else 0  # checkpoints of earlier versions hold none
        self.found = dict(found)

    def see(self, losses: Losses) -> None:
        """After a step. Raises EmptyTerm naming the terms once the steps are over. Every rank must call it."""
        if self.left <= 0:
            return
        self.left -= 1
        for name, count in items(losses).items():
            self.found[name] = self.found.get(name, 0.0) + count
        empty = [name for name, count in self.found.items() if not count]
        if not self.left and empty:
            raise EmptyTerm(f"no item for the loss term {' and '.join(map(repr, empty))} in {self.steps} steps")
