"""What is exported loads in timm or open_clip by the line that was printed, and computes the same tokens."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from PIL import Image

from backbones.build import build_vision
from backbones.sizes import SIZES, Size
from data.images import ImageTransform
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
    for name, parameter in vision.named_parameters():
        if name.endswith("bias"):  # zero in the beginning, and then no export could lose it
            torch.nn.init.normal_(parameter)
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


@torch.no_grad()
@pytest.mark.parametrize(
    "changed", [{}, {"layer_scale": 0.1}, {"pre_norm": True, "norm_eps": 1e-5}], ids=["plain", "scaled", "pre_norm"]
)
def test_open_clip_loads_it_in_the_line_that_is_printed(
    changed: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = SIZES["tiny"]
    vision = pretrained(tmp_path / "run", replace(tiny, vision=replace(tiny.vision, **changed)))
    asked = [str(tmp_path / "run"), str(tmp_path / "lcl"), "--to", "open_clip"]
    assert export.main(asked) == 0
    model = eval(capsys.readouterr().out, {"open_clip": open_clip}).eval()
    images = torch.randn(2, 3, 32, 32)
    tokens = vision.tokens(images)
    torch.testing.assert_close(model.encode_image(images), tokens[:, 1:].mean(dim=1), atol=1e-5, rtol=1e-5)
    found = model.visual.forward_intermediates(
        images, indices=1, normalize_intermediates=True, output_fmt="NLC", output_extra_tokens=True
    )
    theirs = torch.cat([found["image_intermediates_prefix"][0], found["image_intermediates"][0]], dim=1)
    torch.testing.assert_close(theirs, tokens, atol=1e-5, rtol=1e-5)
    transform = ImageTransform(32)
    picture = Image.effect_noise((50, 40), 60).convert("RGB")
    expected = transform.normalise(torch.from_numpy(transform.eval(picture))[None])[0]
    prepared = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'lcl'}")[2](picture)
    torch.testing.assert_close(prepared, expected, atol=1e-5, rtol=1e-5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lcl", "run"]
    assert export.main(asked) == 2
    assert "is there already" in capsys.readouterr().err


def test_what_cannot_be_exported_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrained(tmp_path / "run", SIZES["tiny"])
    assert export.main([str(tmp_path / "run"), str(tmp_path / "x.pt")]) == 2
    assert "name a .safetensors" in capsys.readouterr().err
    assert export.main([str(tmp_path), str(tmp_path / "x.safetensors")]) == 2
    assert "holds no encoder.safetensors" in capsys.readouterr().err
    tiny = SIZES["tiny"]
    pretrained(tmp_path / "normed", replace(tiny, vision=replace(tiny.vision, norm_eps=1e-5)))
    assert export.main([str(tmp_path / "normed"), str(tmp_path / "x.safetensors")]) == 2
    assert "timm's norms have an eps of 1e-06, this encoder's 1e-05; use --to open_clip" in capsys.readouterr().err
    assert export.main([str(tmp_path / "run"), str(tmp_path / "run" / "spec.json" / "x.safetensors")]) == 1
    assert "spec.json" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrained(tmp_path / "run", SIZES["tiny"])
    for to, name in (("timm", "x.safetensors"), ("open_clip", "lcl")):
        assert export.main([str(tmp_path / "run"), str(tmp_path / to / "new" / name), "--to", to]) == 0
        assert [path.name for path in (tmp_path / to / "new").iterdir()] == [name]
