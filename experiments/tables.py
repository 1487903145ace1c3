"""The tables, declared. Rows and columns are those of the LCL paper (Tables 1, 2, 3, 5, 6; 4, 10 and 11 in
dialogue_tables.py); control rows are ours, and so are the tables of own_tables.py.

Adding a row is one `Row`, adding a table one `Table` in TABLES. What equal rows of two tables share is found by
planning (experiments/planning/plan.py): the LCL row on MMC4 stands in Tables 1, 5, 6a and 6b and is trained once a
seed.
"""

from dataclasses import replace

from experiments.columns import ALL_NINE, COCO_FOUR, IN1K_STANDARDISED
from experiments.configuration.overrides import suggest
from experiments.dialogue_tables import TABLE4, TABLE10, TABLE11
from experiments.own_tables import PLACEMENT, REDUNDANCY, budget
from results.schema import EMBEDDED, Row, Table


def _method(label: str, objective: str, data: str, task: str, line: str) -> Row:
    return Row(label=label, objective=objective, data=data, task=task, paper={"method": line})


TABLE1 = Table(
    name="table1",
    title="Table 1",
    caption="Frozen transfer of vision encoders pre-trained from scratch on interleaved documents; objectives that "
    "read pairs see the image-sentence pairs of the same documents.",
    columns=ALL_NINE,
    more_columns=(IN1K_STANDARDISED,),
    rows=(
        _method("CLIP", "clip", "mmc4-pair", "Con.", "CLIP"),
        _method("CoCa", "coca", "mmc4-pair", "Con. + Cap.", "CoCa"),
        _method("BLIP2", "blip2", "mmc4-pair", "Con. + Cap. + Mat.", "BLIP2"),
        _method("BEiT3", "beit3", "mmc4", "Mask.", "BEiT3"),
        _method("Flamingo", "flamingo", "mmc4", "Gen.", "Flamingo"),
        _method("Emu", "emu", "mmc4", "Gen. + Reg.", "Emu"),
        _method("LCL", "lcl", "mmc4", "Con. + Gen.", "LCL"),
        Row(label="Random encoder", objective=None, data="mmc4", task="none", control=True),
        Row(
            label="Blind (captions without an image)",
            objective=None,
            data="mmc4",
            task="none",
            mode="blind",
            control=True,
        ),
        Row(
            label="Supervised (labels of the same images)",
            objective="supervised",
            data="mmc4-pair",
            task="labels",
            control=True,
            only_at=(EMBEDDED,),  # MMC4 has no labels
        ),
    ),
    paper_csv="table1.csv",
    cost_reference="CLIP",
)

TABLE2 = Table(
    name="table2",
    title="Table 2",
    caption="Frozen transfer of vision encoders pre-trained from scratch on image-text pairs; LCL reads each pair in a "
    "random order.",
    columns=ALL_NINE,
    rows=(
        _method("CLIP", "clip", "laion", "Con.", "CLIP"),
        _method("CoCa", "coca", "laion", "Con. + Cap.", "CoCa"),
        _method("BLIP2", "blip2", "laion", "Con. + Cap. + Mat.", "BLIP2"),
        Row(
            label="LCL",
            objective="lcl",
            data="laion-random",
            task="Con. + Gen.",
            paper={"method": "LCL"},
        ),
    ),
    paper_csv="table2.csv",
    cost_reference="CLIP",
)

TABLE5 = Table(
    name="table5",
    title="Table 5",
    caption="Frozen transfer of LCL encoders pre-trained on different corpora, equal numbers of images seen.",
    columns=ALL_NINE,
    rows=(
        Row(
            label="LCL on LAION",
            objective="lcl",
            data="laion-random",
            task="Con. + Gen.",
            paper={"pretrain_data": "LAION"},
        ),
        Row(label="LCL on MMC4", objective="lcl", data="mmc4", task="Con. + Gen.", paper={"pretrain_data": "MMC4"}),
        Row(
            label="LCL on OBELICS",
            objective="lcl",
            data="obelics",
            task="Con. + Gen.",
            paper={"pretrain_data": "OBELICS"},
        ),
        Row(
            label="LCL on LAION + MMC4",
            objective="lcl",
            data="laion-random+mmc4",  # as many images of each: what the paper's epochs come to (Table 3)
            task="Con. + Gen.",
            paper={"pretrain_data": "LAION + MMC4"},
        ),
    ),
    paper_csv="table5.csv",
    cost_reference="LCL on MMC4",
)

TABLE6A = Table(
    name="table6a",
    title="Table 6a",
    caption="LCL with one of its two losses switched off; frozen transfer.",
    columns=COCO_FOUR,
    rows=(
        Row(
            label="Con. only",
            objective="lcl",
            data="mmc4",
            task="Con.",
            override={"objectives.lcl.contrast_weight": 1.0, "objectives.lcl.generate_weight": 0.0},
            paper={"method": "Con. only"},
        ),
        Row(
            label="Gen. only",
            objective="lcl",
            data="mmc4",
            task="Gen.",
            override={"objectives.lcl.contrast_weight": 0.0},
            paper={"method": "Gen. only"},
        ),
        Row(label="LCL", objective="lcl", data="mmc4", task="Con. + Gen.", paper={"method": "LCL"}),
    ),
    paper_csv="table6a.csv",
    cost_reference="LCL",
)


def _weight(value: float) -> Row:
    return Row(
        label=f"λ = {value:g}",
        objective="lcl",
        data="mmc4",
        task="Con. + Gen.",
        override={"objectives.lcl.contrast_weight": value},
        paper={"lambda_con": f"{value:g}"},
    )


TABLE6B = Table(
    name="table6b",
    title="Table 6b",
    caption="Weight λ of LCL's contrastive loss: half, one, two and five times the paper's choice; frozen transfer.",
    columns=COCO_FOUR,
    rows=tuple(map(_weight, (0.05, 0.1, 0.2, 0.5))),
    paper_csv="table6b.csv",
    cost_reference="",
)


def _in_full(row: Row) -> Row:
    return replace(row, label=f"{row.label}, full", mode="full")


# Encoders of the paper's Table 1 under the paper's Table 3: both transfers of each. No line of the paper's table is one
# of these rows, as its encoders are larger and saw other data; they are printed beside them.
_BOTH_WAYS = tuple(replace(row, paper={}) for row in TABLE1.rows)

TABLE3 = Table(
    name="table3",
    title="Table 3",
    caption="Frozen and full transfer of the same vision encoders, pre-trained from scratch as in Table 1.",
    columns=ALL_NINE,
    rows=(*_BOTH_WAYS, *(_in_full(row) for row in _BOTH_WAYS if row.mode == "frozen")),
    paper_csv="table3.csv",
    cost_reference="CLIP",
    references=tuple(
        {"transfer": transfer, "method": method, "pretrain_data": data}
        for transfer in ("frozen", "full")
        for method, data in (
            ("OpenAI CLIP", "WIT-400M"),
            ("OpenCLIP", "LAION-400M"),
            ("LCL", "LAION-400M"),
            ("LCL", "LAION-400M + MMC4"),
        )
    ),
)

TABLES = {
    table.name: table
    for table in (
        *(TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6A, TABLE6B, TABLE10, TABLE11),
        *(REDUNDANCY, PLACEMENT, budget(TABLE1.rows)),
    )
}


def get_table(name: str) -> Table:
    """The table of that name. Raises ValueError with the nearest name for an unknown one."""
    if name not in TABLES:
        raise ValueError(suggest(name, TABLES, "table"))
    return TABLES[name]
