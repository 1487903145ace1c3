"""How far a run has got on disk: by that a later attempt is judged to have been of use."""

from pathlib import Path

from experiments.running import checkpoint
from experiments.running.attempts import Saved

# Answers of a dialogue run, about the pictures that were asked about and about others; a line of JSON each.
ANSWERS, SHUFFLED = "answers", "shuffled"


def saved(folder: Path) -> Saved:
    """What a run would go on from. folder: the run's."""
    written = [path for kept in (ANSWERS, SHUFFLED) for path in sorted((folder / kept).glob("*.jsonl"))]
    return Saved(checkpoint.newest_step(folder / "checkpoint"), sum(path.read_bytes().count(b"\n") for path in written))
