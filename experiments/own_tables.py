"""Tables of our own, at the embedded scale: they ask why a claim of the paper comes out or does not, and by when."""

from collections.abc import Sequence
from dataclasses import replace

from experiments.columns import COCO_FOUR, IN1K
from results.schema import EMBEDDED, Row, Table

_UNTOUCHED = Row(label="Random encoder", objective=None, data="mmc4", task="none", control=True, only_at=(EMBEDDED,))

REDUNDANCY = Table(
    name="redundancy",
    title="Redundancy",
    caption="Does the text's redundancy decide who collapses? One table for each "
    "`--set data.toyworld_redundancy=0`, `=0.5` and `=0.9`: how often the text of the embedded corpus names what its "
    "pictures show (paper 3.2). Frozen transfer.",
    columns=(IN1K, *COCO_FOUR),
    rows=(
        Row(label="Flamingo", objective="flamingo", data="mmc4", task="Gen.", only_at=(EMBEDDED,)),
        Row(label="Emu", objective="emu", data="mmc4", task="Gen. + Reg.", only_at=(EMBEDDED,)),
        Row(
            label="LCL without contrast",
            objective="lcl",
            data="mmc4",
            task="Gen.",
            override={"objectives.lcl.contrast_weight": 0.0},
            only_at=(EMBEDDED,),
        ),
        Row(label="LCL", objective="lcl", data="mmc4", task="Con. + Gen.", only_at=(EMBEDDED,)),
        _UNTOUCHED,
    ),
    paper_csv="table1.csv",
    cost_reference="LCL",
)


def _placed(label: str, before: float) -> Row:
    return Row(
        label=label,
        objective="lcl",
        data="mmc4",
        task="Con. + Gen.",
        override={} if before == 0.5 else {"data.before_probability": before},
        only_at=(EMBEDDED,),
    )


PLACEMENT = Table(
    name="placement",
    title="Placement",
    caption="What does LCL's contrast lack beside that of pairs? The context of a picture is what stands before it. "
    "Its own sentence does where the picture comes second: never, half of the time (the paper's, 4.1), or always. "
    "Frozen transfer.",
    columns=(IN1K, *COCO_FOUR),
    rows=(
        Row(label="CLIP", objective="clip", data="mmc4-pair", task="Con.", only_at=(EMBEDDED,)),
        _placed("LCL, pictures first", 1.0),
        _placed("LCL", 0.5),
        _placed("LCL, sentences first", 0.0),
        _UNTOUCHED,
    ),
    paper_csv="table1.csv",
    cost_reference="CLIP",
)

BUDGETS = (8_000, 16_000, 32_000, 64_000)  # images; the third is the tiny scale's own, so Table 1's runs are reused


def _budgets(row: Row) -> tuple[Row, ...]:
    """A row once for each budget."""
    return tuple(
        replace(
            row,
            label=f"{row.label}, {images // 1000}k images",
            override={"pretrain.images": images},
            paper={},
            only_at=(EMBEDDED,),
        )
        for images in BUDGETS
    )


def budget(rows: Sequence[Row]) -> Table:
    """The rows of a table that are no controls, after 8k to 64k images."""
    return Table(
        name="budget",
        title="Budget",
        caption="Every method of Table 1 after 8k to 64k images, each budget a schedule of its own: learning jumps, "
        "and one budget says only when the jump came. Score against training FLOPs compares at equal compute. Frozen "
        "transfer.",
        columns=(IN1K, *COCO_FOUR),
        rows=(*(each for row in rows if not row.control for each in _budgets(row)), _UNTOUCHED),
        paper_csv="table1.csv",
        cost_reference="",
    )
