"""Made-up run records and a small table of them, valid in every field."""

from dataclasses import replace
from typing import Any

from results.canonical import run_id
from results.schema import Analogue, Column, Kind, Publication, Row, RunRecord, Slot, Status, Table

ENV = {"python": "3.11.7", "torch": "2.15.0", "cpu": "Some CPU | model <2>", "device": "cpu", "threads": "1"}


def make_record(spec: dict[str, Any], metrics: dict[str, float], **changes: Any) -> RunRecord:
    """A valid record of that spec."""
    kind = Kind(spec["kind"])
    record = RunRecord(
        run_id=run_id(kind, "made-up", spec),
        kind=kind,
        status=Status.DONE,
        spec=spec,
        parent=spec.get("inputs", {}).get("encoder"),
        metrics=metrics,
        scale="tiny",
        seed=spec["seed"],
        images_seen=1000 if kind is Kind.PRETRAIN else 0,
        lm_passes=1,
        train_flops=2e12,
        commit="0123456789abcdef0123456789abcdef01234567",
        dirty=False,
        env=ENV,
        data_digest="d1",
        coverage={"documents": 400, "images": 1000, "skipped": 3, "decode_error": 3} if kind is Kind.PRETRAIN else {},
        seconds=12.5,
        finished_at="2026-01-02T03:04:05Z",
    )
    return replace(record, **changes)


def pretrain_spec(objective: str | None, seed: int, **changes: Any) -> dict[str, Any]:
    """A pre-training spec of the shape that experiments/planning/specs.py writes, with a few settings only."""
    trained = objective is not None
    spec = {
        "kind": "pretrain",
        "protocol": 1,
        "objective": {"name": objective, "config": {"weight": 1.0}} if trained else None,
        "data": {"name": "mmc4-pair" if objective == "clip" else "mmc4"} if trained else None,
        "optim": {"lr": 0.001} if trained else None,
        "images": 1000 if trained else 0,
        "seed": seed,
        "inputs": {"corpus": "d1"} if trained else {},
    }
    return spec | changes


def transfer_spec(encoder: str, seed: int) -> dict[str, Any]:
    """A transfer spec."""
    spec = {"kind": "transfer", "protocol": 2, "task": "classify", "mode": "frozen", "seed": seed}
    return spec | {"recipe": {"epochs": 20.0}, "inputs": {"encoder": encoder}}


ACC = Column(
    key="in1k_acc1",
    group="classification",
    label="IN-1k acc-1",
    task="classify",
    dataset="imagenet",
    metric="acc1",
    meaning="top-1, %",
    share_of_items=True,
    analogue={"tiny": Analogue(label="pattern acc@1 (IN-1k analogue)", meaning="24 patterns, %")},
)

TABLE = Table(
    name="table1",
    title="Table 1",
    caption="A caption.",
    rows=(
        Row(label="CLIP", objective="clip", data="mmc4-pair", task="Con.", paper={"method": "CLIP"}),
        Row(label="Emu", objective="emu", data="mmc4", task="Gen. + Reg.", paper={"method": "Emu"}),
        Row(label="LCL", objective="lcl", data="mmc4", task="Con. + Gen.", paper={"method": "LCL"}),
        Row(label="Random encoder", objective=None, data="mmc4", task="none", control=True),
    ),
    columns=(ACC,),
    paper_csv="table1.csv",
    cost_reference="CLIP",
)

OBJECTIVES = {row.label: row.objective for row in TABLE.rows}


def publication(scores: dict[str, list[float | str | None]], **changes: Any) -> Publication:
    """What fills TABLE: row label -> for each seed a score, the reason of a failure, or None for a run not done."""
    slots: list[Slot] = []
    records: dict[str, RunRecord] = {}
    for row, values in scores.items():
        for seed, value in enumerate(values):
            encoder = make_record(pretrain_spec(OBJECTIVES[row], seed), {"rankme": 10.0 + seed})
            if OBJECTIVES[row] == "lcl":
                encoder = replace(encoder, train_flops=5e12)
            if OBJECTIVES[row] is None:
                encoder = replace(encoder, images_seen=0, lm_passes=0, train_flops=0.0, coverage={}, metrics={})
            spec = transfer_spec(encoder.run_id, seed)
            slots.append(Slot(row=row, stage="pretrain", seed=seed, run_id=encoder.run_id))
            slots.append(Slot(row=row, stage="classify", seed=seed, run_id=run_id("transfer", "made-up", spec)))
            records[encoder.run_id] = encoder
            if isinstance(value, float):
                chance, items = {"imagenet/acc1": 100 / 24}, {"imagenet": 1500}
                done = make_record(spec, {"imagenet/acc1": value}, chance=chance, items=items)
                records[done.run_id] = done
            elif isinstance(value, str):
                failed = make_record(spec, {}, status=Status.FAILED, reason=value)
                records[failed.run_id] = failed
    settings: dict[str, Any] = {
        "table": "table1",
        "scale": "tiny",
        "warning": "TINY SCALE, not comparable with the paper",
    }
    return Publication(**(settings | {"slots": tuple(slots), "records": records} | changes))
