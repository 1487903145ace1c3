"""The first losses of every objective at size `tiny`: fp32, one thread, one seed, a fixed small corpus."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from sweep_helpers import BUDGET, plan_pretraining, small_place

from experiments.configuration.place import Place
from experiments.running import fit, lifecycle
from experiments.running.cost import Cost
from experiments.running.stages import pretrain
from objectives.functional import means
from objectives.registry import get
from results import record
from results.schema import Row, Status

FILE = Path(__file__).parent / "golden" / "losses.json"
STEPS = 10
CHANGES = (
    *(change for change in BUDGET if not change.startswith("pretrain.images=")),
    "pretrain.images=160",
    "pretrain.optim.matrices=adamw",  # Muon multiplies in bf16, which another machine rounds otherwise
)

Curve = Sequence[Mapping[str, float]]  # by step: term -> mean


def golden_place(folder: Path) -> Place:
    """Corpus and runs below one folder."""
    return small_place(folder / "corpora", folder / "runs", CHANGES)


def corpus_digest(place: Place) -> str:
    """Hash of the bytes trained on: another version of Pillow or torch may draw other pictures."""
    assert place.data.mmc4 is not None
    found = hashlib.sha256()
    for path in sorted(path for path in place.data.mmc4.rglob("*") if path.is_file()):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def curve(place: Place, name: str) -> Curve:
    """The terms of the first steps of one objective, as `sweep` would train it."""
    rows: list[dict[str, float]] = []
    step = fit._step

    def watched(*arguments: Any) -> Any:
        losses, norm = step(*arguments)
        rows.append({term: float(value) for term, value in means(losses).items()})
        return losses, norm

    run_id = plan_pretraining(place, _row(name), CHANGES)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with pytest.MonkeyPatch.context() as patch:  # neither of the last two changes a loss, both take long
            patch.setattr(fit, "_step", watched)
            patch.setattr(pretrain.cost, "measure", lambda *_: Cost(0.0, 0, 0.0))
            patch.setattr(pretrain, "visual_use", lambda *_: None)
            status = lifecycle.execute(run_id, place, "tiny")
    finally:
        torch.set_num_threads(threads)
    if status is not Status.DONE:
        raise RuntimeError(record.read(place.runs / run_id / record.RECORD_FILE).reason)
    return rows


def _row(name: str) -> Row:
    return Row(label=name, objective=name, data="mmc4-pair" if get(name).reads == "pairs" else "mmc4")
