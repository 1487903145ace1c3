"""`--set`: typed, and every mistake is named with what would do."""

from dataclasses import fields
from pathlib import Path

import pytest
from plan_helpers import TINY, FakeCatalogue, without_details

from experiments.configuration.config import RunConfig
from experiments.configuration.overrides import ConfigError, apply, parse

LOOK_UP = FakeCatalogue().config_class


def changed(*assignments: str) -> RunConfig:
    return apply(without_details(TINY.config), parse(assignments), LOOK_UP)


def test_values_take_the_type_of_their_field() -> None:
    config = changed(
        "pretrain.images=2048",
        "pretrain.optim.lr.others=3e-4",
        "pretrain.optim.betas=0.8,0.99",
        "pretrain.optim.clip_norm=none",
        "pretrain.optim.precision=fp32",
        "data.mmc4=some/folder",
        "data.max_images=2",
        "data.tokenizer=facebook/opt-125m",
        "text_lm.source=laion",
        "language.caption=scratch",
    )
    optim = config.pretrain.optim
    assert (config.pretrain.images, optim.lr.others, optim.betas) == (2048, 3e-4, (0.8, 0.99))
    assert (optim.clip_norm, optim.precision) == (None, "fp32")
    assert (config.data.mmc4, config.data.max_images) == (Path("some/folder"), 2)
    assert (config.text_lm.source, config.language.caption) == ("laion", "scratch")
    assert optim.lr.laion == TINY.config.pretrain.optim.lr.laion  # its neighbour stays
    assert config.data.sim_threshold == TINY.config.data.sim_threshold


def test_the_configuration_given_is_not_changed() -> None:
    before = repr(TINY.config)
    changed("pretrain.images=1", "objectives.lcl.contrast_weight=9", "transfer.classify.epochs=7")
    assert repr(TINY.config) == before


def test_objective_and_transfer_settings_are_typed_by_their_own_config() -> None:
    config = changed(
        "objectives.lcl.contrast_weight=2",
        "objectives.lcl.layout=random_order",
        "transfer.caption.decoding.beams=5",
        "transfer.classify.probes=acc1,acc1_standardised",
        "transfer.classify.warmup=none",
    )
    assert config.objectives["lcl"] == {"contrast_weight": 2.0, "layout": "random_order"}
    assert isinstance(config.objectives["lcl"]["contrast_weight"], float)
    assert config.transfer["caption"] == {"decoding.beams": 5}
    assert config.transfer["classify"] == {"probes": ("acc1", "acc1_standardised"), "warmup": None}


def test_zero_is_a_value() -> None:
    assert changed("objectives.lcl.contrast_weight=0").objectives["lcl"]["contrast_weight"] == 0.0
    assert changed("pretrain.optim.weight_decay=0").pretrain.optim.weight_decay == 0.0


