"""What is run, once; what names a run; and that rows differ in nothing they do not declare."""

import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from plan_helpers import DIGESTS, TINY, FakeCatalogue, record_of, without_details
from plan_helpers import PAPERS_TABLE1 as TABLE1
from results_helpers import make_record

from data.toyworld.spec import ToyworldSpec
from experiments.configuration.config import RunConfig
from experiments.configuration.overrides import ConfigError, apply, parse
from experiments.configuration.recipe import STATED, STATED_OF_DIALOGUE, get_scale
from experiments.launching.machine import ordered
from experiments.planning import plan as planning
from experiments.planning.catalogue import Catalogue, Suite
from experiments.planning.fairness import FairnessError, Resolved, undeclared_differences
from experiments.planning.listing import listing
from experiments.planning.plan import Plan, build_plan
from experiments.planning.resolver import Resolver
from experiments.planning.specs import PlannedRun, PretrainSpec, TransferSpec, Written, read_spec, to_plain
from experiments.tables import TABLE2, TABLE4, TABLE5, TABLE6A, TABLE6B, TABLES
from results.canonical import flatten, spec_hash
from results.compare import differences
from results.page.printed import render
from results.record import parse as parse_record
from results.schema import Kind, Row, RunRecord, Status, Table


def plan(
    tables: Sequence[Table] = (TABLE1,),
    seeds: Sequence[int] = (0,),
    sets: Sequence[str] = (),
    digests: Mapping[str, str] = DIGESTS,
    scale: str = "tiny",
    catalogue: Catalogue | None = None,
) -> Plan:
    catalogue = catalogue or FakeCatalogue()
    chosen = get_scale(scale)
    config = apply(without_details(chosen.config), parse(sets), catalogue.config_class)
    return build_plan(tables, seeds, chosen, config, catalogue, digests)


def ids(made: Plan) -> set[str]:
    return {run.run_id for run in made.runs}


def pretrain(made: Plan, row: str, table: str = "table1", seed: int = 0) -> PretrainSpec:
    (slot,) = [s for s in made.slots[table] if (s.row, s.stage, s.seed) == (row, "pretrain", seed)]
    (spec,) = [run.spec for run in made.runs if run.run_id == slot.run_id]
    assert isinstance(spec, PretrainSpec)
    return spec


def done(run: PlannedRun, **changes: Any) -> RunRecord:
    return record_of(run, changes.pop("metrics", {}), **changes)


BLIND_ROW = "Blind (captions without an image)"


# ---- what is run ----


def test_table_1_needs_nine_encoders_one_language_model_three_transfers_each_and_blind_captions() -> None:
    kinds = [run.kind for run in plan().runs]
    assert [kinds.count(kind) for kind in (Kind.PRETRAIN, Kind.TEXT_LM, Kind.TRANSFER)] == [9, 1, 28]
    kinds = [run.kind for run in plan(seeds=(0, 1, 2)).runs]
    assert [kinds.count(kind) for kind in (Kind.PRETRAIN, Kind.TEXT_LM, Kind.TRANSFER)] == [27, 3, 84]


def test_parents_come_before_their_children() -> None:
    seen: set[str] = set()
    for run in plan(tuple(TABLES.values()), (0, 1)).runs:
        assert set(run.needs) <= seen
        seen.add(run.run_id)


def test_a_transfer_needs_its_encoder_and_captioning_the_language_model_all_rows_share() -> None:
    made = plan()
    by_id = {run.run_id: run for run in made.runs}
    text_lms = set()
    for run in made.runs:
        if isinstance(run.spec, TransferSpec):
            kinds = [by_id[parent].kind for parent in run.needs]
            blind = run.spec.mode == "blind"
            assert kinds == [Kind.PRETRAIN] * (not blind) + [Kind.TEXT_LM] * (run.spec.task == "caption")
            assert blind or run.spec.inputs["encoder"] == run.needs[0]
            text_lms |= {parent for parent in run.needs if by_id[parent].kind is Kind.TEXT_LM}
    assert len(text_lms) == 1


