"""`python -m experiments.conversations`: what it counts, against counts by hand, and what it refuses."""

import json

import pytest
from llm_helpers import tokenizer as hub_tokenizer

from backbones import llm
from data.tokenizer import Tokenizer
from experiments.conversations import main


@pytest.fixture
def place(tmp_path):
    Tokenizer.train_bpe(["USER: What is it? ASSISTANT: a cup"], 300).save(tmp_path / "bpe.json")
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.jpg").write_bytes(b"")

    def turns(*said):
        return [{"from": ("human", "gpt")[at % 2], "value": text} for at, text in enumerate(said)]

    records = [
        {"id": "1", "image": "1.jpg", "conversations": turns("<image>\nWhat is it?", "a cup")},
        {"id": "2", "conversations": turns("What?", "a cup", "And?", "a")},
        {"id": "3", "image": "2.jpg", "conversations": turns("<image>\nWhat is it?", "a cup")},
    ]
    (tmp_path / "mix.json").write_text(json.dumps(records))
    return tmp_path


def run(place, *more):
    return main([str(place / "mix.json"), "--images", str(place / "images"), *map(str, more)])


def test_counts_are_those_of_the_file(place, capsys):
    ours = ("--tokenizer", place / "bpe.json", "--slots", 4)
    assert run(place, *ours, "--show", 1) == 0
    said = capsys.readouterr().out
    assert "learned: ' a cup'" in said and "<image>\\nWhat is it? ASSISTANT: a cup</s>" in said
    for line in ("with a picture | 1", "of text alone | 1", "rounds | 3", "left out | 1", "steps of 128 | 2"):
        assert f"{line} |" in said.replace("  ", "").replace(" |", "|").replace("|", " |"), line
    assert "missing_image: 1, as 3 (there is no " in said
    assert run(place, *ours, "--template", "plain") == 0
    assert "not_a_pair: 1, as 2" in capsys.readouterr().out


def test_a_tokenizer_of_transformers_is_read_without_its_weights(place, capsys, monkeypatch):
    hub_tokenizer().save_pretrained(place / "llm")
    monkeypatch.setattr(llm, "check_llm", lambda source: None)  # a folder with a config, as every model has
    assert run(place, "--llm", place / "llm", "--slots", 4) == 0
    assert "with a picture" in capsys.readouterr().out


def test_what_cannot_be_used_is_said(place, capsys):
    assert run(place, "--tokenizer", place / "bpe.json", "--longest", 300) == 2
    assert "1: its picture takes 256 tokens" in capsys.readouterr().err
    assert run(place, "--llm", "nowhere") == 2
    assert "no language model 'nowhere'" in capsys.readouterr().err
    assert run(place, "--tokenizer", place / "bpe.json", "--batch", 0) == 2
    assert "--batch is at least 1, got 0" in capsys.readouterr().err
