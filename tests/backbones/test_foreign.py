"""Encoders from elsewhere give the tokens of their library, with weights from a file; what does not fit is named."""

import json
import socket
from pathlib import Path

import huggingface_hub.constants
import open_clip
import pytest
import timm
import torch
from open_clip.transformer import VisionTransformer
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

from backbones.foreign import openclip
from backbones.foreign.source import Preprocess, load, parse, rebuild
from backbones.foreign.weights import read_weights
from backbones.tower import BeforeLast, Tower, add_drop_path, layer_scales
from transfer.pictures import gradient_norm

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 2,
         "image_size": 32, "patch_size": 8}  # fmt: skip


def shaken(module: nn.Module) -> nn.Module:
    """No norm is the identity and no bias zero, as after training."""
    torch.manual_seed(0)
    for parameter in module.parameters():
        if parameter.ndim <= 1:
            nn.init.normal_(parameter, mean=0.3)
    return module.eval()


@pytest.fixture
def small_clip(tmp_path: Path) -> str:
    """An open_clip architecture of our own, as a user adds one."""
    config = {
        "embed_dim": 48,
        "vision_cfg": {"image_size": 32, "layers": 3, "width": 64, "head_width": 32, "patch_size": 8},
        "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1},
    }
    (tmp_path / "ViT-test-8.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path / "ViT-test-8.json")
    return "ViT-test-8"


def images(side: int = 32) -> Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_open_clip(small_clip: str, tmp_path: Path) -> None:
    model = shaken(open_clip.create_model(small_clip))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "clip.safetensors")
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "c.pt")
    model.visual.output_tokens = True
    pooled, patches = model.visual(images())
    for file in ("clip.safetensors", "c.pt"):  # as saved by hand, and as open_clip's training saves
        found = load(f"open_clip:{small_clip}", tmp_path / file)
        tokens = found.tower.tokens(images())
        torch.testing.assert_close(tokens[:, 1:], patches, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(tokens[:, 0] @ model.visual.proj, pooled, atol=1e-5, rtol=1e-5)
        assert (found.tower.num_prefix_tokens, found.tower.num_patches, found.tower.width) == (1, 16, 64)
        assert found.preprocess.size == 32 and found.preprocess.mean == open_clip.OPENAI_DATASET_MEAN


@torch.no_grad()
@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_base_patch16_siglip_224",
        "deit_tiny_distilled_patch16_224",
        "vit_small_patch14_dinov2",
    ],
)
def test_timm(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 2, "patch_size": 8}
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **{**given, **small}))
    model = shaken(timm.create_model(name, num_classes=7))
    torch.save(model.state_dict(), tmp_path / "timm.pth")
    found = load(f"timm:{name}", tmp_path / "timm.pth")
    torch.testing.assert_close(found.tower.tokens(images()), model.forward_features(images()), atol=1e-5, rtol=1e-5)
    count = found.tower.num_prefix_tokens + found.tower.num_patches
    assert found.tower.tokens(images()).shape == (3, count, 64)
    assert found.preprocess.mean == tuple(model.pretrained_cfg["mean"])
    assert found.preprocess.interpolation == model.pretrained_cfg["interpolation"]