def test_a_blind_row_writes_captions_and_differs_from_the_others_in_its_mode_and_encoder_alone() -> None:
    made = plan()
    stages = {slot.stage: slot.run_id for slot in made.slots["table1"] if slot.row == BLIND_ROW}
    assert list(stages) == ["caption"]
    runs = {run.run_id: run for run in made.runs}
    blind = runs[stages["caption"]]
    (lcl,) = [s.run_id for s in made.slots["table1"] if (s.row, s.stage) == ("LCL", "caption")]
    theirs = dict(runs[lcl].plain)
    inputs = {name: value for name, value in theirs["inputs"].items() if name != "encoder"}
    assert blind.plain == {**theirs, "mode": "blind", "inputs": inputs}
    assert blind.run_id.startswith("transfer-caption-blind-s0-") and read_spec(blind.plain) == blind.spec


def test_a_blind_row_whose_language_model_would_take_its_size_from_an_encoder_says_so() -> None:
    made = plan(sets=["language.caption=scratch"])
    (run,) = [run for run in made.runs if isinstance(run.spec, TransferSpec) and run.spec.mode == "blind"]
    assert "language.caption is 'scratch'" in run.problem
    assert not any(each.problem for each in made.runs if each is not run)


def test_equal_rows_of_different_tables_are_one_run() -> None:
    made = plan((TABLE1, TABLE5, TABLE6A, TABLE6B))
    (run,) = [run for run in made.runs if run.kind is Kind.PRETRAIN and "table1: LCL" in run.used_by]
    assert run.used_by == ("table1: LCL", "table5: LCL on MMC4", "table6a: LCL", "table6b: λ = 0.1")
    separate = sum(len(plan((table,)).runs) for table in (TABLE1, TABLE5, TABLE6A, TABLE6B))
    assert len(made.runs) < separate
    assert ids(made) == ids(plan((TABLE6B, TABLE6A, TABLE5, TABLE1)))


def test_a_table_planned_alone_names_its_runs_as_in_a_sweep() -> None:
    assert ids(plan((TABLE6A,))) <= ids(plan(tuple(TABLES.values())))


def test_the_random_encoder_is_written_down_without_training() -> None:
    spec = pretrain(plan(), "Random encoder")
    assert spec.objective is None and spec.images == 0 and spec.optim is None and spec.steps == 0
    assert spec == pretrain(plan(sets=["pretrain.images=5", "data.max_images=1"]), "Random encoder")


def test_a_pretrained_language_model_needs_no_run() -> None:
    made = plan(scale="base16")
    assert Kind.TEXT_LM not in {run.kind for run in made.runs}
    languages = {run.spec.language for run in made.runs if isinstance(run.spec, TransferSpec)}
    assert languages == {None, "facebook/opt-125m", "facebook/opt-1.3b"}


def test_steps_warm_up_and_rate_are_resolved() -> None:
    made = plan((TABLE1, TABLE2), scale="base16")
    spec = pretrain(made, "LCL")
    assert spec.optim is not None and spec.steps == 250_000
    assert (spec.optim.lr, spec.optim.warmup_steps) == (3e-4, 2_000)
    other = pretrain(made, "LCL", "table2")
    assert other.optim is not None and other.optim.lr == 5e-4
    tiny = pretrain(plan(sets=["pretrain.images=130"]), "CLIP")
    assert tiny.steps == 3  # 64 + 64 + 2


def test_only_what_applies_to_a_corpus_is_in_its_spec() -> None:
    made = plan((TABLE1, TABLE2))
    pairs, documents = pretrain(made, "CLIP").data, pretrain(made, "LCL").data
    laion = pretrain(made, "CLIP", "table2").data
    assert pairs and documents and laion
    assert (pairs.text_len, pairs.seq_len) == (80, None) and (documents.text_len, documents.seq_len) == (None, 256)
    assert pairs.sim_threshold == documents.sim_threshold == 0.24 and laion.sim_threshold is None


