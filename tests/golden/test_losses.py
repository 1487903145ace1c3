"""The first losses of every objective are those written down. Updated by tests/golden/update.py, with a reason."""

import json

import pytest
import torch
from golden_helpers import FILE, STEPS, corpus_digest, curve, golden_place

from experiments.configuration.place import Place
from objectives.registry import available

GOLDEN = json.loads(FILE.read_text())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return golden_place(tmp_path_factory.mktemp("golden"))


def test_every_objective_has_golden_losses_and_no_other() -> None:
    assert set(GOLDEN["losses"]) == set(available())
    assert GOLDEN["why"]
    assert all(len(rows) == STEPS for rows in GOLDEN["losses"].values())


@pytest.mark.slow
@pytest.mark.parametrize("name", available())
def test_the_first_losses_are_the_golden_ones(place: Place, name: str) -> None:
    made_with = f"made with torch {GOLDEN['torch']} (here {torch.__version__})"
    if corpus_digest(place) != GOLDEN["corpus"]:
        made_with += "; THE CORPUS HAS OTHER BYTES here, so the losses must differ"
    rows = curve(place, name)
    for step, (row, golden) in enumerate(zip(rows, GOLDEN["losses"][name], strict=True)):
        assert row == pytest.approx(golden, rel=1e-4), f"{name}, step {step}; {made_with}"
