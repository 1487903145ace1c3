"""The registry, that adding an objective is one file, and the steps all objectives share."""

import sys
from pathlib import Path

import pytest
import torch
from helpers import SPECIAL, batch, documents, pairs
from torch import Tensor

import objectives
from backbones.lm import LanguageModel
from backbones.vit import VisionEncoder
from data.batch import Batch, Layout
from objectives import registry
from objectives.base import Objective
from objectives.functional import Losses, Term, total

TOY = '''
"""Pulls patch tokens to zero."""
from dataclasses import dataclass

import torch

from data.batch import Batch, Layout
from objectives.base import Objective
from objectives.functional import Losses, Term
from objectives.registry import register


@register("{name}")
class Toy(Objective):
    """A toy."""

    reads, layouts, lm_passes = "documents", (Layout.INTERLEAVED,), 0

    @dataclass(frozen=True, kw_only=True)
    class Config(Objective.Config):
        """Options."""

        weight: float = 2.0

    def forward(self, batch: Batch) -> Losses:
        """Mean square."""
        h = self.encode(batch.images)
        term = Term(h.square().sum(), torch.tensor(float(h.numel())))
        return Losses({{"toy": term}}, {{"toy": self.config.weight}}, {{}})
'''


@pytest.fixture(autouse=True)
def _clean_registry(monkeypatch: pytest.MonkeyPatch):
    before = dict(registry._REGISTERED)
    monkeypatch.setattr(objectives, "__path__", list(objectives.__path__))
    yield
    for name in registry._REGISTERED.keys() - before.keys():
        sys.modules.pop(f"objectives.{name}", None)
        del registry._REGISTERED[name]


def test_adding_an_objective_is_one_file(tmp_path: Path, vision: VisionEncoder, language: LanguageModel) -> None:
    (tmp_path / "toy_zero.py").write_text(TOY.format(name="toy_zero"))
    registry.add_folder(tmp_path)
    assert "toy_zero" in registry.available()
    assert "objectives.toy_zero" not in sys.modules, "listing must not import"
    toy = registry.get("toy_zero")
    assert registry.get("toy_zero") is toy
    assert (toy.name, toy.Config().weight, toy.slots(toy.Config(), 16)) == ("toy_zero", 2.0, 16)
    objective = toy(toy.Config(), vision, language, SPECIAL)
    loss = total(objective(batch(documents(), objective.layouts, slots=16)))
    loss.backward()
    objective.after_step()
    assert loss > 0
    assert all(p.grad is not None for p in vision.parameters())


def test_getting_one_imports_only_that_one(tmp_path: Path) -> None:
    (tmp_path / "toy_one.py").write_text(TOY.format(name="toy_one"))
    (tmp_path / "toy_broken.py").write_text(TOY.format(name="toy_broken") + "\nraise RuntimeError('imported')\n")
    (tmp_path / "shared_code.py").write_text('"""Not an objective."""\nregister = "toy_two"\n')
    registry.add_folder(tmp_path)
    registry.get("toy_one")
    assert {"toy_one", "toy_broken"} <= set(registry.available())
    assert "shared_code" not in registry.available()
    with pytest.raises(RuntimeError, match="imported"):
        registry.get("toy_broken")


def test_infrastructure_is_not_an_objective() -> None:
    files = {path.stem for path in Path(objectives.__path__[0]).glob("*.py")}
    assert {"base", "registry", "functional", "gather", "diagnostics"} <= files - set(registry.available())


def test_unknown_name_suggests_and_lists(tmp_path: Path) -> None:
    (tmp_path / "toy_zero.py").write_text(TOY.format(name="toy_zero"))
    registry.add_folder(tmp_path)
    with pytest.raises(ValueError, match=r"no objective 'toy_zerro'; did you mean 'toy_zero'\? available: .*toy_zero"):
        registry.get("toy_zerro")
    for name in ("base", "../base", "", "qqqqqq"):
        with pytest.raises(ValueError, match=r"no objective .*available: ") as error:
            registry.get(name)
        assert repr(name) in str(error.value)


