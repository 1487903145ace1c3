"""A loss term that never finds an item ends the run with a message; one that finds a few or weighs nothing does not."""

from pathlib import Path

import pytest
import torch
from sweep_helpers import BUDGET, plan_pretraining, small_place

from experiments.running.empty_terms import WATCHED, EmptyTerm, TermItems
from experiments.running.lifecycle import execute
from objectives.functional import Losses, Term
from results import record
from results.schema import Row, Status


def losses(weight: float = 1.0, **counts: int) -> Losses:
    terms = {name: Term(torch.tensor(float(count)), torch.tensor(float(count))) for name, count in counts.items()}
    return Losses(terms, dict.fromkeys(terms, weight), {})


def see(items: TermItems, steps: int, **counts: int) -> None:
    for _ in range(steps):
        items.see(losses(**counts))


def test_a_term_without_an_item_is_named_after_the_steps_that_are_watched() -> None:
    items = TermItems(0, 1000, {})
    see(items, WATCHED - 1, contrast=0, generate=7, patches=0)
    with pytest.raises(EmptyTerm, match=f"no item for the loss term 'contrast' and 'patches' in {WATCHED} steps"):
        see(items, 1, contrast=0, generate=7, patches=0)


def test_one_item_is_enough() -> None:
    items = TermItems(0, 1000, {})
    see(items, 1, contrast=1)
    see(items, 2 * WATCHED, contrast=0)


def test_a_term_of_no_weight_may_be_empty() -> None:
    items = TermItems(0, 1000, {})
    for _ in range(WATCHED):
        items.see(losses(weight=0.0, contrast=0))


def test_a_short_run_is_watched_whole_and_the_rest_of_a_run_is_not_judged() -> None:
    short = TermItems(0, 3, {})
    see(short, 2, contrast=0)
    with pytest.raises(EmptyTerm, match="in 3 steps"):
        see(short, 1, contrast=0)
    see(TermItems(998, 1000, {}), 2, contrast=0)


def test_a_run_that_is_continued_is_judged_as_one_that_was_not_stopped() -> None:
    whole = TermItems(0, 1000, {})
    see(whole, 15, contrast=0, generate=7)
    again = TermItems(15, 1000, whole.found)
    see(again, 4, contrast=0, generate=7)
    with pytest.raises(EmptyTerm, match=f"'contrast' in {WATCHED} steps"):
        see(again, 1, contrast=0, generate=7)
    see(whole, 1, contrast=1, generate=7)
    see(TermItems(16, 1000, whole.found), 2 * WATCHED, contrast=0, generate=7)  # it was there before
    for step in (WATCHED, 200):
        see(TermItems(step, 1000, {"contrast": 1.0, "generate": 9.0}), 2 * WATCHED, contrast=0, generate=7)
        see(TermItems(step, 1000, {}), 2 * WATCHED, contrast=0)  # a checkpoint of an earlier version
    see(TermItems(5, 1000, {}), 2 * WATCHED, contrast=0)


def test_lcl_on_pairs_that_all_begin_with_the_image_fails_by_name(tmp_path: Path) -> None:
    changes = (*BUDGET, "objectives.lcl.layout=image_first")
    place = small_place(tmp_path / "corpora", tmp_path / "runs", changes)
    run_id = plan_pretraining(place, Row(label="LCL", objective="lcl", data="mmc4-pair"), changes)
    assert execute(run_id, place, "tiny") is Status.FAILED
    reason = record.read(place.runs / run_id / record.RECORD_FILE).reason
    assert "EmptyTerm: no item for the loss term 'contrast' in 3 steps: lcl reads" in reason
    assert "as image_first; choose another corpus or layout" in reason
