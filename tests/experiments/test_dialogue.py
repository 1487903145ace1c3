"""`python -m experiments.dialogue`: two stages on an encoder, frozen, full and blind, scored and resumed."""

import json
import shutil

import pytest
from llm_helpers import MODELS, SHAPE, saved
from transformers import LlamaConfig, LlamaForCausalLM

from data.toyworld.dialogue import write_dialogue
from data.toyworld.spec import ToyDialogueSpec
from experiments import dialogue
from experiments.configuration.corpora import with_embedded
from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.launching.preflight import with_precision
from experiments.planning.catalogue import Suite
from experiments.planning.resolver import Resolver
from experiments.running.lifecycle import execute
from experiments.running.saved import saved as saved_of
from experiments.running.stages import dialogue as stage
from experiments.running.stopping import Stopped
from results import record
from results.schema import Row, Status


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Runs with an untrained encoder, a language model and a small dialogue corpus."""
    folder = tmp_path_factory.mktemp("dialogue")
    config, known = with_embedded(with_precision(get_scale("tiny").config), folder / "runs", uses_it=True)
    row = Row(label="Random", objective=None, data="mmc4")
    made = Resolver(config, Suite(), known).pretrain(config, row, 0)
    made.written.save(folder / "runs" / made.run_id)
    assert execute(made.run_id, Place(runs=folder / "runs", data=config.data), "tiny") is Status.DONE
    write_dialogue(folder / "toy", ToyDialogueSpec(align=24, tune=6, test=2))
    shape = {**SHAPE, "max_position_embeddings": 1024}
    saved(folder / "llm", LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False)))
    return folder, made.run_id


@pytest.fixture
def run(place):
    folder, encoder = place
    small = {"epochs": 1, "batch": 8, "longest": 640}  # a tokenizer of almost nothing but bytes
    changes = [f"dialogue.{stage}.{key}={value}" for stage in ("align", "tune") for key, value in small.items()]
    changes.append("dialogue.tune.answer_tokens=2")

    def one(*more):
        used = changes[0 if "blind" not in more else len(small) :]  # without a picture there is no stage 1
        sets = [part for change in used for part in ("--set", change)]
        given = {"--encoder": folder / "runs" / encoder, "--data": folder / "toy", "--llm": folder / "llm"}
        return dialogue.main([*(str(part) for pair in given.items() for part in pair), *sets, *map(str, more)])

    return one


def runs(folder, name):
    return sorted((folder / "runs").glob(f"dialogue-{name}*"))


@pytest.mark.slow
def test_frozen_full_and_blind_are_trained_scored_and_never_again(place, run, capsys):
    folder, encoder = place
    for mode in ("frozen", "full", "blind"):
        assert run("--mode", mode) == 0
        said = capsys.readouterr().out
        assert "in the form of pope |" in said and "in the form of gqa " in said and f"- {mode}, seed 0" in said
    assert len(runs(folder, "align")) == 1  # frozen and full start from one first stage; blind has none
    frozen, full, blind = (runs(folder, f"tune-{name}")[0] for name in ("initial", "full", "blind"))
    for path in (frozen, full, blind):
        found = record.read(path / record.RECORD_FILE)
        assert found.status is Status.DONE and found.items == {"gqa": 8, "pope": 36}
        assert {"gqa/gqa_acc", "pope/pope", "pope/F1 popular"} <= found.metrics.keys()
        assert ("pope/shuffled_pope" in found.metrics) == (path != blind)
        answers = [json.loads(line) for line in (path / "answers" / "pope.jsonl").read_text().splitlines()]
        assert len(answers) == 36 and {"question_id", "prompt", "text"} == answers[0].keys()
    assert (frozen / "metrics.jsonl").read_text() != (full / "metrics.jsonl").read_text()
    assert "grad_norm_vision" in (full / "metrics.jsonl").read_text()
    stamps = {path: path.stat().st_mtime_ns for path in frozen.iterdir()}
    assert run("--mode", "frozen") == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in frozen.iterdir()}


def test_what_cannot_be_used_is_said_before_anything_is_trained(place, run, tmp_path, capsys):
    folder, _ = place
    before = len(runs(folder, ""))
    assert run("--data", tmp_path) == 2
    assert "align.json; it takes LLaVA's records of stage 1" in capsys.readouterr().err
    for name in ("align", "tune"):
        (tmp_path / f"{name}.json").write_text("[]")
    assert run("--data", tmp_path) == 2
    assert "has no folder of a benchmark" in capsys.readouterr().err
    write_dialogue(tmp_path / "own", ToyDialogueSpec(align=2, tune=2, test=2))
    (tmp_path / "own" / "gqa" / "pictures" / "000001.jpg").unlink()
    assert run("--data", tmp_path / "own") == 2
    said = capsys.readouterr().err
    assert "of 2 pictures that gqa asks about 1 cannot be read, first" in said and "000001.jpg (missing_image" in said
    (tmp_path / "own" / "gqa" / "pictures" / "000001.jpg").write_bytes(b"<html>")
    assert run("--data", tmp_path / "own") == 2
    assert "000001.jpg (decode_error" in capsys.readouterr().err
    (tmp_path / "own" / "images" / "tune").rename(tmp_path / "own" / "images" / "lost")
    assert run("--data", tmp_path / "own") == 2
    assert "tune.json holds no conversation that can be learned from (missing_image 4, as" in capsys.readouterr().err
    (tmp_path / "own" / "tune.json").unlink()
    assert run("--data", tmp_path / "own") == 2
    assert "tune.json; it takes LLaVA's records of stage 2" in capsys.readouterr().err
    assert run("--encoder", folder / "toy") == 2
    assert "is no finished run" in capsys.readouterr().err
    assert run("--mode", "blind", "--set", "dialogue.align.epochs=2") == 2
    assert "dialogue.align.epochs would change nothing: --mode blind has no stage 1" in capsys.readouterr().err
    assert run("--mode", "frozen", "--set", "dialogue.tune.vision.lr=1e-5") == 2
    assert "vision.lr would change nothing: only --mode full trains the encoder; leave" in capsys.readouterr().err
    for name, option in (("transfer_seed=5", "--seed"), ("data.llm=x", "--llm"), ("data.dialogue=/x", "--data")):
        assert run("--set", name) == 2
        assert f"--set {name}: here it is {option}" in capsys.readouterr().err
    assert run("--llm", "nowhere") == 2
    assert "no language model 'nowhere'" in capsys.readouterr().err
    assert len(runs(folder, "")) == before


@pytest.mark.slow
def test_questions_that_do_not_fit_are_told_before_training(place, run):
    folder, _ = place
    before = runs(folder, "tune")
    short = saved(folder / "short", MODELS["own head"]())
    assert run("--mode", "blind", "--llm", short) == 3
    (made,) = set(runs(folder, "tune")) - set(before)
    assert "tokens with its answer, the language model reads 64" in record.read(made / record.RECORD_FILE).reason
    assert not (made / "metrics.jsonl").exists()


@pytest.mark.slow
def test_stopped_while_answering_it_goes_on_and_answers_of_other_weights_are_dropped(place, run, monkeypatch, capsys):
    folder, _ = place
    asked = ("--mode", "blind", "--seed", "1")
    whole, calls = stage.answers, []

    def stopped(*given):
        calls.append(len(given[2]))
        if len(calls) == 2:
            raise Stopped("stopped by SIGTERM")
        return whole(*given)

    monkeypatch.setattr(stage, "answers", stopped)
    assert run(*asked) == 130
    (made,) = (path for path in runs(folder, "tune-blind-s1") if not (path / record.RECORD_FILE).exists())
    said = made / "answers" / "gqa.jsonl"
    assert saved_of(made).step > 0 and len(said.read_text().splitlines()) == calls[0]
    curve = (made / "metrics.jsonl").read_bytes()
    monkeypatch.setattr(stage, "answers", whole)
    said.write_text(said.read_text().replace('"text": "', '"text": "kept '))
    shutil.copytree(made, folder / "copy")
    assert run(*asked) == 0
    assert (made / "metrics.jsonl").read_bytes() == curve  # nothing was trained again
    assert said.read_text().count('"text": "kept ') == calls[0]
    shutil.rmtree(made)
    shutil.copytree(folder / "copy", made)
    shutil.rmtree(made / "checkpoint")  # as a message about changed source says: it is trained anew
    assert run(*asked) == 0
    assert '"text": "kept ' not in said.read_text()
    shutil.rmtree(made)
    shutil.copytree(folder / "copy", made)
    for weights in (made / "checkpoint").glob("step-*/tensors.safetensors"):
        weights.write_bytes(weights.read_bytes()[:100])  # torn
    assert run(*asked) == 0
    assert '"text": "kept ' not in said.read_text()


def test_a_seed_that_no_record_can_hold_is_told_before_anything_is_looked_for(capsys):
    assert dialogue.main(["--encoder", "nowhere", "--data", "nowhere", "--seed", "-1"]) == 2
    assert capsys.readouterr().err == "error: --seed is a whole number from 0 on, got -1\n"