# ---- what names a run ----


def test_adding_a_seed_or_a_table_renames_nothing() -> None:
    assert ids(plan(seeds=(0,))) < ids(plan(seeds=(0, 1)))
    assert ids(plan((TABLE1,))) < ids(plan((TABLE1, TABLE2)))


def test_adding_an_objective_renames_nothing() -> None:
    class More(FakeCatalogue):
        reads = {**FakeCatalogue.reads, "siglip": "pairs"}

    row = Row(label="SigLIP", objective="siglip", data="mmc4-pair", task="Con.")
    more = replace(TABLE1, rows=(row, *TABLE1.rows))
    assert ids(plan()) < ids(plan((more,), catalogue=More()))


def test_renaming_a_row_or_a_folder_renames_no_run() -> None:
    renamed = replace(TABLE1, rows=tuple(replace(row, label=f"{row.label}!") for row in TABLE1.rows), caption="other")
    assert ids(plan((renamed,))) == ids(plan())
    assert ids(plan(sets=["data.mmc4=elsewhere", "data.coco=there"])) == ids(plan())


@pytest.mark.parametrize(
    "assignment",
    [
        "pretrain.images=64",
        "pretrain.optim.lr.others=0.5",
        "pretrain.optim.clip_norm=none",
        "data.max_images=2",
        "data.vocabulary=99",
    ],
)
def test_every_setting_of_training_renames_the_runs_it_reaches(assignment: str) -> None:
    (before,), (after,) = (
        [s.run_id for s in made.slots["table1"] if (s.row, s.stage) == ("LCL", "pretrain")]
        for made in (plan(), plan(sets=[assignment]))
    )
    assert before != after


def test_a_setting_renames_only_the_runs_it_reaches() -> None:
    before = plan()
    after = plan(sets=["objectives.lcl.contrast_weight=7"])
    gone = {run.run_id: run for run in before.runs if run.run_id not in ids(after)}
    assert {user for run in gone.values() for user in run.used_by} == {"table1: LCL"}
    after = plan(sets=["transfer.caption.epochs=1"])
    assert {run.spec.label.split("-")[0] for run in before.runs if run.run_id not in ids(after)} == {"caption"}


def test_a_length_in_steps_takes_the_place_of_epochs_and_is_refused_beside_them() -> None:
    def made(*sets: str) -> list[Mapping[str, Any]]:
        found = plan(sets=("objectives.emu.queries=16", *sets), catalogue=Suite()).runs
        return [run.spec.recipe for run in found if isinstance(run.spec, TransferSpec) and run.spec.task == "caption"]

    with pytest.raises(ConfigError, match=r"transfer\.caption\.epochs is 1\.0 and .*steps is 9: .*epochs=none"):
        made("transfer.caption.steps=9")
    with pytest.raises(ConfigError, match=r"epochs is None and .*steps is None: .*--set transfer\.caption\.steps=N"):
        made("transfer.caption.epochs=none")
    recipes = made("transfer.caption.steps=9", "transfer.caption.epochs=none")
    assert {(recipe["epochs"], recipe["steps"]) for recipe in recipes} == {(None, 9)}
    assert not any("steps" in recipe for recipe in made())


def test_other_data_renames_the_runs_that_read_it() -> None:
    before, after = plan(), plan(digests={**DIGESTS, "flickr30k": "flickr30k-v2"})
    changed = [run for run in before.runs if run.run_id not in ids(after)]
    assert {run.spec.task for run in changed if isinstance(run.spec, TransferSpec)} == {"retrieve"}
    assert all(run.kind is Kind.TRANSFER for run in changed)
    after = plan(digests={**DIGESTS, "mmc4": "mmc4-v2"})
    kept = [run.spec.label for run in before.runs if run.run_id in ids(after)]
    assert kept == ["initial-s0", "classify-initial-s0"]


