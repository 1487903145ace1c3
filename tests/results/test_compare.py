"""In which settings two runs differ, also when one of them is older than a setting."""

from dataclasses import replace

from results_helpers import make_record, pretrain_spec

from results.compare import ABSENT, departures, differences


def test_differences_name_the_setting_and_both_values() -> None:
    a, b = pretrain_spec("clip", 0), pretrain_spec("clip", 1, images=5)
    del b["optim"]
    assert differences(a, b) == {"images": (1000, 5), "optim.lr": (0.001, ABSENT)}


def test_settings_added_or_gone_since_a_run_make_no_difference_and_others_do() -> None:
    planned = pretrain_spec("clip", 0)
    planned["objective"]["config"] |= {"newer": 7, "heads": 8}
    run = pretrain_spec("clip", 0, images=5)
    run["objective"]["config"] |= {"heads": 2, "chosen_once": 3}
    record = replace(make_record(run, {}), defaults={"objective.config.gone": 1, "older": {}})
    assert departures(planned, record) == {
        "images": (1000, 5),
        "objective.config.heads": (8, 2),
        "objective.config.chosen_once": (ABSENT, 3),  # it was in the run's name: it made a difference
    }


def test_an_objective_that_had_no_options_and_has_some_now_is_as_it_was() -> None:
    planned, run = pretrain_spec("clip", 0), pretrain_spec("clip", 0)
    run["objective"]["config"] = {}
    assert departures(planned, make_record(run, {})) == {}
