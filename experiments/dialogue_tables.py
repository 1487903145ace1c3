"""Multimodal dialogue and the comparison of encoders, declared: Tables 4, 10 and 11 of the LCL paper.

No line of the paper's tables is a row of ours, whose encoders are smaller and saw other data: all of them are printed
as references, beside encoders of Table 1.
"""

from collections.abc import Sequence
from dataclasses import replace

from experiments.columns import COCO_CAPTIONING, COCO_RETRIEVAL, IN1K
from results.schema import EMBEDDED, Analogue, Column, Row, Table

_DOWNLOADED = ("small16", "base16", "large14")  # scales whose benchmarks the embedded corpus has none of
_LLAVA = (
    "LLaVA-1.5's two stages. What differs from LLaVA-1.5: weight decay 1e-4, the second beta of Adam 0.95 and the "
    "batches are those of the LCL paper's Table 8; pictures have the side the encoder reads; its last layer's patch "
    "tokens are read, not those of the layer before; labels go by characters, so no conversation is dropped; answers "
    "are generated in batches of equal length. At the embedded scale a language model trained on the embedded corpus "
    "converses, without a system sentence, about pictures of four drawn patterns."
)


def _benchmark(key: str, dataset: str, label: str, meaning: str, analogue: str = "", share: bool = True) -> Column:
    """A column of dialogue. analogue: what it is on the embedded corpus, where it is there."""
    return Column(
        key=key,
        group="dialogue",
        label=label,
        task="dialogue",
        dataset=dataset,
        metric=key,
        benchmark=label,
        meaning=meaning,
        share_of_items=share,
        item_scores=("pope_tp", "pope_fp", "pope_fn") if dataset == "pope" else (),
        analogue={EMBEDDED: Analogue(label=f"toy {label}", meaning=analogue)} if analogue else {},
        only_at=() if analogue else _DOWNLOADED,
    )


EIGHT = (
    _benchmark("vqav2_acc", "vqav2", "VQAv2", "VQAv2 val2014, soft accuracy, % (the paper: test-dev)"),
    _benchmark(
        "gqa_acc",
        "gqa",
        "GQA",
        "GQA testdev balanced, equal answers, %",
        "what, where, which colour and how many, about four drawn patterns: equal answers, %",
    ),
    _benchmark("vizwiz_acc", "vizwiz", "VizWiz", "VizWiz val, soft accuracy, % (the paper: test)"),
    _benchmark("sqa_acc", "scienceqa", "SQA", "ScienceQA test, all questions, letters, %"),
    _benchmark(
        "pope",
        "pope",
        "POPE",
        'POPE on COCO, mean of three F1 of "yes", × 100',
        'whether a thing is among four drawn patterns, mean of three F1 of "yes", × 100 (always "yes": 66.7)',
        share=False,
    ),
    _benchmark("mme_perception", "mme", "MME", "MME perception, sum of ten sub-tasks, at most 2000", share=False),
    _benchmark("mmb_acc", "mmbench", "MMB", "MMBench dev_20230712, right in every rotation, %"),
    _benchmark("seed_i_acc", "seed", "SEED-I", "SEED-Bench, questions about pictures, letters, %"),
)

_FROZEN = (
    Row(label="CLIP", objective="clip", data="mmc4-pair", task="Con."),
    Row(label="Emu", objective="emu", data="mmc4", task="Gen. + Reg."),
    Row(label="LCL", objective="lcl", data="mmc4", task="Con. + Gen."),
    Row(label="Random encoder", objective=None, data="mmc4", task="none", control=True),
)
_BLIND = Row(
    label="Blind (conversations without a picture)",
    objective=None,
    data="mmc4",
    task="none",
    mode="blind",
    control=True,
)


def _in_full(rows: Sequence[Row]) -> tuple[Row, ...]:
    return tuple(replace(row, label=f"{row.label}, full", mode="full") for row in rows)


TABLE4 = Table(
    name="table4",
    title="Table 4",
    caption=f"Multimodal dialogue behind the vision encoders of Table 1, frozen and trained in full: {_LLAVA}",
    columns=EIGHT,
    rows=(*_FROZEN, _BLIND, *_in_full(_FROZEN)),
    paper_csv="table4.csv",
    cost_reference="CLIP",
    references=tuple(
        {"transfer": transfer, "method": method}
        for transfer in ("frozen", "full")
        for method in ("OpenAI CLIP", "OpenCLIP", "LCL")
    ),
)

TABLE10 = Table(
    name="table10",
    title="Table 10",
    caption="Encoders as systems, whatever they were trained on: the vision encoders of Table 1 beside published "
    "checkpoints. Classification and captioning in full transfer, everything else frozen.",
    columns=(
        replace(IN1K, key="in1k_acc1_frozen", mode="frozen"),
        replace(IN1K, key="in1k_acc1_full", mode="full"),
        *(replace(each, key=f"{each.key}_frozen", mode="frozen") for each in COCO_RETRIEVAL),
        *(
            replace(column, key="coco_cider_full", mode="full")
            for column in COCO_CAPTIONING
            if column.metric == "cider"
        ),
    ),
    rows=(*_FROZEN, *_in_full(_FROZEN)),
    paper_csv="table10.csv",
    cost_reference="CLIP",
    references=tuple(
        {"group": group, "method": method, "pretrain_data": data}
        for group, method, data in (
            ("paired", "LCL", "LAION-400M"),
            ("paired", "OpenCLIP", "LAION-400M"),
            ("paired", "CoCa (reproduced)", "LAION-400M"),
            ("interleaved", "LCL", "MMC4"),
            ("interleaved", "BEiT3", "MMC4"),
            ("interleaved", "OpenFlamingo", "MMC4"),
            ("interleaved", "Emu", "MMC4"),
            ("checkpoints", "LCL", "LAION-400M"),
            ("checkpoints", "LCL", "LAION-400M + MMC4"),
            ("checkpoints", "OpenCLIP", "LAION-400M"),
            ("checkpoints", "OpenAI CLIP", "WIT-400M"),
            ("checkpoints", "CoCa", "JFT-3B + ALIGN"),
        )
    ),
)

TABLE11 = Table(
    name="table11",
    title="Table 11",
    caption="Multimodal dialogue beside published systems, which have other language models and more conversations; "
    f"frozen encoders: {_LLAVA}",
    columns=EIGHT,
    rows=(*_FROZEN, _BLIND),
    paper_csv="table11.csv",
    cost_reference="CLIP",
    references=tuple(
        {"method": method, "vision_encoder": encoder, "mllm_method": system}
        for method, encoder, system in (
            ("LCL", "ViT-L", "LLaVA-1.5"),
            ("OpenCLIP", "ViT-L", "LLaVA-1.5"),
            ("OpenAI CLIP", "ViT-L", "LLaVA-1.5"),
            ("OpenAI CLIP", "ViT-L-336", "LLaVA-1.5"),
            ("OpenAI CLIP", "ViT-L-336", "LLaVA-NEXT"),
            ("OpenAI CLIP", "ViT-L", "InternLM-XC2"),
            ("OpenCLIP", "ViT-L", "Qwen-VL-Chat"),
            ("EVA-CLIP", "ViT-G", "Emu-I"),
            ("EVA-CLIP", "ViT-E", "Emu2-Chat"),
            ("EVA-CLIP", "ViT-E", "CogVLM-Chat"),
            ("InternViT", "ViT-6B", "InternVL"),
            ("InternViT", "ViT-6B", "InternVL 1.5"),
        )
    ),
)
