"""The declared tables match the paper's, and every name in them means something."""

import pytest
from plan_helpers import DIGESTS, TINY, FakeCatalogue, without_details
from plan_helpers import PAPERS_TABLE1 as TABLE1

from data.toyworld.spec import DIALOGUE_BENCHMARKS
from experiments.configuration.corpora import CORPORA, TASKS, get_corpus
from experiments.configuration.overrides import ConfigError
from experiments.configuration.recipe import SCALES, get_scale
from experiments.planning.plan import build_plan
from experiments.planning.specs import PretrainSpec
from experiments.tables import TABLE3, TABLE6B, TABLES, get_table
from results.paper import load, value
from results.schema import Table
from transfer.dialogue.scoring.registry import BENCHMARKS

EVERY = pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
PAPERS = {name: table for name, table in TABLES.items() if table.references or any(row.paper for row in table.rows)}
OF_THE_PAPER = pytest.mark.parametrize("table", PAPERS.values(), ids=PAPERS)


def test_the_papers_tables_and_our_own() -> None:
    assert set(PAPERS) >= {"table1", "table2", "table5", "table6a", "table6b"}
    assert {"redundancy", "placement", "budget"} <= set(TABLES) - set(PAPERS)


def test_budgets_share_the_runs_of_table_1() -> None:
    """The third budget is the tiny scale's own."""
    made = build_plan([TABLE1, TABLES["budget"]], [0], TINY, without_details(TINY.config), FakeCatalogue(), DIGESTS)
    shared = [run for run in made.runs if {name.partition(":")[0] for name in run.used_by} == {"table1", "budget"}]
    trained = [run.spec for run in shared if isinstance(run.spec, PretrainSpec) and run.spec.images]
    assert len(trained) == 7 and {spec.images for spec in trained} == {TINY.config.pretrain.images}


@OF_THE_PAPER
def test_every_cell_of_the_paper_has_its_place(table: Table) -> None:
    """Rows and columns together cover every number the paper prints in that table, and each number once."""
    printed = [
        cell for line in load(table.paper_csv) for key, cell in line.items() if key in {c.key for c in table.columns}
    ]
    rows = [row for row in table.rows_at("base16") if row.paper]
    lines = [*(row.paper for row in rows), *table.references]
    found = [value(table.paper_csv, line, column.key) for line in lines for column in table.columns]
    assert sorted(each for each in found if each is not None) == sorted(float(cell) for cell in printed if cell)


@OF_THE_PAPER
def test_no_number_column_of_the_paper_is_left_out(table: Table) -> None:
    words = {"method", "task", "pretrain_data", "supports_interleaved", "lm_passes", "lambda_con"}
    words |= {"transfer", "pretrain_epochs", "vision_encoder", "group", "vision_params", "seen_samples", "data_public"}
    words |= {"pretrain_samples", "pretrain_data_public", "mllm_method", "llm_size", "mllm_samples", "mllm_data_public"}
    words |= {"teacher_included"}
    assert {column.key for column in table.columns} == set(load(table.paper_csv)[0]) - words


@EVERY
def test_names_in_rows_and_columns_exist(table: Table) -> None:
    for row in table.rows:
        if not row.unavailable:
            assert get_corpus(row.data).name == row.data and (
                row.objective is None or row.objective in FakeCatalogue.reads
            )
        assert set(row.only_at) <= set(SCALES)
    for column in (*table.columns, *table.more_columns):
        if column.task == "dialogue":
            assert column.metric == BENCHMARKS[column.dataset].metric
            assert column.dataset in DIALOGUE_BENCHMARKS or "tiny" not in column.only_at
        else:
            assert column.dataset in TASKS[column.task].tests
        assert set(column.only_at) <= set(SCALES)
        there = not column.only_at or "tiny" in column.only_at
        assert set(column.analogue) == ({"tiny"} if there else set())
        assert not there or column.analogue["tiny"].label != column.label


@EVERY
def test_labels_and_keys_are_unique_at_every_scale(table: Table) -> None:
    for scale in SCALES:
        labels = [row.label for row in table.rows_at(scale)]
        assert len(set(labels)) == len(labels) >= (table.name in PAPERS or scale == "tiny")
    keys = [column.key for column in (*table.columns, *table.more_columns)]
    assert len(set(keys)) == len(keys)


@EVERY
def test_the_cost_reference_is_a_row_of_the_table(table: Table) -> None:
    for scale in SCALES:
        labels = {row.label for row in table.rows_at(scale)}
        assert not labels or table.cost_reference in labels | {""}