@pytest.mark.parametrize(
    ("assignment", "named"),
    [
        ("pretrian.images=5", ["unknown key 'pretrian'", "Did you mean 'pretrain'?", "text_lm"]),
        ("pretrain.image=5", ["below 'pretrain': unknown key 'image'", "Did you mean 'images'?", "images_per_step"]),
        ("pretrain.optim.lr.mmc4=5", ["below 'pretrain.optim.lr': unknown key", "laion, others"]),
        ("objectives.lcl.lambda=1", ["below 'objectives.lcl': unknown key", "contrast_weight"]),
        ("objectives.lc.contrast_weight=1", ["unknown objective 'lc'", "Did you mean 'lcl'?"]),
        (
            "transfer.caption.decoding.beam=1",
            ["below 'transfer.caption.decoding': unknown key", "Did you mean 'beams'?"],
        ),
        ("pretrain.images=many", ["pretrain.images=many", "'many' is not a whole number"]),
        ("pretrain.images=1.5", ["'1.5' is not a whole number"]),
        ("pretrain.optim.eps=small", ["is not a number"]),
        ("pretrain.optim.precision=fp16", ["one of auto, bf16, fp32"]),
        ("pretrain.optim.betas=0.9", ["2 values with commas between"]),
        ("pretrain.optim.betas=0.9,x", ["is not"]),
        ("pretrain.optim.clip_norm=never", ["a number or none"]),
        ("data.mmc4=", ["a path or none"]),
        ("pretrain.optim=5", ["it is a group", "pretrain.optim.lr"]),
        ("pretrain.images.x=5", ["'pretrain.images' is a whole number and has no keys below it"]),
        ("transfer.caption.epochs.x=5", ["'transfer.caption.epochs' is a number and has no keys below it"]),
        ("objectives.lcl=5", ["objectives.<name>.<field>"]),
        ("pretrain.images=0", ["pretrain.images=0", "at least 1"]),
        ("pretrain.optim.lr.laion=-1", ["must be positive"]),
        ("pretrain.optim.betas=0.9,1.5", ["betas are two numbers in [0, 1), got 0.9 and 1.5"]),
        ("text_lm.optim.lr=-0.001", ["text_lm.optim.lr=-0.001", "lr must be positive"]),
        ("text_lm.optim.warmup_steps=-1", ["warmup_steps >= 0"]),
        ("text_lm.optim.clip_norm=-1", ["clip_norm must be positive, or none"]),
        ("text_lm.optim.betas=1,0.95", ["betas are two numbers in [0, 1)"]),
        ("text_lm.optim.eps=0", ["eps > 0"]),
        ("text_lm.optim.weight_decay=-1", ["weight_decay must be >= 0"]),
        ("data.tokenizer=", ["data.tokenizer is empty; give a folder or a cached name, or none"]),
        ("data.llm=", ["data.llm is empty"]),
        ("data.llm=~/vicuna", ["data.llm begins with ~, which is left to the shell; write /", "/vicuna"]),
        ("data.sim_threshold=24", ["cosine in [-1, 1]"]),
        ("pretrain.images", ["no assignment", "key=value"]),
        ("=5", ["no assignment"]),
    ],
)
def test_a_mistake_names_key_value_and_remedy(assignment: str, named: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        changed(assignment)
    for words in named:
        assert words in str(caught.value)


@pytest.mark.parametrize("text", ["1", "yes", "True", "on", ""])
def test_only_true_and_false_are_truth_values(text: str) -> None:
    from experiments.configuration.typed import TypeMismatch, parse_text

    assert parse_text(bool, "true") is True and parse_text(bool, "false") is False
    with pytest.raises(TypeMismatch, match="true or false"):
        parse_text(bool, text)


@pytest.mark.parametrize("order", [1, -1])
def test_what_is_checked_together_may_be_given_in_any_order(order: int) -> None:
    given = ["slurm.time=1", "slurm.signal_seconds=20"]
    assert changed(*given[::order]).slurm.time == 1
    with pytest.raises(
        ConfigError, match="--set slurm.time=1 --set slurm.signal_seconds=60: slurm.signal_seconds is 60"
    ):
        changed("slurm.time=1", "slurm.signal_seconds=60")


def test_text_is_read_by_the_type_of_its_field() -> None:
    slurm = changed(
        "slurm.partition=1024", "slurm.setup=module load cuda", "slurm.srun_args=--a,1", "slurm.mem_gb=.5"
    ).slurm
    assert (slurm.partition, slurm.setup) == ("1024", ("module load cuda",))
    assert (slurm.srun_args, slurm.mem_gb) == (("--a", "1"), 0.5)
    for wrong in ("slurm.mem_gb=nan", "slurm.time=1.0", "pretrain.optim.eps=inf"):
        with pytest.raises(ConfigError, match="is not a"):
            changed(wrong)


def test_only_a_pair_of_brackets_around_several_values_is_taken_off() -> None:
    assert changed("slurm.setup=(a,b)").slurm.setup == changed("slurm.setup=a,b").slurm.setup == ("a", "b")
    assert changed("slurm.setup=source $(which activate)").slurm.setup == ("source $(which activate)",)


def test_a_name_of_ones_own_is_one_that_a_table_can_print() -> None:
    for name in ("my|set", "<b>x</b>", "a`b"):
        with pytest.raises(ConfigError, match="tables cannot print"):
            changed(f"data.called.coco={name}")
    assert changed("data.called.coco=my garden (2024)").data.called.coco == "my garden (2024)"


def test_a_key_given_twice_must_agree_with_itself() -> None:
    assert parse(["a=1", "a=1"]) == {"a": "1"}
    with pytest.raises(ConfigError, match="'1' and as '2'"):
        parse(["a=1", "a=2"])


def test_values_that_are_not_text_must_have_the_type_already() -> None:
    config = apply(TINY.config, {"pretrain.images": 7, "pretrain.optim.lr.others": 1}, LOOK_UP)
    assert config.pretrain.images == 7 and isinstance(config.pretrain.optim.lr.others, float)
    for key, value in (("pretrain.images", True), ("pretrain.images", 1.5), ("pretrain.optim.betas", (1, 2, 3))):
        with pytest.raises(ConfigError, match=key):
            apply(TINY.config, {key: value}, LOOK_UP)


def test_no_field_of_the_configuration_is_out_of_reach() -> None:
    for group in fields(RunConfig):
        value = getattr(TINY.config, group.name)
        for each in fields(value) if hasattr(value, "__dataclass_fields__") else ():
            with pytest.raises(ConfigError) as caught:
                changed(f"{group.name}.{each.name}.nonsense=1")
            assert f"{group.name}.{each.name}" in str(caught.value)
            assert "unknown key 'nonsense'" in str(caught.value) or "no keys below it" in str(caught.value)
