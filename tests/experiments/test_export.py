"""What is exported loads in timm by the line that was printed, and computes the same tokens."""

from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from backbones.build import build_vision
from backbones.sizes import SIZES, Size
from experiments import export
from experiments.planning.specs import PretrainSpec, written
from experiments.running.world import save_encoder
from results.canonical import plain


def pretrained(folder: Path, size: Size) -> torch.nn.Module:
    """A pre-training run's folder, as far as an export reads it; its encoder."""
    folder.mkdir()
    spec = PretrainSpec(
        protocol=2,
        objective=None,
        data=None,
        model=plain(size),
        images=0,
        images_per_step=0,
        optim=None,
        seed=0,
        inputs={},
    )
    written(spec, {"model": size}).save(folder)
    vision = build_vision(size, 0).eval()
    save_encoder(folder, vision)
    return vision


@torch.no_grad()
@pytest.mark.parametrize("layer_scale", [None, 0.1])
def test_timm_loads_it_in_the_line_that_is_printed(
    layer_scale: float | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = SIZES["tiny"]
    vision = pretrained(tmp_path / "run", replace(tiny, vision=replace(tiny.vision, layer_scale=layer_scale)))
    assert export.main([str(tmp_path / "run"), str(tmp_path / "lcl.safetensors")]) == 0
    model = eval(capsys.readouterr().out, {"timm": timm}).eval()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.forward_features(images), vision.tokens(images), atol=1e-5, rtol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lcl.safetensors", "run"]


def test_what_cannot_be_exported_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main([str(tmp_path), str(tmp_path / "x.pt")]) == 2
    assert "name a .safetensors" in capsys.readouterr().err
    assert export.main([str(tmp_path), str(tmp_path / "x.safetensors")]) == 2
    assert "holds no encoder.safetensors" in capsys.readouterr().err
