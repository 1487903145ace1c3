"""How LLaVA-1.5 asks: the question, a newline, and a sentence about the form of the answer (its docs/Evaluation.md)."""

from collections.abc import Mapping

SHORT = "Answer the question using a single word or phrase."
UNSURE = "When the provided information is insufficient, respond with 'Unanswerable'."
LETTER = "Answer with the option's letter from the given choices directly."


def short(question: str) -> str:
    """For an answer of a word or two."""
    return f"{question}\n{SHORT}"


def choice(question: str, options: Mapping[str, str], hint: str) -> str:
    """For a letter; options by letter. A hint, where there is one, stands before the question."""
    told = [hint] if hint else []
    return "\n".join([*told, question, *(f"{letter}. {text}" for letter, text in options.items()), LETTER])
