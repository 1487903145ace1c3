"""The transcribed tables, against numbers of the paper's text, and the look-up."""

import pytest

from results import paper
from results.paper import PaperError, load, value


@pytest.mark.parametrize(
    ("name", "select", "column", "expected"),
    [
        ("table1.csv", {"method": "LCL"}, "in1k_acc1", 75.2),
        ("table1.csv", {"method": "Emu"}, "coco_b4", 0.3),
        ("table2.csv", {"method": "CoCa"}, "nocaps_cider", 82.9),
        ("table3.csv", {"method": "OpenCLIP", "transfer": "full"}, "coco_cider", 128.9),
        ("table5.csv", {"pretrain_data": "LAION + MMC4"}, "f30k_ir1", 61.1),
        ("table6a.csv", {"method": "Gen. only"}, "coco_cider", 17.8),
        ("table6b.csv", {"lambda_con": "0.5"}, "coco_tr1", 37.1),
    ],
)
def test_values_of_the_paper(name: str, select: dict[str, str], column: str, expected: float) -> None:
    assert value(name, select, column) == expected


def test_every_table_has_rows_and_every_row_every_column() -> None:
    names = sorted(path.name for path in paper.FOLDER.glob("*.csv"))
    assert names == sorted(f"table{n}.csv" for n in ("1", "10", "11", "2", "3", "4", "5", "6a", "6b"))
    for name in names:
        lines = load(name)
        assert lines and all(None not in line and None not in line.values() for line in lines)


def test_the_methods_of_table_1_are_in_the_papers_order() -> None:
    assert [line["method"] for line in load("table1.csv")] == [
        "CLIP",
        "CoCa",
        "BLIP2",
        "BEiT3",
        "Flamingo",
        "Emu",
        "LCL",
    ]


def test_an_empty_cell_and_an_empty_selection_are_no_number() -> None:
    assert value("table10.csv", {"method": "CoCa", "group": "checkpoints"}, "coco_tr1_frozen") is None
    assert value("table1.csv", {}, "in1k_acc1") is None


@pytest.mark.parametrize(
    ("name", "select", "column", "named"),
    [
        ("table9.csv", {}, "x", "there are table1.csv"),
        ("table1.csv", {"method": "SigLIP"}, "in1k_acc1", "picks 0 lines"),
        ("table3.csv", {"method": "LCL"}, "in1k_acc1", "picks 4 lines"),
        ("table1.csv", {"method": "LCL"}, "in1k", "no column 'in1k'; it has method"),
    ],
)
def test_a_wrong_look_up_says_what_there_is(name: str, select: dict[str, str], column: str, named: str) -> None:
    with pytest.raises(PaperError, match=named):
        value(name, select, column)