def test_no_path_is_in_any_spec() -> None:
    sets = [f"data.{name}=/some/where/{name}" for name in DIGESTS]
    for run in plan(tuple(TABLES.values()), sets=sets).runs:
        assert "/some/where" not in json.dumps(to_plain(run.spec))


def test_seeds_share_everything_but_the_seed() -> None:
    made = plan(seeds=(0, 1))
    for row in (row for row in TABLE1.rows if row.mode != "blind"):
        first, second = (flatten(to_plain(pretrain(made, row.label, seed=seed))) for seed in (0, 1))
        assert {key for key in first if first[key] != second[key]} == {"seed"}


def test_a_spec_reads_back_equal_and_keeps_its_name() -> None:
    for run in plan(tuple(TABLES.values())).runs:
        assert read_spec(json.loads(json.dumps(to_plain(run.spec)))) == run.spec
        parts = Written(**json.loads(json.dumps(vars(run.written))))
        assert parts.whole == run.spec and run.run_id.endswith(spec_hash(parts.spec))


def test_a_run_id_is_what_a_record_of_the_run_must_carry() -> None:
    for run in plan().runs:
        record = done(run)
        found = json.loads(json.dumps({**record.__dict__, "kind": record.kind.value, "status": record.status.value}))
        assert parse_record(found, "here").run_id == run.run_id


# ---- fairness ----


def resolved(table: Table, scale: str = "tiny", config: RunConfig | None = None) -> dict[str, Any]:
    resolver = Resolver(config or without_details(get_scale(scale).config), FakeCatalogue(), DIGESTS)
    rows = [row for row in table.rows_at(scale) if not row.unavailable]
    return {row.label: resolver.row(table, row, 0) for row in rows}


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("scale", ["tiny", "base16", "large14"])
def test_rows_of_a_table_differ_in_nothing_undeclared(table: Table, scale: str) -> None:
    rows = list(resolved(table, scale).values())
    for a in rows:
        for b in rows:
            for stage in a.stages.keys() & b.stages.keys():
                assert undeclared_differences(a, b, stage) == {}


def test_declared_differences_are_objective_corpus_and_override() -> None:
    def between(a: Resolved, b: Resolved) -> dict[str, tuple[Any, Any]]:
        return differences(a.stages["pretrain"].plain, b.stages["pretrain"].plain)

    rows = resolved(TABLE1)
    found = between(rows["CLIP"], rows["LCL"])
    assert {key.split(".")[0] for key in found} == {"objective", "data"}
    assert found["data.name"] == ("mmc4-pair", "mmc4")
    rows = resolved(TABLE6A)
    found = between(rows["Gen. only"], rows["LCL"])
    assert found == {"objective.config.contrast_weight": (0.0, 0.1)}


class Tampered(Resolver):
    """A resolver that favours one objective."""

    def pretrain(self, config: RunConfig, row: Row, seed: int) -> PlannedRun:
        run = super().pretrain(config, row, seed)
        spec = run.spec
        if row.objective == "lcl" and isinstance(spec, PretrainSpec) and spec.optim is not None:
            changes = {
                "lr": {"optim": replace(spec.optim, lr=2 * spec.optim.lr)},
                "images": {"images": spec.images * 2},
                "seed": {"seed": seed + 1},
                "model": {"model": {**spec.model, "vision": {"width": 4096}}},
                "inputs": {"inputs": {**spec.inputs, "corpus": "a better copy"}},
            }[self.what]
            spec = replace(spec, **changes)
        return replace(run, spec=spec)

    what = ""


@pytest.mark.parametrize(
    ("what", "named"),
    [
        ("lr", "pretrain optim.lr is 0.125 and 0.25"),
        ("images", "pretrain images is 1000 and 2000"),
        ("seed", "pretrain seed is 0 and 1"),
        ("model", "pretrain model.vision.width is 128 and 4096"),
        ("inputs", "pretrain inputs is"),
    ],
)
def test_a_favoured_row_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, what: str, named: str) -> None:
    monkeypatch.setattr(Tampered, "what", what)
    monkeypatch.setattr(planning, "Resolver", Tampered)
    with pytest.raises(FairnessError) as caught:
        plan(sets=["pretrain.images=1000", "pretrain.optim.lr.others=0.125"])
    assert named in str(caught.value) and "'LCL' differ" in str(caught.value) and "table1" in str(caught.value)


