"""The supervised control against a written-out classifier."""

import math

import pytest
import torch
from helpers import IMAGE, Doc, batch_for, build, gradients, norm, pairs

from objectives.functional import total


def labelled(*labels: int) -> list[Doc]:
    return [Doc(f"labelled-{i}", (IMAGE, (5,)), label=label) for i, label in enumerate(labels)]


def test_is_a_linear_classifier_on_mean_patch_tokens() -> None:
    control = build("supervised", classes=7)
    batch = batch_for(control, labelled(0, 6, 3))
    weight, bias = control.classifier.weight, control.classifier.bias
    slow = 0.0
    for patches, label in zip(control.vision(batch.images), (0, 6, 3), strict=True):
        scores = weight @ (sum(patches) / len(patches)) + bias
        slow += (scores.exp().sum().log() - scores[label]).item()
    losses = control(batch)
    assert losses.terms["classify"].sum.item() == pytest.approx(slow, rel=1e-5)
    assert losses.terms["classify"].count == 3


def test_images_without_label_carry_no_loss() -> None:
    control = build("supervised")
    some = control(batch_for(control, labelled(2, -1, 5, -1)))
    batch = batch_for(control, [doc for doc in labelled(2, -1, 5, -1) if doc.label >= 0])
    torch.testing.assert_close(some.terms["classify"].sum, control(batch).terms["classify"].sum, atol=1e-5, rtol=0)
    assert some.terms["classify"].count == 2
    none = control(batch_for(control, labelled(-1, -1)))
    assert total(none) == 0 and norm(gradients(control, total(none)), "") == 0


def test_unknown_class_is_named() -> None:
    control = build("supervised", classes=5)
    with pytest.raises(ValueError, match="class 5.*classes=5"):
        control(batch_for(control, labelled(1, 5)))
    with pytest.raises(ValueError, match="classes=1"):
        build("supervised", classes=1)


def test_default_classes_and_loss_at_init() -> None:
    control = build("supervised")
    assert control.config.classes == 24 and type(control).Config().classes == 1000
    assert total(control(batch_for(control, pairs(32)))).item() == pytest.approx(math.log(24), abs=0.1)


def test_language_model_is_not_touched() -> None:
    control = build("supervised")
    grads = gradients(control, total(control(batch_for(control, labelled(0, 1)))))
    assert norm(grads, "language.") == 0 and norm(grads, "vision.") > 0
