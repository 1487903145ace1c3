"""Probes: the images that take the place of a document's own are never its own, and black ones are black."""

from dataclasses import replace

import pytest
import torch
from helpers import IMAGE, Doc, batch_for, build, documents, pairs, with_images
from torch import Tensor

from data.batch import Batch
from data.images import ImageTransform
from experiments.running.stages.probe import changed, of_other_documents, visual_use
from results.alarms import collapsed

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
    found = visual_use(flamingo, batch, TRANSFORM, "fp32", alarm=[].append)(0)

    def loss(images: Tensor) -> float:
        return float(flamingo.eval()(with_images(batch, images)).watch["text_nll"])

    true = loss(batch.images)
    assert found["probe_text_nll"] == pytest.approx(true)
    for name, images in changed(batch, TRANSFORM).items():
        assert found[f"probe_visual_use_{name}"] == pytest.approx(loss(images) - true, abs=1e-6)
        assert abs(found[f"probe_visual_use_{name}"]) > 1e-4


def test_probes_are_made_in_evaluation_mode() -> None:
    lcl, modes = build("lcl").train(), []
    lcl.vision.register_forward_hook(lambda module, inputs, output: modes.append(module.training))
    visual_use(lcl, batch_for(lcl, documents()), TRANSFORM, "fp32", alarm=[].append)(0)
    assert modes == [False] * 3  # true, shuffled and black images


def test_an_objective_without_text_has_no_visual_use() -> None:
    clip = build("clip")
    found = visual_use(clip, batch_for(clip, pairs(4)), TRANSFORM, "fp32", alarm=[].append)(0)
    assert "probe_con_acc" in found and not any("visual_use" in name for name in found)


@pytest.mark.parametrize("name", ["lcl", "coca", "supervised"])
def test_the_pull_of_each_term_at_the_encoder_is_watched(name: str) -> None:
    objective = build(name)
    batch = batch_for(objective, documents(2) if name == "lcl" else pairs(6))
    found = visual_use(objective, batch, TRANSFORM, "fp32", alarm=[].append)(0)
    assert all(p.grad is None for p in objective.parameters())
    for term in objective(batch).terms:
        patches = objective.vision(batch.images).detach().requires_grad_()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(objective, "encode", lambda images, edit=None, patches=patches: patches)
            found_term = objective(batch).terms[term]
        (grad,) = torch.autograd.grad(found_term.sum / found_term.count, patches)
        assert grad.norm() > 0
        assert found[f"probe_grad_{term}"] == pytest.approx(grad.norm().item(), rel=1e-4)


def test_a_term_without_images_pulls_at_nothing() -> None:
    lcl = build("lcl")
    batch = batch_for(lcl, pairs(3))  # images before their text: no contrast
    found = visual_use(lcl, batch, TRANSFORM, "fp32", alarm=[].append)(0)
    assert found["probe_grad_contrast"] == 0 and found["probe_grad_generate"] > 0


def test_features_near_one_point_are_collapsed() -> None:
    healthy = {"probe_feature_std_ratio": 0.5, "probe_rankme": 30.0}
    assert not collapsed(healthy, 128) and not collapsed({}, 128)
    assert collapsed({**healthy, "probe_feature_std_ratio": 0.09}, 128)
    assert collapsed({**healthy, "probe_rankme": 6.3}, 128) and not collapsed({**healthy, "probe_rankme": 6.5}, 128)


def test_three_collapsed_probes_in_a_row_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    clip = build("clip")
    alarms: list[str] = []
    probe = visual_use(clip, batch_for(clip, pairs(6)), TRANSFORM, "fp32", alarm=alarms.append)
    scale = clip.vision.vit.norm.weight
    warned = []
    for step, weight in enumerate((0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0)):
        scale.data.fill_(weight)  # without it every image gives the same features
        clip.vision.vit.norm.bias.data.fill_(1.0)
        caplog.clear()
        probe(step)
        warned.append("has collapsed" in caplog.text)
    assert warned == [False, False, False, False, False, True, False]
    assert [bool(said) for said in alarms] == [True, True, False, True, True, True, True]
    assert alarms[0].startswith("collapsed (std ratio 0.000, rank 1.0 of ")
