"""Columns of the tables that transfer fills: classification, retrieval, captioning, each with its embedded analogue."""

from results.schema import EMBEDDED, Analogue, Column


def _retrieval(dataset: str, name: str, place: str) -> tuple[Column, ...]:
    directions = (("tr1", "TR@1", "image to text"), ("ir1", "IR@1", "text to image"))
    return tuple(
        Column(
            key=f"{dataset.replace('flickr', 'f')}_{metric}",
            group=f"{name} retrieval",
            label=f"{name} {label}",
            task="retrieve",
            dataset=dataset,
            metric=metric,
            benchmark=name,
            meaning=f"{name} test, recall@1 {way}, %",
            share_of_items=True,
            analogue={EMBEDDED: Analogue(label=f"toy {name} {label}", meaning=f"recall@1 {way} among {place}, %")},
        )
        for metric, label, way in directions
    )


# BLEU is no mean over images: its n-gram counts and lengths are summed first.
_BLEU_COUNTS = ("bleu_correct", "bleu_guess", "bleu_length", "bleu_reference")


def _captioning(dataset: str, name: str, split: str, place: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            key=f"{dataset}_{metric}",
            group=f"{name} captioning",
            label=f"{name} {label}",
            task="caption",
            dataset=dataset,
            metric=metric,
            benchmark=name,
            item_scores=_BLEU_COUNTS if metric == "b4" else (),
            meaning=f"{name} {split}, {long} of generated captions, × 100",
            analogue={EMBEDDED: Analogue(label=f"toy {name} {label}", meaning=f"{long} of captions of {place}, × 100")},
        )
        for metric, label, long in (("b4", "B@4", "BLEU-4"), ("cider", "C", "CIDEr"))
    )


_PATTERNS = "drawn patterns"
IN1K = Column(
    key="in1k_acc1",
    group="classification",
    label="IN-1k acc-1",
    task="classify",
    dataset="imagenet",
    metric="acc1",
    benchmark="IN-1k",
    meaning="ImageNet-1k val, top-1 accuracy of an attention probe, %",
    share_of_items=True,
    analogue={
        EMBEDDED: Analogue(
            label="pattern acc@1 (IN-1k analogue)",
            meaning=f"top-1 accuracy of an attention probe on 24 classes of {_PATTERNS}, %",
        )
    },
)
IN1K_STANDARDISED = Column(
    key="acc1_standardised",
    group="classification",
    label="IN-1k acc-1, standardised features",
    task="classify",
    dataset="imagenet",
    metric="acc1_standardised",
    benchmark="IN-1k",
    share_of_items=True,
    meaning="as above, every feature standardised first: tells collapsed from badly scaled features",
    analogue={
        EMBEDDED: Analogue(
            label="pattern acc@1, standardised features",
            meaning="as pattern acc@1, every feature standardised first: tells collapsed from badly scaled features",
        )
    },
)
COCO_RETRIEVAL = _retrieval("coco", "COCO", f"{_PATTERNS} in the style of pre-training")
FLICKR_RETRIEVAL = _retrieval("flickr30k", "Flickr30k", f"{_PATTERNS} in a style never seen before")
COCO_CAPTIONING = _captioning("coco", "COCO", "Karpathy test", f"{_PATTERNS} in the style of pre-training")
NOCAPS_CAPTIONING = _captioning(
    "nocaps", "NoCaps", "val", f"{_PATTERNS} in held-out combinations of pattern and colour"
)

ALL_NINE = (IN1K, *COCO_RETRIEVAL, *FLICKR_RETRIEVAL, *COCO_CAPTIONING, *NOCAPS_CAPTIONING)
COCO_FOUR = (*COCO_RETRIEVAL, *COCO_CAPTIONING)