@torch.no_grad()
@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_hugging_face_clip(activation: str, tmp_path: Path) -> None:
    model = shaken(CLIPVisionModel(CLIPVisionConfig(**SMALL, hidden_act=activation)))
    model.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3], "resample": 2}')
    found = load(f"hf:{tmp_path}", None)
    tokens = found.tower.tokens(images())
    out = model(pixel_values=images())
    torch.testing.assert_close(tokens, model.post_layernorm(out.last_hidden_state), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(tokens[:, 0], out.pooler_output, atol=1e-5, rtol=1e-5)
    assert found.preprocess.mean == (0.1, 0.2, 0.3) and found.preprocess.interpolation == "bilinear"


@torch.no_grad()
def test_hugging_face_siglip(tmp_path: Path) -> None:
    model = shaken(SiglipVisionModel(SiglipVisionConfig(**SMALL)))
    model.save_pretrained(tmp_path)
    found = load("hf:", tmp_path)
    expected = model(pixel_values=images()).last_hidden_state
    torch.testing.assert_close(found.tower.tokens(images()), expected, atol=1e-5, rtol=1e-5)
    assert found.tower.num_prefix_tokens == 0 and found.preprocess.mean == (0.5, 0.5, 0.5)


def test_a_siglip_is_prepared_alike_whatever_library_it_is_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"img_size": 32, "embed_dim": 64, "depth": 2, "num_heads": 2, "patch_size": 8}
    make = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **given: make(name, **{**given, **small}))
    name = "vit_base_patch16_siglip_224"
    torch.save(timm.create_model(name, num_classes=0).state_dict(), tmp_path / "timm.pth")
    monkeypatch.setattr(openclip, "read_weights", lambda _: {})
    monkeypatch.setattr(openclip, "fill", lambda *_: None)
    monkeypatch.setattr(openclip, "rebuild", lambda _: rebuild("timm:", {"name": name}))
    SiglipVisionModel(SiglipVisionConfig(**SMALL)).save_pretrained(tmp_path / "hf")
    found = [
        load(f"timm:{name}", tmp_path / "timm.pth").preprocess,
        load("open_clip:ViT-B-16-SigLIP", tmp_path / "any").preprocess,  # a user's own weights
        load("hf:", tmp_path / "hf").preprocess,
    ]
    said = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3, "size": {"height": 32, "width": 32}}
    (tmp_path / "hf" / "preprocessor_config.json").write_text(json.dumps(said))
    found.append(load("hf:", tmp_path / "hf").preprocess)
    half = (0.5, 0.5, 0.5)
    assert found == [Preprocess(size=32, mean=half, std=half, interpolation="bicubic", resize="squash")] * 4


@pytest.mark.parametrize(
    "said, resize",
    [
        ({"size": {"shortest_edge": 32}, "do_center_crop": True}, "shortest"),
        ({"size": 32}, "shortest"),
        ({"size": {"height": 32, "width": 32}, "do_center_crop": True}, "shortest"),
        ({"size": {"height": 32, "width": 32}, "do_center_crop": False}, "squash"),
        ({}, "shortest"),
    ],
)
def test_a_folder_says_how_pictures_become_square(said: dict[str, object], resize: str, tmp_path: Path) -> None:
    CLIPVisionModel(CLIPVisionConfig(**SMALL)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    assert load("hf:", tmp_path).preprocess.resize == resize


def test_a_cached_hub_name_prepares_pictures_as_its_folder_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = tmp_path / "hub" / "models--someone--small"
    folder = cached / "snapshots" / "abc"
    CLIPVisionModel(CLIPVisionConfig(**SMALL)).save_pretrained(folder)
    said = {"image_mean": [0.5] * 3, "resample": 2, "size": {"height": 32, "width": 32}}
    (folder / "preprocessor_config.json").write_text(json.dumps(said))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("abc")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    found = load("hf:someone/small", None).preprocess
    assert found == load("hf:", folder).preprocess
    assert (found.mean, found.interpolation, found.resize) == ((0.5, 0.5, 0.5), "bilinear", "squash")


@pytest.mark.parametrize("said", [{"resample": 1}, {"do_normalize": False}, {"do_rescale": False}])
def test_a_preparation_that_ours_is_not_is_refused(said: dict[str, object], tmp_path: Path) -> None:
    CLIPVisionModel(CLIPVisionConfig(**SMALL)).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    ((name, value),) = said.items()
    with pytest.raises(ValueError, match=f"preprocessor_config.json asks for .*{name} {value}"):
        load("hf:", tmp_path)


def test_two_models_at_once_are_refused(tmp_path: Path) -> None:
    for source in ("hf:someone/small", f"lcl:{tmp_path / 'a.pt'}"):
        with pytest.raises(ValueError, match="name two .*; leave one out"):
            load(source, tmp_path / "b")


def test_weights_of_ones_own_have_the_activation_that_all_published_ones_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """open_clip keeps the activation of ViT-L-14-336 with its tags: nothing in the configuration says it."""
    monkeypatch.setattr(openclip, "read_weights", lambda path: {})
    monkeypatch.setattr(openclip, "fill", lambda *given: None)
    made = []
    monkeypatch.setattr(openclip, "_build_vision_tower", lambda embed, config, quick: made.append(quick) or visual)
    visual = VisionTransformer(32, 8, 64, 1, 2, 4.0, output_dim=48)
    for name in ("ViT-L-14-336", "ViT-L-14", "ViT-B-32-quickgelu"):
        load(f"open_clip:{name}", tmp_path / "own.pt")
    assert made == [True, False, True]  # weights of ViT-L-14 were published with either


def test_a_tower_beside_a_text_model_of_the_hub_is_built_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*given: object) -> None:
        raise AssertionError("looked up a name")

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    tower = openclip.rebuild({"architecture": "xlm-roberta-base-ViT-B-32", "quick_gelu": False})
    assert tower.num_patches == 49


