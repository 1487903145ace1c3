"""Features that would not fit are refused beforehand, with their size and the other protocol; nothing is written."""

from dataclasses import replace
from pathlib import Path

import pytest
from plan_helpers import DIGESTS, decided

from experiments.configuration.overrides import ConfigError, apply, parse
from experiments.configuration.place import Place
from experiments.configuration.recipe import get_scale
from experiments.launching import feature_budget
from experiments.launching.feature_budget import refuse_large
from experiments.planning.catalogue import Suite
from experiments.planning.plan import build_plan
from experiments.planning.specs import PlannedRun, TransferSpec
from experiments.tables import TABLE1

PUBLISHED = {
    ("imagenet", True): 1_281_167,
    ("retrieval_train", True): 14_700_000,
    ("caption_train", True): 10_240_000,
    ("imagenet", False): 50_000,
    ("coco", False): 5_000,
    ("flickr30k", False): 1_000,
    ("nocaps", False): 4_500,
}
CLIP = replace(TABLE1, rows=TABLE1.rows[:1])


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_budget, "entries", lambda place, name, training: PUBLISHED[name, training])


def planned(tmp_path: Path, task: str, *changes: str) -> tuple[list[PlannedRun], Place]:
    """The runs of one task on one row at the paper's scale."""
    config = apply(decided(get_scale("base16").config), parse(changes))
    made = build_plan([CLIP], [0], get_scale("base16"), config, Suite(), DIGESTS)
    runs = [run for run in made.runs if not isinstance(run.spec, TransferSpec) or run.spec.task == task]
    return runs, Place(runs=tmp_path / "runs", data=config.data)


@pytest.mark.parametrize(("task", "size"), [("retrieve", r"4,4\d\d\.\d GB"), ("caption", r"3,1\d\d\.\d GB")])
def test_terabytes_are_refused_before_anything_is_written(tmp_path: Path, task: str, size: str) -> None:
    runs, place = planned(tmp_path, task)
    with pytest.raises(ConfigError, match=f"({size}).*features_gb allows 500.*transfer.{task}.pictures=augmented"):
        refuse_large(runs, place)
    assert not place.runs.exists()


def test_what_fits_what_is_augmented_and_what_is_allowed_passes(tmp_path: Path) -> None:
    """ImageNet's training set takes 387 GB for one ViT-B/16 in bf16; two do not fit."""
    refuse_large(*planned(tmp_path, "classify"))
    refuse_large(*planned(tmp_path, "caption", "transfer.caption.pictures=augmented"))
    refuse_large(*planned(tmp_path, "caption", "data.features_gb=none"))
    with pytest.raises(ConfigError, match=r"of 1 encoders would take up to 402\.8 GB.*allows 400.*features_gb=N"):
        refuse_large(*planned(tmp_path, "classify", "data.features_gb=400"))


def test_a_set_that_is_over_the_budget_without_training_features_names_no_other_protocol(tmp_path: Path) -> None:
    runs, place = planned(tmp_path, "classify", "data.features_gb=1", "transfer.classify.pictures=augmented")
    with pytest.raises(ConfigError, match=r"Nothing was written; allow more with --set data\.features_gb=N"):
        refuse_large(runs, place)
