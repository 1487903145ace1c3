"""An encoder from elsewhere, or one trained here, is evaluated by one command; what cannot be says why at once."""

import json
import re
from pathlib import Path

import pytest
import torch
from llm_helpers import MODELS, saved
from sweep_helpers import BUDGET, small_suite, with_corpus
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel, SiglipVisionConfig, SiglipVisionModel

from experiments import evaluate
from experiments.configuration.corpora import with_embedded
from experiments.configuration.recipe import get_scale
from experiments.launching.preflight import with_precision
from experiments.planning.catalogue import Suite
from experiments.planning.resolver import Resolver
from experiments.running.stages import transfer
from results import record
from results.schema import Kind, Row, Status

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_suite(monkeypatch)


@pytest.fixture(scope="module")
def runs(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return with_corpus(tmp_path_factory.mktemp("evaluate") / "runs", corpus)


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small CLIP vision tower as transformers saves it."""
    folder = tmp_path_factory.mktemp("tower")
    torch.manual_seed(3)
    config = CLIPVisionConfig(
        hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8
    )
    CLIPVisionModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5, 0.4, 0.3], "resample": 2}))
    return folder


def arguments(runs: Path, *more: str) -> list[str]:
    settings = [part for change in BUDGET for part in ("--set", change)]
    return ["--runs", str(runs), *settings, *more]


def test_one_command_evaluates_frozen_and_full_and_again_does_nothing(
    runs: Path, tower: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = arguments(runs, "--encoder", f"hf:{tower}", "--tasks", "classify,retrieve")
    assert evaluate.main(asked) == 0
    frozen = capsys.readouterr().out
    assert "| classify | imagenet  | acc1 " in frozen and "| retrieve | flickr30k | ir1 " in frozen
    assert "frozen, cached pictures, seed 0" in frozen
    assert evaluate.main([*asked, "--mode", "full"]) == 0
    full = capsys.readouterr().out
    assert "full, augmented pictures, seed 0" in full
    records = [record.read(path) for path in runs.glob("*/record.json")]
    (encoder,) = [found for found in records if found.kind is Kind.ENCODER]
    assert {found.parent for found in records if found.kind is Kind.TRANSFER} == {encoder.run_id}
    assert str(tower) not in json.dumps([dict(found.spec) for found in records])  # content names runs, no path does
    assert encoder.resolved["preprocess"]["mean"] == [0.5, 0.4, 0.3]

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was trained")

    monkeypatch.setattr(transfer, "fit", refuse)
    moved = tower.rename(tower.with_name("moved"))
    assert evaluate.main(arguments(runs, "--encoder", f"hf:{moved}", "--tasks", "retrieve,classify")) == 0
    again = capsys.readouterr().out
    moved.rename(tower)
    assert sorted(line for line in again.splitlines() if line.startswith("| ")) == sorted(
        line for line in frozen.splitlines() if line.startswith("| ")
    )


def test_the_pre_processing_of_the_encoder_is_used(runs: Path, tower: Path) -> None:
    from experiments.configuration.place import Place
    from experiments.configuration.recipe import get_scale
    from experiments.running.stages.foreign import take_in
    from experiments.running.world import load_encoder

    place = Place(runs=runs, data=get_scale("tiny").config.data)
    run = take_in("hf:", tower, place, get_scale("tiny").config.slurm)  # any dataclass: nothing reads it here
    encoder = load_encoder(place, run.run_id)
    assert (encoder.transform.mean, encoder.transform.interpolation) == ((0.5, 0.4, 0.3), "bilinear")  # type: ignore[attr-defined]
    assert isinstance(encoder.module, nn.Module) and encoder.module.width == 64


def test_a_squashed_picture_belongs_to_the_encoder_and_renames_no_other(
    runs: Path, tower: Path, tmp_path: Path
) -> None:
    from experiments.configuration.place import Place
    from experiments.configuration.recipe import get_scale
    from experiments.running.stages.foreign import take_in
    from experiments.running.world import load_encoder

    place = Place(runs=runs, data=get_scale("tiny").config.data)
    torch.manual_seed(3)
    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 2}
    SiglipVisionModel(SiglipVisionConfig(**small, image_size=32, patch_size=8)).save_pretrained(tmp_path)
    siglip, clip = (take_in("hf:", folder, place, get_scale("tiny").config.slurm) for folder in (tmp_path, tower))
    assert load_encoder(place, siglip.run_id).transform.resize == "squash"  # type: ignore[attr-defined]
    assert load_encoder(place, clip.run_id).transform.resize == "shortest"  # type: ignore[attr-defined]
    assert "resize" not in clip.plain["preprocess"]  # its name is that of before there was a choice


def test_captions_are_written_by_a_model_of_transformers(
    runs: Path, tower: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved(tmp_path / "small-llama", MODELS["tied"]())
    asked = arguments(runs, "--encoder", f"hf:{tower}", "--tasks", "caption")
    assert evaluate.main([*asked, "--llm", model]) == 0
    said = capsys.readouterr().out
    assert "- caption: written by small-llama " in said and "| caption | coco " in said
    assert "- coco/cider with the captions of another image: " in said and "without an image" not in said
    (found,) = (
        each
        for path in runs.glob("transfer-caption*/record.json")
        if (each := record.read(path)).resolved["language"] == "llm"
    )
    assert model not in json.dumps(dict(found.spec))  # content names runs, no path does
    monkeypatch.setattr(transfer, "fit", lambda *_, **__: pytest.fail("something was trained"))
    (tmp_path / "other").mkdir()
    again = str(Path(model).rename(tmp_path / "other" / "small-llama"))
    assert evaluate.main([*asked, "--llm", again]) == 0
    monkeypatch.undo()
    small_suite(monkeypatch)
    capsys.readouterr()
    assert evaluate.main(arguments(runs, "--mode", "blind", "--tasks", "caption", "--llm", again)) == 0
    (blind,) = re.findall(r"^\| caption \| coco +\| cider +\| +(\S+) ", capsys.readouterr().out, flags=re.MULTILINE)
    assert evaluate.main([*asked, "--llm", again]) == 0
    assert f"- coco/cider without an image: {blind}; the difference is " in capsys.readouterr().out


def test_damaged_weights_of_an_encoder_block_its_transfers(
    runs: Path, tower: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    torch.manual_seed(9)
    other = tower.with_name("other")
    CLIPVisionModel(CLIPVisionConfig.from_pretrained(tower)).save_pretrained(other)
    asked = arguments(runs, "--encoder", f"hf:{other}", "--tasks", "classify", "--set", "transfer.classify.lr=0.01")
    before = set(runs.glob("encoder-*"))
    assert evaluate.main(asked) == 0
    (folder,) = set(runs.glob("encoder-*")) - before
    weights = load_file(folder / "encoder.safetensors")
    save_file({key: value + 1 for key, value in weights.items()}, folder / "encoder.safetensors")
    (folder / "record.json").unlink()
    capsys.readouterr()
    assert evaluate.main([*asked, "--set", "transfer.classify.weight_decay=0.1"]) == 3
    assert "holds weights" in capsys.readouterr().out
    assert record.read(folder / "record.json").status is Status.FAILED


@pytest.mark.parametrize(
    "more, message",
    [
        (["--encoder", "ViT-B-32"], "names no source; write one of open_clip:"),
        (["--encoder", "lcl:", "--weights", "nothing.pt"], "there are no weights at nothing.pt"),
        (
            ["--encoder", "hf:nowhere", "--tasks", "classfy"],
            "unknown transfer task 'classfy'. Did you mean 'classify'?",
        ),
        (["--encoder", "hf:nowhere", "--tasks", ","], "--tasks names none"),
        (["--encoder", "hf:nowhere", "--tasks", "classify", "--llm", "x"], "--llm x is not read: it writes captions"),
        (["--encoder", "hf:nowhere", "--seed", "-1"], "--seed is a whole number from 0 on, got -1"),
        (["--encoder", ".", "--weights", "x"], "--weights x is not read"),
        (["--tasks", "classify"], "--mode frozen transfers an encoder: add --encoder SOURCE"),
        (["--mode", "blind", "--encoder", "x"], "--encoder x is not read: --mode blind trains a head without an image"),
        (["--mode", "blind"], "--mode blind is for captions, and --tasks is classify,retrieve,caption; add --tasks"),
        (["--encoder", "."], "is no run of"),
        (["--encoder", "hf:nowhere", "--scale", "base16"], "no model at 'nowhere'"),
    ],
)
def test_what_cannot_be_evaluated_says_why(
    more: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["--runs", str(tmp_path / "runs"), *more]) == 2
    assert message in capsys.readouterr().err


def test_an_encoder_that_is_not_finished_is_refused(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config, known = with_embedded(with_precision(get_scale("tiny").config), runs, uses_it=True)
    made = Resolver(config, Suite(), known).pretrain(config, Row(label="Random", objective=None, data="mmc4"), 99)
    made.written.save(runs / made.run_id)
    assert evaluate.main(arguments(runs, "--encoder", str(runs / made.run_id), "--tasks", "classify")) == 2
    assert f"{made.run_id} is no finished run" in capsys.readouterr().err
    assert not (runs / made.run_id / record.RECORD_FILE).exists()