def test_a_transfer_recipe_of_ones_own_is_refused_unless_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    class Generous(Resolver):
        def transfer(self, config: RunConfig, row: Row, *rest: Any) -> Any:
            run, others = super().transfer(config, row, *rest)
            better = replace(run.spec, recipe={**run.spec.recipe, "epochs": 99.0})
            return (replace(run, spec=better) if row.objective == "lcl" else run), others

    with monkeypatch.context() as patched:
        patched.setattr(planning, "Resolver", Generous)
        with pytest.raises(FairnessError, match="classify recipe.epochs is 3.0 and 99.0"):
            plan()
    declared = [
        replace(row, override={"transfer.classify.epochs": 99.0}) if row.objective == "lcl" else row
        for row in TABLE1.rows
    ]
    made = plan((replace(TABLE1, rows=tuple(declared)),))
    assert len(made.runs) == len(plan().runs)


def test_the_dearer_a_run_the_earlier_it_starts() -> None:
    made = [run for run in ordered(plan().runs) if run.spec.seed == 0]
    names = [run.spec.objective.name for run in made if isinstance(run.spec, PretrainSpec) and run.spec.objective]
    assert names.index("blip2") < names.index("coca") < names.index("clip") < names.index("supervised")
    assert names.index("lcl") < names.index("clip")
    tasks = [run.spec.task for run in made if isinstance(run.spec, TransferSpec)]
    assert len(set(zip(tasks, tasks[1:], strict=False))) == 5 and tasks[0] == "caption" and tasks[-1] == "classify"
    kinds = [run.kind is Kind.TRANSFER for run in made]
    assert kinds == sorted(kinds), "what others wait for comes first"


def test_a_declared_override_is_allowed_and_only_where_it_is_declared() -> None:
    row = replace(TABLE1.rows[0], label="CLIP, long", override={"pretrain.images": 240_000}, paper={})
    made = plan((replace(TABLE1, rows=(*TABLE1.rows, row)),), sets=["pretrain.images=1000"])
    assert pretrain(made, "CLIP, long").images == 240_000 and pretrain(made, "CLIP").images == 1000


def test_a_rows_own_override_wins_over_the_command_line() -> None:
    made = plan((TABLE6B, TABLE1), sets=["objectives.lcl.contrast_weight=3"])
    weights = {run.spec.objective.config["contrast_weight"] for run in made.runs if isinstance(run.spec, PretrainSpec) and run.spec.objective and run.spec.objective.name == "lcl"}  # fmt: skip # noqa: E501
    assert weights == {0.05, 0.1, 0.2, 0.5, 3.0}


# ---- what cannot be run ----


def test_missing_data_is_a_problem_of_the_runs_that_read_it_and_of_their_children() -> None:
    made = plan(digests={key: value for key, value in DIGESTS.items() if key != "imagenet"})
    problems = {run.run_id: run.problem for run in made.runs if run.problem}
    assert set(problems.values()) == {"data.imagenet is not set"} and len(problems) == 9
    made = plan(digests={})
    blocked = [run.spec.label for run in made.runs if not run.problem]
    assert blocked == ["initial-s0"]
    assert {slot.problem for slot in made.slots["table1"] if slot.stage == "classify" and slot.row == "CLIP"} == {
        "data.mmc4 is not set"
    }


def test_a_missing_test_set_leaves_the_task_possible() -> None:
    made = plan(digests={key: value for key, value in DIGESTS.items() if key != "nocaps"})
    assert not any(run.problem for run in made.runs)
    captions = [run.spec for run in made.runs if isinstance(run.spec, TransferSpec) and run.spec.task == "caption"]
    assert all(spec.inputs["nocaps"] == "absent" for spec in captions)


