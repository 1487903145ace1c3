"""The closed form of a step's cost against torch's own counter, for every objective at both kinds of size."""

from dataclasses import asdict, replace
from unittest.mock import patch

import pytest
import torch
from helpers import SPECIAL, VOCABULARY, Doc, at_tiny, batch_for, documents, pairs
from torch.utils.flop_counter import FlopCounterMode

from backbones.build import build_language, build_vision
from backbones.sizes import SIZES
from data.batch import Batch
from experiments.planning.flops import Sizes, Work, step_flops
from objectives.base import Objective
from objectives.functional import total
from objectives.registry import get

LONG = (40, 64, 50, 64)  # tokens of a caption


def build(name: str, size_name: str) -> Objective:
    size, kind = SIZES[size_name], get(name)
    vocabulary = size.language.vocab_size or VOCABULARY
    config = at_tiny("objectives", kind) if size_name == "tiny" else kind.Config()
    if name == "beit3":  # codes without a fitted codebook, at the same cost
        config = replace(config, target="rpq_random")
    return kind(config, build_vision(size, 0), build_language(size, vocabulary, 0), SPECIAL)


def docs_for(of: Objective, size_name: str) -> list[Doc]:
    """Enough for the counter at the small size, few at the large one."""
    if of.reads == "documents":
        return documents(copies=4 if size_name == "tiny" else 1)
    return pairs(16 if size_name == "tiny" else 3, lengths=LONG)


def counted(of: Objective, batch: Batch) -> tuple[int, int]:
    """FLOPs of a step by torch, and how many positions the language model's head was asked for."""
    asked: list[int] = []
    head = of.language.logits

    def logits(y: torch.Tensor) -> torch.Tensor:
        asked.append(len(y))
        return head(y)

    with (
        patch.object(of.language, "logits", logits),
        torch.autocast("cpu", torch.bfloat16),
        FlopCounterMode(display=False) as counter,
    ):
        total(of(batch)).backward()
    return counter.get_total_flops(), sum(asked)


def work(of: Objective, batch: Batch, predicted: int) -> Work:
    rows = {layout.value: (len(each.input_ids), each.input_ids.shape[1]) for layout, each in batch.rows.items()}
    some = next(iter(batch.rows.values()), None)
    places = [] if some is None else some.img_row.tolist()
    return Work(
        images=len(batch.images),
        rows=rows,
        predicted=predicted,
        contrasted=0 if some is None else int(some.img_has_ctx.sum()),
        hidden_patches=int(of.plan(batch).patches.sum()) if of.name == "beit3" else 0,
        images_of_a_row=max((places.count(row) for row in places), default=1),
    )


@pytest.mark.parametrize("name", ["clip", "coca", "blip2", "lcl", "beit3", "flamingo", "emu", "supervised"])
@pytest.mark.parametrize("size", ["tiny", pytest.param("base16", marks=pytest.mark.slow)])
def test_the_closed_form_agrees_with_torchs_counter(name: str, size: str) -> None:
    of = build(name, size)
    batch = batch_for(of, docs_for(of, size))
    found, predicted = counted(of, batch)
    sizes = Sizes(
        vision=asdict(SIZES[size].vision), language=asdict(SIZES[size].language), vocabulary=of.language.vocab_size
    )
    expected = step_flops(name, asdict(of.config), sizes, work(of, batch, predicted))
    assert expected == pytest.approx(found, rel=0.03)


def test_an_objective_without_a_formula_has_no_number() -> None:
    sizes = Sizes(vision=asdict(SIZES["tiny"].vision), language=asdict(SIZES["tiny"].language), vocabulary=64)
    assert step_flops("siglip", {}, sizes, Work(images=1, rows={}, predicted=0)) is None


def test_the_papers_sizes_cost_what_the_specification_counts() -> None:
    """objectives.md 1.13: 35.1 GFLOP an image of ViT-B/16 and 47.2 a pair of CLIP with 64 tokens, forward."""
    size = SIZES["base16"]
    sizes = Sizes(vision=asdict(size.vision), language=asdict(size.language), vocabulary=50272)
    pair = Work(images=1, rows={"text_only": (1, 66)}, predicted=0, contrasted=1)
    found = step_flops("clip", {}, sizes, pair)
    assert found is not None and found / 3 == pytest.approx(47.2e9, rel=0.02)
