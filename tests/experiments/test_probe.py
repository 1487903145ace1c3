"""Probes: the images that take the place of a document's own are never its own, and black ones are black."""

from dataclasses import replace

import pytest
import torch
from helpers import IMAGE, Doc, batch_for, build, documents, pairs, with_images
from torch import Tensor

from data.batch import Batch
from data.images import ImageTransform
from experiments.running.probe import changed, of_other_documents, visual_use

TRANSFORM = ImageTransform(size=32)


def owners(batch: Batch) -> list[str]:
    """The document of each image."""
    rows = next(iter(batch.rows.values()))
    return [batch.doc_uid[row].partition("#")[0] for row in rows.img_row.tolist()]


def one_large(images: int) -> list[Doc]:
    """A document of so many images between two of one."""
    small = [Doc(name, ((5, 6), IMAGE)) for name in "ac"]
    return [small[0], Doc("b", (IMAGE,) * images), small[1]]


@pytest.mark.parametrize("docs", [documents(3), one_large(2), one_large(7), one_large(1)])
def test_every_image_gives_way_to_one_of_another_document(docs: list[Doc]) -> None:
    batch = batch_for(build("lcl"), docs)
    foreign = of_other_documents(batch)
    assert foreign is not None and len(foreign) == len(batch.images)
    of = owners(batch)
    assert all(of[other] != own for own, other in zip(of, foreign.tolist(), strict=True))
    assert len(set(foreign.tolist())) > 1


def test_two_pairs_of_one_page_are_one_document_and_a_lone_document_has_no_other() -> None:
    clip = build("clip")
    docs = [replace(doc, uid=f"page-{i // 3}#{i}") for i, doc in enumerate(pairs(9))]
    foreign = of_other_documents(batch_for(clip, docs))
    assert foreign is not None and all(i // 3 != other // 3 for i, other in enumerate(foreign.tolist()))
    lone = batch_for(clip, docs[:3])
    assert of_other_documents(lone) is None and set(changed(lone, TRANSFORM)) == {"zeroed"}
    assert of_other_documents(replace(lone, rows={})) is None


def test_black_images_are_pixels_of_value_zero() -> None:
    black = changed(batch_for(build("clip"), pairs(2)), TRANSFORM)["zeroed"]
    mean, std = (torch.tensor(each)[:, None, None] for each in (TRANSFORM.mean, TRANSFORM.std))
    torch.testing.assert_close(black * std + mean, torch.zeros(2, 3, 32, 32))
    assert black.abs().min() > 1  # what the encoder reads as zero is grey


def test_visual_use_is_the_text_loss_that_the_true_images_save() -> None:
    flamingo = build("flamingo").train()
    for name, parameter in flamingo.named_parameters():
        if "gate" in name:
            parameter.data.fill_(0.5)  # they start at 0, where no image matters
    batch = batch_for(flamingo, documents())
    found = visual_use(flamingo, batch, TRANSFORM, "fp32")(0)

    def loss(images: Tensor) -> float:
        return float(flamingo.eval()(with_images(batch, images)).watch["text_nll"])

    true = loss(batch.images)
    assert found["probe_text_nll"] == pytest.approx(true)
    for name, images in changed(batch, TRANSFORM).items():
        assert found[f"probe_visual_use_{name}"] == pytest.approx(loss(images) - true, abs=1e-6)
        assert abs(found[f"probe_visual_use_{name}"]) > 1e-4


def test_an_objective_without_text_has_no_visual_use() -> None:
    clip = build("clip")
    found = visual_use(clip, batch_for(clip, pairs(4)), TRANSFORM, "fp32")(0)
    assert "probe_con_acc" in found and not any("visual_use" in name for name in found)