def test_an_objective_that_reads_pairs_is_refused_documents() -> None:
    row = replace(TABLE1.rows[0], data="mmc4")
    with pytest.raises(ConfigError, match="reads pairs.*'mmc4-pair'"):
        plan((replace(TABLE1, rows=(row,)),))


@pytest.mark.parametrize("seeds", [(), (0, 0), (-1,)])
def test_seeds_are_different_whole_numbers(seeds: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="seeds must be"):
        plan(seeds=seeds)


def test_a_value_the_objective_refuses_is_named_with_its_key() -> None:
    with pytest.raises(ConfigError, match=r"objectives.lcl.contrast_weight=-1.0: contrast_weight must be >= 0"):
        plan(sets=["objectives.lcl.contrast_weight=-1"])


def test_what_a_scale_changes_in_an_objective_is_planned_and_can_be_changed_again() -> None:
    config = replace(without_details(TINY.config), objectives={"clip": {"embed_dim": 8}})
    for changes, expected in (((), 8), (("objectives.clip.embed_dim=16",), 16)):
        catalogue = FakeCatalogue()
        made = build_plan(
            [TABLE1], [0], TINY, apply(config, parse(changes), catalogue.config_class), catalogue, DIGESTS
        )
        assert pretrain(made, "CLIP").objective.config == {"embed_dim": expected}  # type: ignore[union-attr]


# ---- what is printed ----


def test_the_listing_says_what_is_reused_run_and_impossible() -> None:
    made = plan(seeds=(0, 1), digests={key: value for key, value in DIGESTS.items() if key != "imagenet"})
    first, second = made.runs[:2]
    assert (first.used_by, second.used_by) == (("table1: CLIP",), ("table1: CoCa",))
    failed = done(second, status=Status.FAILED, reason="out of memory")
    lines = [line.split() for line in listing(made, [done(first), failed]).splitlines()]
    assert lines[0] == ["stage", "images", "reuse", "run", "cannot", "used", "by"]
    both = f"{2 * pretrain(made, 'CLIP').images:,}"
    assert lines[1] == ["pretrain", both, "s0", "s1", "table1:", "CLIP"]
    assert lines[2] == ["pretrain", both, "s0", "s1", "table1:", "CoCa"]  # both to run: failed ones are run again
    text = listing(made, [done(first), failed])
    assert text.count("(data.imagenet is not set)") == 9
    count = len(made.runs)
    assert text.endswith(f"{count} runs: 1 done and reused, {count - 19} to run, 18 that cannot run")


def test_the_plan_fills_the_table_it_was_made_for() -> None:
    made = plan()
    records = [done(run, metrics={"imagenet/acc1": 50.0} if isinstance(run.spec, TransferSpec) and run.spec.task == "classify" else {}) for run in made.runs]  # fmt: skip # noqa: E501
    stranger = make_record({"kind": "pretrain", "seed": 0}, {})
    publication = made.publication("table1", [*records, stranger])
    assert set(publication.records) == ids(made)
    text = render(TABLE1, publication)
    assert text.startswith("# Table 1: TINY SCALE") and text.count("50.0") == 9


def test_a_corpus_is_called_a_toy_exactly_if_it_is_the_embedded_one() -> None:
    embedded = {name: f"{ToyworldSpec().folder_name}/{name}" for name in DIGESTS}
    made = plan([TABLE1, TABLE5], digests={**embedded, "laion": "0123456789abcdef"})
    publications = {name: made.publication(name, ()) for name in ("table1", "table5")}
    assert publications["table1"].own_data == () and publications["table5"].own_data == (
        "LCL on LAION",
        "LCL on LAION + MMC4",
    )
    own = plan(digests={**embedded, "mmc4": "0123456789abcdef"}).publication("table1", ())
    assert "Random encoder" not in own.own_data and {"CLIP", "LCL"} <= set(own.own_data)
    assert own.data_label(TABLE1.rows[0]) == "mmc4-pair"
    assert publications["table1"].data_label(TABLE1.rows[0]) == "toy mmc4-pair"
    assert plan(digests={}).publication("table1", ()).own_data == ()


