"""Special ids, as objectives and transfer tasks need them of whatever tokenizer wrote the rows."""

from typing import Protocol, runtime_checkable


@runtime_checkable
class Special(Protocol):
    """Special ids of a tokenizer; data/tokenizer.py has them. Positions are told apart by TokenType, never by id."""

    @property
    def pad(self) -> int:
        """Padding."""
        ...

    @property
    def bos(self) -> int:
        """Begins a row; may equal `eos`."""
        ...

    @property
    def eos(self) -> int:
        """Ends a caption."""
        ...

    @property
    def boi(self) -> int:
        """Begins an image."""
        ...

    @property
    def eoi(self) -> int:
        """Ends an image."""
        ...

    @property
    def img(self) -> int:
        """Fills image slots, never embedded."""
        ...

    @property
    def mask(self) -> int:
        """Masked token."""
        ...
