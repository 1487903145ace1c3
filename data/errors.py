"""The two failures of the data layer: a folder the user must fix, and an image that is counted and skipped."""

from data.document import Cause


class CorpusError(ValueError):
    """The corpus itself cannot be read as asked; the message names the folder, what was found and the next step."""


class BadImage(Exception):
    """One image cannot be used. Whoever holds the document counts the cause and removes the image."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause
        self.message = message

    def __reduce__(self) -> tuple[type["BadImage"], tuple[Cause, str]]:
        return type(self), (self.cause, self.message)  # crosses worker process borders with its cause