def test_name_must_be_the_file_s_name() -> None:
    class Misplaced(Objective):
        def forward(self, batch: Batch) -> Losses:
            return Losses({}, {}, {})

    with pytest.raises(ValueError, match=r"Misplaced.*'elsewhere'.*test_registry\.py"):
        registry.register("elsewhere")(Misplaced)
    registry.register("test_registry")(Misplaced)
    with pytest.raises(ValueError, match="registered twice"):
        registry.register("test_registry")(Misplaced)


def test_a_folder_may_not_shadow(tmp_path: Path) -> None:
    (tmp_path / "functional.py").write_text("")
    with pytest.raises(ValueError, match="functional"):
        registry.add_folder(tmp_path)
    with pytest.raises(ValueError, match="no folder"):
        registry.add_folder(tmp_path / "missing")


# What Objective gives its subclasses


class Plain(Objective):
    """The base with nothing added."""

    reads, layouts, lm_passes = "documents", (Layout.INTERLEAVED,), 0

    def forward(self, batch: Batch) -> Losses:
        """Nothing to optimise."""
        h = self.encode(batch.images)
        return Losses({"none": Term(h.sum() * 0, torch.tensor(0.0))}, {"none": 1.0}, {})


@pytest.fixture
def plain(vision: VisionEncoder, language: LanguageModel) -> Plain:
    """An objective without heads."""
    return Plain(Plain.Config(), vision, language, SPECIAL)


def test_an_objective_must_say_how_it_goes_forward(vision: VisionEncoder, language: LanguageModel) -> None:
    with pytest.raises(TypeError, match="abstract"):
        Objective(Objective.Config(), vision, language, SPECIAL)


def test_embed_puts_images_in_their_slots_in_reading_order(plain: Plain) -> None:
    rows = batch(documents(), [Layout.INTERLEAVED], slots=3)[Layout.INTERLEAVED]
    visual = torch.randn(len(rows.img_row), 3, 128, requires_grad=True)
    x = plain.embed(rows, visual)
    for m, (row, boi) in enumerate(zip(rows.img_row.tolist(), rows.img_boi.tolist(), strict=True)):
        assert torch.equal(x[row, boi + 1 : boi + 4], visual[m])
    words = rows.input_ids != SPECIAL.img
    assert torch.equal(x[words], plain.language.embed(rows.input_ids)[words])
    x.sum().backward()
    assert torch.equal(visual.grad, torch.ones_like(visual))
    assert plain.language.decoder.embed_tokens.weight.grad[SPECIAL.img].abs().sum() == 0, "<img> is never embedded"


def test_embed_refuses_another_number_of_slots(plain: Plain) -> None:
    rows = batch(documents(), [Layout.INTERLEAVED], slots=3)[Layout.INTERLEAVED]
    with pytest.raises(ValueError, match=r"18 image slots.*6 images of 4 tokens"):
        plain.embed(rows, torch.randn(6, 4, 128))
    with pytest.raises(ValueError, match=r"18 image slots.*no images"):
        plain.embed(rows)
    text = batch(pairs(2), [Layout.TEXT_ONLY], slots=3)[Layout.TEXT_ONLY]
    assert torch.equal(plain.embed(text), plain.language.embed(text.input_ids))


def test_at_boi_reads_the_state_where_each_image_opens(plain: Plain) -> None:
    rows = batch(documents(), [Layout.INTERLEAVED], slots=2)[Layout.INTERLEAVED]
    hidden = torch.arange(rows.input_ids.numel()).reshape(rows.input_ids.shape)[..., None].float()
    expected = [hidden[row, boi].item() for row, boi in zip(rows.img_row, rows.img_boi, strict=True)]
    assert plain.at_boi(hidden, rows).flatten().tolist() == expected
    assert (rows.input_ids[rows.img_row, rows.img_boi] == SPECIAL.boi).all()


def test_a_batch_without_images_still_reaches_every_vision_parameter(plain: Plain) -> None:
    def edit(x: Tensor) -> Tensor:
        raise AssertionError("the dummy image is not edited")

    h = plain.encode(torch.zeros(0, 3, 32, 32), edit)
    assert h.shape == (0, 16, 128)
    h.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() == 0 for p in plain.vision.parameters())
