"""The conversations of a stage of dialogue, as preflight and the run itself open them."""

from data.dialogue.template import Template
from data.dialogue.usable import Usable, usable
from experiments.configuration.dialogue import StageName
from experiments.configuration.place import Place


def open_conversations(place: Place, stage: StageName, template: Template) -> Usable:
    """Of `data.dialogue`. Raises CorpusError where too few of them can be used."""
    folder = place.data.dialogue
    assert folder is not None  # without it nothing was planned
    return usable(
        folder / f"{stage}.json",
        folder / "images",
        template,
        max_broken=place.data.max_broken,
        cache=place.shared / "indexes",
    )
