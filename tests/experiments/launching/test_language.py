"""A language model or tokenizer that is not here is told before anything is trained, by its setting."""

from dataclasses import replace
from pathlib import Path

import pytest
from plan_helpers import DIGESTS, decided
from transformers import OPTConfig, OPTForCausalLM

from experiments.configuration.overrides import ConfigError, apply, parse
from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.launching.language import check_language
from experiments.planning.catalogue import Suite
from experiments.planning.plan import build_plan
from experiments.planning.specs import TransferSpec
from experiments.tables import TABLE1

SMALL = OPTConfig(
    vocab_size=8, hidden_size=8, word_embed_proj_dim=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=1,
    max_position_embeddings=8,
)  # fmt: skip


def check(tmp_path: Path, task: str, *changes: str, scale: str = "base16") -> None:
    """The check of the runs of one row, its transfers to one task."""
    config = apply(decided(get_scale(scale).config), parse(changes))
    table = replace(TABLE1, rows=TABLE1.rows[:1])
    runs = build_plan([table], [0], get_scale(scale), config, Suite(), DIGESTS | {"tokenizer": "v1"}).runs
    asked = [run for run in runs if not isinstance(run.spec, TransferSpec) or run.spec.task == task]
    check_language(asked, Place(runs=tmp_path, data=config.data))


def tokenizer(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text('{"<pad>": 1, "</s>": 2}')
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return folder


def test_an_opt_is_whole_or_named_with_its_setting(tmp_path: Path) -> None:
    folder = tmp_path / "opt"
    asked = (f"language.caption={folder}", f"data.tokenizer={tokenizer(tmp_path / 'own')}")
    with pytest.raises(ConfigError, match=r"^language\.caption: no language model '.*/opt' here; give the folder"):
        check(tmp_path, "caption", *asked)
    SMALL.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"^language\.caption: no weights of .*or fetch it .*`hf download`"):
        check(tmp_path, "caption", *asked)
    OPTForCausalLM(SMALL).save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"^language\.caption: no vocab\.json of the OPT tokenizer in '.*/opt'"):
        check(tmp_path, "caption", *asked)
    tokenizer(folder)
    check(tmp_path, "caption", *asked)
    check(tmp_path, "classify", *asked[1:])  # which reads no text


def test_the_tokenizer_of_all_runs_is_looked_for_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.tokenizer: no vocab\.json .* in '.*/nowhere'"):
        check(tmp_path, "classify", f"data.tokenizer={tmp_path / 'nowhere'}")


def test_models_that_are_trained_here_ask_for_nothing(tmp_path: Path) -> None:
    for task in ("retrieve", "caption"):
        check(tmp_path, task, scale="tiny")
