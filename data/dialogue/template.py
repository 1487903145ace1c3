"""How a conversation is written: LLaVA-1.5's two templates and a shorter one, with what is learned marked in the text.

`plain`      stage 1: the picture, the answer, a newline; the question is thrown away; all of it is learned
`vicuna_v1`  stage 2: a system sentence, then `USER: ... ASSISTANT: ...</s>` for every round; learned are the answers
             with the `</s>` after each
`turns`      the same without the system sentence, our own: it takes half of what an embedded language model reads

Source: haotian-liu/LLaVA, llava/conversation.py and llava/train/train.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from data.dialogue.conversation import Conversation

Template = Literal["plain", "vicuna_v1", "turns"]
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
_BEFORE: Mapping[Template, str] = {"plain": "", "vicuna_v1": f"{SYSTEM} ", "turns": ""}  # the first turn


@dataclass(frozen=True)
class Text:
    """Text that is tokenised in one go, and where in it answers stand, as [start, end) of characters."""

    text: str
    answers: tuple[tuple[int, int], ...]


class Mark(Enum):
    """What is no text."""

    IMAGE = "image"
    END = "end"  # EOS after an answer; learned


Piece = Text | Mark


def fits(conversation: Conversation, template: Template) -> bool:
    """Whether a template can write the conversation: `plain` takes one picture and one round."""
    return template != "plain" or (conversation.shown is not None and len(conversation.rounds) == 1)


def written(conversation: Conversation, template: Template) -> list[Piece]:
    """The conversation in pieces, without BOS. Raises ValueError where the template does not fit."""
    if not fits(conversation, template):
        raise ValueError(f"{conversation.item_id}: the plain template takes a picture and one round")
    if template == "plain":
        caption = conversation.rounds[0].answer + "\n"
        return [Mark.IMAGE, Text(caption, ((0, len(caption)),))]
    pieces: list[Piece] = []
    before = _BEFORE[template]
    for number, each in enumerate(conversation.rounds):
        before += "USER: "
        if number == conversation.shown:
            pieces += [Text(before, ()), Mark.IMAGE]
            before = "\n" if each.question else ""  # as `("<image>\n" + question).strip()`
        before += f"{each.question} ASSISTANT:"
        # The space is learned with the answer: a prompt ends before it, as most tokenizers join it to the next word.
        answer = f" {each.answer}"
        pieces += [Text(before + answer, ((len(before), len(before + answer)),)), Mark.END]
        before = ""
    return pieces


def asked(question: str, pictured: bool, template: Template) -> list[Piece]:
    """A question that is to be answered, as a template of stage 2 writes it up to the answer."""
    begin = f"{_BEFORE[template]}USER: "
    if not pictured:
        return [Text(f"{begin}{question} ASSISTANT:", ())]
    return [Text(begin, ()), Mark.IMAGE, Text(f"\n{question} ASSISTANT:", ())]


def as_text(pieces: Sequence[Piece]) -> str:
    """What is written, for people to read."""
    shown = {Mark.IMAGE: "<image>", Mark.END: "</s>"}
    return "".join(piece.text if isinstance(piece, Text) else shown[piece] for piece in pieces)