def test_the_recipe_section_compares_with_the_papers_scale() -> None:
    made = plan(sets=["pretrain.images=12345", "objectives.lcl.contrast_weight=7"])
    text = render(TABLE1, made.publication("table1", [done(run) for run in made.runs]))
    (stated,) = re.findall(r"^- pretrain, stated in the paper: (.*)$", text, re.M)
    (open_,) = re.findall(r"^- pretrain, the suite's choice: (.*)$", text, re.M)
    assert "images 2,048,000,000 → 12,345;" in stated and "objectives.lcl.contrast_weight 0.1 → 7" in stated
    assert "optim.clip_norm none → 1" in open_ and "optim.lr" not in open_
    assert "inputs" not in stated + open_ and "seed;" not in stated + open_


def test_every_setting_that_is_called_stated_is_one_of_the_papers_recipe() -> None:
    """A typing error would call a stated value the suite's choice."""
    made = plan((TABLE1, TABLE4), scale="base16", catalogue=Suite())
    found: dict[str, set[str]] = {}
    for stages in (*made.references["table1"].values(), *made.references["table4"].values()):
        for stage, spec in stages.items():
            name = (spec.get("objective") or {}).get("name")
            leaves = {key.replace("objective.config", f"objectives.{name}") for key in flatten(spec)}
            found[stage] = found.get(stage, set()) | leaves
    stated = {**STATED, **STATED_OF_DIALOGUE}
    assert not [(stage, key) for stage, keys in stated.items() for key in keys if key not in found[stage]]


def test_a_plan_at_the_papers_own_recipe_changes_nothing() -> None:
    made = plan(scale="base16")
    text = render(TABLE1, made.publication("table1", [done(run) for run in made.runs]))
    assert text.startswith("# Table 1\n") and "Nothing: every setting" in text
    made = plan(scale="base16", sets=["pretrain.images=8192"])
    text = render(TABLE1, made.publication("table1", [done(run) for run in made.runs]))
    assert text.startswith("# Table 1: NOT THE PAPER'S RECIPE")


def test_planning_imports_neither_torch_nor_pandas() -> None:
    code = "import sys, experiments.planning.plan; sys.exit(bool({'torch', 'pandas'} & sys.modules.keys()))"
    assert subprocess.run((sys.executable, "-c", code), cwd=Path(__file__).parents[3]).returncode == 0


def test_tiny_is_labelled_and_the_papers_scales_are_not() -> None:
    assert "not comparable" in TINY.warning and not get_scale("base16").warning


# ---- refused, never silent ----


@pytest.mark.parametrize("mode", ["fulll", "bananas"])
def test_a_transfer_mode_that_is_not_built_is_refused(mode: str) -> None:
    row = replace(TABLE1.rows[0], label="CLIP, other", mode=mode)  # type: ignore[arg-type]  # as a user may write it
    with pytest.raises(
        ConfigError, match=f"row 'CLIP, other': there is no transfer mode '{mode}'; it can be frozen or full or"
    ):
        plan((replace(TABLE1, rows=(row,)),))


def test_a_corpus_of_pairs_implies_the_layout_of_an_objective_that_reads_either() -> None:
    row = replace(TABLE1.rows[-1], label="LCL on pairs", objective="lcl", data="mmc4-pair", paper={})
    made = plan((replace(TABLE1, rows=(*TABLE1.rows, row)),))
    assert pretrain(made, "LCL on pairs").objective.config["layout"] == "random_order"  # type: ignore[union-attr]
    assert pretrain(made, "LCL").objective.config["layout"] == "interleaved"  # type: ignore[union-attr]
    chosen = plan((replace(TABLE1, rows=(row,)),), sets=["objectives.lcl.layout=interleaved"])
    assert pretrain(chosen, "LCL on pairs").objective.config["layout"] == "interleaved"  # type: ignore[union-attr]


