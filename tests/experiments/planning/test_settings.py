"""`--list-settings`: nothing that `--set` takes is missing, and what is printed can be given back."""

import pytest
from sweep_helpers import small_suite

from experiments.configuration.meanings import about, meanings
from experiments.configuration.overrides import NAMED, apply
from experiments.configuration.recipe import get_scale
from experiments.configuration.slurm import SlurmConfig
from experiments.configuration.typed import parse_text
from experiments.planning.catalogue import Suite
from experiments.planning.settings import Setting, list_settings, settings, text_of
from experiments.sweep import main
from transfer.classify import Classify


@pytest.fixture(scope="module")
def every() -> list[Setting]:
    return list(settings("", Suite()))


def test_what_is_printed_can_be_given_to_set_and_changes_nothing(every: list[Setting]) -> None:
    for each in every:
        for value in each.values.values():
            assert parse_text(each.hint, text_of(value)) == value, each.key
    tiny = get_scale("tiny").config
    own = {each.key: text_of(each.values["tiny"]) for each in every if each.key.partition(".")[0] not in NAMED}
    assert apply(tiny, own) == tiny


def test_every_setting_of_the_suite_says_what_it_means_and_every_group_what_it_is(every: list[Setting]) -> None:
    own = [each for each in every if each.key.partition(".")[0] not in NAMED]
    assert len(own) > 50 and not [each.key for each in own if not each.meaning]
    assert not [each.key for each in every if not each.about]
    assert {each.key.partition(".")[0] for each in every} >= NAMED.keys()


def test_meanings_are_the_comments_of_the_fields() -> None:
    assert meanings(SlurmConfig)["gres"] == "--gres: gpu:1"
    assert meanings(Classify.Config)["eps"].startswith("of AdamW"), "which the class above declares"
    assert (
        meanings(Classify.Config)["vision"].startswith("One column of Table 8")
        and "at Table 8's rate." in meanings(Classify.Config)["vision"]
    )  # above its field, on two lines
    assert about(SlurmConfig).startswith("Settings of `--launcher slurm`")


def test_values_differ_by_scale_and_a_prefix_chooses() -> None:
    said = list_settings("pretrain", Suite())
    assert (
        "pretrain.images = 32000 at tiny, 29900800 at small16, 2048000000 at base16, 13107200000 at large14\n"
        "      a whole number; " in said
    )
    assert "pretrain.optim.lr.others" in said and "data." not in said and "text_lm" not in said
    assert list_settings("pretrain.images", Suite()).count(" = ") == 1, "not images_per_step as well"
    full = list_settings("full.classify.crop", Suite())
    assert "0.9,1.0 at tiny, 0.08,1.0 at small16, 0.08,1.0 at base16" in full


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["pretrian"], "unknown setting 'pretrian'. Did you mean 'pretrain'?"),
        (["objectives.lc.x"], "unknown setting 'lc'. Did you mean 'lcl'?"),
        (["pretrain.images.x"], "'pretrain.images' is a setting and has none below it"),
        (["data", "--seeds", "3"], "leave out seeds"),
    ],
)
def test_a_prefix_that_is_none_and_options_that_change_nothing_are_refused(
    given: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--list-settings", *given]) == 2
    assert said in capsys.readouterr().err


def test_settings_are_printed_by_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small_suite(monkeypatch)
    assert main(["--list-settings", "slurm"]) == 0
    assert "slurm.time = 1440\n      a whole number; minutes of one job" in capsys.readouterr().out