def test_table_1_is_the_seven_methods_and_three_controls() -> None:
    rows = TABLE1.rows_at("tiny")
    methods = [row.objective for row in rows if not row.control]
    assert methods == ["clip", "coca", "blip2", "beit3", "flamingo", "emu", "lcl"]
    controls = [(row.objective, row.mode) for row in rows if row.control]
    assert controls == [(None, "frozen"), (None, "blind"), ("supervised", "frozen")]
    assert "supervised" not in [row.objective for row in TABLE1.rows_at("base16")]  # MMC4 has no labels


def test_the_rows_of_the_paper_read_what_the_paper_says() -> None:
    for line in load("table1.csv"):
        (row,) = [row for row in TABLE1.rows if row.paper == {"method": line["method"]}]
        assert get_corpus(row.data).pairs == (line["pretrain_data"] == "MMC4-Pair")
        assert row.task.lower().replace(".", "").replace(" ", "") == line["task"]


def test_the_sweep_of_the_contrastive_weight_is_the_papers() -> None:
    for row in TABLE6B.rows:
        assert float(row.paper["lambda_con"]) == row.override["objectives.lcl.contrast_weight"]


def test_the_learning_rate_belongs_to_the_corpus() -> None:
    config = get_scale("base16").config.pretrain
    named = (*CORPORA, "laion+mmc4", "2*laion-random+mmc4-pair")
    rates = {name: getattr(config.optim.lr, get_corpus(name).rate) for name in named}
    high = {name for name, rate in rates.items() if rate == 5e-4}
    assert high == {"laion", "laion-random"} and {rates[name] for name in named if name not in high} == {3e-4}


@pytest.mark.parametrize(
    ("scale", "images", "steps", "warmup"), [("base16", 2.05e9, 250_000, 2_000), ("large14", 13.1e9, 200_000, 2_000)]
)
def test_the_papers_budgets(scale: str, images: float, steps: int, warmup: int) -> None:
    config = get_scale(scale).config.pretrain
    assert config.images == pytest.approx(images, rel=0.005)
    assert config.images / config.images_per_step == steps and config.optim.warmup_share * steps == warmup
    assert (config.optim.weight_decay, config.optim.betas, config.optim.precision) == (0.1, (0.9, 0.95), "bf16")


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(ValueError, match=r"unknown table 'tabel1'. Did you mean 'table1'\?"):
        get_table("tabel1")
    with pytest.raises(ValueError, match=r"unknown scale 'tini'. Did you mean 'tiny'\?"):
        get_scale("tini")
    with pytest.raises(ConfigError, match=r"unknown corpus 'mmc4_pair'. Did you mean 'mmc4-pair'\?"):
        get_corpus("mmc4_pair")


def test_table_3_transfers_the_encoders_of_table_1_both_ways_and_trains_none_of_them_again() -> None:
    frozen = {row.label for row in TABLE3.rows if row.mode == "frozen"}
    full = {row.label for row in TABLE3.rows if row.mode == "full"}
    assert full == {f"{label}, full" for label in frozen} and len(frozen) == 9
    assert not any(row.paper for row in TABLE3.rows) and len(TABLE3.references) == 8
    catalogue, scale = FakeCatalogue(), get_scale("tiny")
    config = without_details(scale.config)
    one = {run.run_id for run in build_plan([TABLES["table1"]], [0], scale, config, catalogue, DIGESTS).runs}
    both = build_plan([TABLE3], [0], scale, config, catalogue, DIGESTS)
    new = [run for run in both.runs if run.run_id not in one]
    assert len(new) == 27 and {run.spec.mode for run in new} == {"full"}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("written", "name", "images"),
    [
        ("mmc4", "mmc4", (64,)),
        ("mmc4+laion-random", "laion-random+mmc4", (32, 32)),
        ("4*mmc4+2*laion", "laion+2*mmc4", (21, 43)),
        ("0.3*laion-random+0.7*obelics", "3*laion-random+7*obelics", (19, 45)),
        ("obelics+mmc4+mmc4-pair", "mmc4-pair+mmc4+obelics", (22, 21, 21)),
    ],
)
def test_a_mixture_has_one_name_and_deals_out_every_image(written: str, name: str, images: tuple[int, ...]) -> None:
    corpus = get_corpus(written)
    assert corpus.name == name == get_corpus(name).name
    assert corpus.shares(64) == images and sum(corpus.shares(8191)) == 8191


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("laion+", "'laion\\+' is no corpus; write NAME or"),
        ("2*mmc4", "is no corpus; write NAME or"),
        ("0*laion+mmc4", "is no corpus; write NAME or"),
        ("-1*laion+mmc4", "is no corpus; write NAME or"),
        ("laion + mmc4", "is no corpus; write NAME or"),
        ("laion+mmc5", "unknown corpus 'mmc5'. Did you mean 'mmc4'"),
        ("laion+laion-random", "mixes the pairs of laion with themselves"),
    ],
)
def test_what_is_no_mixture_is_refused(written: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        get_corpus(written)