def released(tmp_path: Path) -> tuple[VisionTransformer, Path]:
    """A checkpoint with every key the released one has, of a small model."""
    visual = shaken(VisionTransformer(32, 8, 128, 2, 2, 4.0, output_dim=48, output_tokens=True))
    visual.proj = None
    keys = {f"visual.{k}": v for k, v in visual.state_dict().items()}
    others = ("text.token_embedding.weight", "text.transformer.resblocks.0.ln_1.weight", "text.ln_final.bias",
              "text.text_projection", "pool_project.query_token", "pool_project.pooler.cross_attn.v_bias",
              "lm_head.1.weight", "logit_scale")  # fmt: skip
    keys |= dict.fromkeys(others, torch.ones(2))
    torch.save({"state_dict": keys, "epoch": 32, "name": "lcl"}, tmp_path / "lcl.pt")
    return visual, tmp_path / "lcl.pt"


@torch.no_grad()
def test_the_released_lcl(tmp_path: Path) -> None:
    visual, path = released(tmp_path)
    found = load("lcl:", path)
    torch.testing.assert_close(found.tower.tokens(images())[:, 1:], visual(images())[1], atol=1e-5, rtol=1e-5)
    assert found.architecture["size"]["pre_norm"] and found.architecture["size"]["depth"] == 2
    weights = read_weights(path)
    torch.save({**weights, "adapter.weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"keys of no known part of the model: adapter\.weight"):
        load("lcl:", path)
    torch.save({**weights, "visual.extra": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"1 unexpected \(extra\)"):
        load("lcl:", path)


def every(tmp_path: Path, small_clip: str) -> dict[str, Tower]:
    save_file(
        {k: v.contiguous() for k, v in open_clip.create_model(small_clip).state_dict().items()},
        tmp_path / "c.safetensors",
    )
    CLIPVisionModel(CLIPVisionConfig(**SMALL)).save_pretrained(tmp_path / "clip")
    SiglipVisionModel(SiglipVisionConfig(**SMALL)).save_pretrained(tmp_path / "siglip")
    return {
        "open_clip": load(f"open_clip:{small_clip}", tmp_path / "c.safetensors").tower,
        "clip": load("hf:", tmp_path / "clip").tower,
        "siglip": load("hf:", tmp_path / "siglip").tower,
        "timm": rebuild("timm:", {"name": "vit_tiny_patch16_224"}),
        "lcl": load("lcl:", released(tmp_path)[1]).tower,
    }


def test_every_tower_shows_its_blocks_final_norm_and_branches(tmp_path: Path, small_clip: str) -> None:
    for name, tower in every(tmp_path, small_clip).items():
        scales = layer_scales(tower, 0.5)
        assert scales.keys() == {id(p) for p in tower.parameters()}, name
        depth = len(tower.blocks)
        assert min(scales.values()) == 0.5 ** (depth + 1) and max(scales.values()) == 1.0, name
        pixels = images(tower.image_size)
        tower.tokens(pixels).square().sum().backward()
        without = [n for n, p in tower.named_parameters() if p.grad is None]
        assert not without, f"{name}: {without} take no part"
        plain = tower.eval().tokens(pixels)
        add_drop_path(tower, 0.9)
        assert torch.equal(tower.eval().tokens(pixels), plain), name
        tower.train()
        # With all branches but the first block's dropped, a block gives what it got.
        assert not torch.equal(tower.tokens(pixels), plain), name


def test_tokens_of_the_block_before_the_last_are_what_the_last_one_reads(tmp_path: Path, small_clip: str) -> None:
    towers = every(tmp_path, small_clip)
    for name, tower in towers.items():
        cut, pictures = BeforeLast(tower), images(tower.image_size)
        found = cut.tokens(pictures)
        assert found.shape == tower.tokens(pictures).shape == (len(pictures), cut.num_prefix_tokens + cut.num_patches,
                                                               cut.width), name  # fmt: skip
        found.sum().backward()
        assert all(gradient_norm(block) > 0 for block in cut.blocks), name
        assert len(cut.blocks) == len(tower.blocks) - 1 and gradient_norm(tower.blocks[-1]) == 0, name
        assert not tower.blocks[-1]._forward_pre_hooks, name


@torch.no_grad()
def test_what_is_built_again_takes_the_weights_and_gives_the_tokens(tmp_path: Path, small_clip: str) -> None:
    model = shaken(open_clip.create_model(small_clip))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, tmp_path / "c.safetensors")
    CLIPVisionModel(CLIPVisionConfig(**SMALL)).save_pretrained(tmp_path / "clip")
    for source, weights in ((f"open_clip:{small_clip}", tmp_path / "c.safetensors"), ("hf:", tmp_path / "clip"),
                            ("lcl:", released(tmp_path)[1])):  # fmt: skip
        found = load(source, weights)
        again = rebuild(source, found.architecture)
        again.load_state_dict(found.tower.state_dict())
        assert torch.equal(again.tokens(images()), found.tower.tokens(images())), source


# ---- what does not fit


def test_another_architecture_s_weights_are_refused_with_their_keys(tmp_path: Path, small_clip: str) -> None:
    model = open_clip.create_model(small_clip)
    weights = {k: v.contiguous() for k, v in model.state_dict().items()}
    del weights["visual.ln_post.bias"]
    weights["visual.conv1.weight"] = torch.ones(64, 3, 4, 4)
    weights["visual.strange"] = torch.ones(1)
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ValueError) as error:
        load(f"open_clip:{small_clip}", tmp_path / "w.safetensors")
    said = str(error.value)
    assert "1 missing (ln_post.bias)" in said and "1 unexpected (strange)" in said
    assert "conv1.weight (64, 3, 4, 4) instead of (64, 3, 8, 8)" in said


class Trap:
    """Unpickling it would run code."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("/tmp/opened-by-a-pickle", "w"))  # type: ignore[return-value]


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(1)}, "args": Trap()}, tmp_path / "evil.pt")
    with pytest.raises(ValueError, match="holds more than tensors|cannot be read as weights"):
        load("lcl:", tmp_path / "evil.pt")
    assert not Path("/tmp/opened-by-a-pickle").exists()


@pytest.mark.parametrize(
    "source, message",
    [
        ("ViT-B-32", "names no source; write one of open_clip:"),
        ("open_clip:ViT-Q-99", "open_clip has no architecture 'ViT-Q-99'"),
        ("open_clip:RN50", "which has no tokens; choose a ViT"),
        ("timm:vit_huge_of_mine", "timm has no model"),
        ("timm:resnet18", "is no vision transformer"),
        ("open_clip:ViT-B-32/nobody", "has no weights 'nobody'; there are .*laion400m_e32"),
        ("lcl:", "needs --weights FILE"),
    ],
)
def test_what_is_not_there_is_named(source: str, message: str, tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=message):
        load(source, None if source in ("lcl:",) else tmp_path / "w.safetensors")


def test_weights_that_were_never_fetched_are_not_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openclip, "try_to_load_from_cache", lambda repository, name: None)
    with pytest.raises(
        ValueError, match=r"not on this machine.*open_clip\.create_model\('ViT-B-32', pretrained='laion400m_e32'\)"
    ):
        load("open_clip:ViT-B-32/laion400m_e32", None)
    with pytest.raises(ValueError, match="no model at"):
        load("hf:someone/nothing", None)
    with pytest.raises(ValueError, match="there are no weights at"):
        load("lcl:", tmp_path / "nothing.pt")


def test_names_are_taken_apart() -> None:
    assert parse("open_clip:ViT-L-14/laion400m_e32") == ("open_clip", "ViT-L-14/laion400m_e32")