def test_an_undecided_precision_is_refused() -> None:
    scale = get_scale("tiny")
    with pytest.raises(ConfigError, match="precision is 'auto'"):
        build_plan([TABLE1], [0], scale, replace(scale.config, objectives={}, transfer={}), FakeCatalogue(), DIGESTS)


def test_a_mixture_is_known_by_its_parts_and_their_weights() -> None:
    def run(data: str, **digests: str) -> PlannedRun:
        row = replace(TABLE1.rows[6], data=data)
        assert row.objective == "lcl"
        table = replace(TABLE1, rows=(row,))
        return next(r for r in plan([table], digests=DIGESTS | digests).runs if r.kind is Kind.PRETRAIN)

    mixed = run("laion-random+mmc4")
    assert mixed.spec.inputs == {"corpus:laion-random": "laion-v1", "corpus:mmc4": "mmc4-v1", "tokenizer": "mmc4-v1"}
    data = mixed.spec.data
    assert (data.text_len, data.seq_len, data.sim_threshold, data.max_images) == (80, 256, 0.24, 6)
    same = run("mmc4+laion-random")
    others = [run("2*laion-random+mmc4"), run("laion-random+mmc4", laion="laion-v2"), run("mmc4"), run("obelics")]
    assert mixed.run_id == same.run_id and len({mixed.run_id, *(other.run_id for other in others)}) == 5
    assert others[-1].spec.data.sim_threshold is None and others[-1].spec.data.max_images == 6
    with pytest.raises(ConfigError, match="leaves 1 to mmc4, but one of its entries may hold 6; give it more weight"):
        run("99*laion-random+mmc4")


def test_where_pictures_stand_renames_only_runs_whose_pictures_are_placed() -> None:
    """Pairs and pages of OBELICS have an order of their own."""

    def names(*sets: str) -> dict[str, str]:
        made = plan([TABLE1, TABLE5], sets=list(sets), digests=DIGESTS | {"obelics": "obelics-v1"})
        return {r.run_id: r.spec.data.name for r in made.runs if r.kind is Kind.PRETRAIN and r.spec.data}

    before, after = names(), names("data.before_probability=0.25")
    assert {before[name] for name in set(before) - set(after)} == {"mmc4", "laion-random+mmc4"}
    assert {before[name] for name in set(before) & set(after)} >= {"mmc4-pair", "laion-random", "obelics"}
    with pytest.raises(ConfigError, match="data.before_probability is a probability, got 2"):
        plan(sets=["data.before_probability=2"])


def test_a_seed_of_transfer_leaves_pre_training_alone_and_is_every_row_s() -> None:
    before, after = plan(seeds=(0, 1)), plan(seeds=(0, 1), sets=["transfer_seed=7"])
    trained = [{run.run_id for run in made.runs if run.kind is not Kind.TRANSFER} for made in (before, after)]
    assert trained[0] == trained[1]
    seeds = [{run.spec.seed for run in made.runs if run.kind is Kind.TRANSFER} for made in (before, after)]
    assert seeds == [{0, 1}, {7}] and len(after.runs) == len(before.runs)
    assert {slot.seed for slot in after.slots["table1"]} == {0, 1}
    with pytest.raises(ConfigError, match="transfer_seed is a whole number from 0 on"):
        plan(sets=["transfer_seed=-1"])


@pytest.mark.parametrize("length", [19, 2049])
def test_rows_that_a_model_cannot_read_or_that_hold_no_image_are_refused(length: int) -> None:
    with pytest.raises(ConfigError, match=rf"data\.seq_len is {length}; .* need 20 tokens, .* has 2048 positions: set"):
        plan(sets=[f"data.seq_len={length}"])
    pairs = replace(TABLE1, rows=tuple(row for row in TABLE1.rows if row.objective == "clip"))
    plan([pairs], sets=[f"data.seq_len={length}"])  # not read
