"""A written conversation as token ids: the picture as slots, the answers as what is learned.

Text between pictures and ends is tokenised in one go, as in LLaVA, and a token is learned where it covers a character
of an answer. LLaVA counts tokens of rounds instead, and throws a conversation away where the counts do not add up,
which newer tokenizers cause; by characters there is nothing to add up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from data.batch import TokenType
from data.dialogue.template import Mark, Piece, Text
from data.errors import CorpusError


class _Special(Protocol):
    @property
    def bos(self) -> int: ...

    @property
    def eos(self) -> int: ...

    @property
    def img(self) -> int: ...


@runtime_checkable
class SpanTokenizer(Protocol):
    """A tokenizer that says which characters each token covers."""

    @property
    def special(self) -> _Special:
        """The special ids."""
        ...

    def spans(self, text: str) -> list[tuple[int, int, int]]:
        """(id, start, end) of every token, its characters being [start, end)."""
        ...


@dataclass(frozen=True)
class Example:
    """A conversation as it is trained on; all of one length."""

    ids: tuple[int, ...]  # a slot of the picture holds <img>, which is never embedded
    kinds: tuple[TokenType, ...]
    learned: tuple[bool, ...]  # whether the token is predicted with a loss
    cut: int  # tokens that did not fit

    def __len__(self) -> int:
        return len(self.ids)


def tokenised(
    item_id: str, pieces: Sequence[Piece], tokenizer: SpanTokenizer, slots: int, longest: int | None
) -> Example:
    """BOS and the pieces; a picture takes `slots` positions, and text is cut after `longest` tokens.

    longest: None where nothing may be cut, as of a question that is to be answered.

    Raises CorpusError where that would cut a picture: what is asked about it would be answered without it.
    """
    special = tokenizer.special
    rows: list[tuple[int, TokenType, bool]] = [(special.bos, TokenType.BOS, False)]
    for piece in pieces:
        if piece is Mark.IMAGE:
            if longest is not None and len(rows) + slots > longest:
                raise CorpusError(
                    f"{item_id}: its picture takes {slots} tokens from number {len(rows)} on, but a conversation has "
                    f"{longest}; allow more tokens, or leave the conversation out"
                )
            rows += [(special.img, TokenType.IMG, False)] * slots
        elif piece is Mark.END:
            rows.append((special.eos, TokenType.EOS, True))
        elif isinstance(piece, Text):
            rows += [
                (token, TokenType.TEXT, any(start < last and first < end for first, last in piece.answers))
                for token, start, end in tokenizer.spans(piece.text)
            ]
    ids, kinds, learned = zip(*rows[:longest], strict=True)
    return Example(ids, kinds, learned, len(rows) - len(ids))
