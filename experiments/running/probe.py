"""Probes of a run in training: what the language model gains from the images, on documents no step trains on.

The LCL paper (4.2) reports that generation-only methods reach a text loss close to LCL's while their features collapse.
This number ("visual use", our choice) shows it: text loss with the images of other documents, and with black images,
minus the text loss with the true ones.

Shape letters: m images, s image side.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.batch import Batch
from data.images import ImageTransform
from experiments.running.fit import Precision, Probe
from objectives.base import Objective

Change = Literal["shuffled", "zeroed"]


def visual_use(objective: Objective, batch: Batch, transform: ImageTransform, precision: Precision) -> Probe:
    """A probe for `fit`: the objective's watch values on a fixed batch, and visual use where it predicts text.

    Values are those of evaluation mode, under names that begin with "probe_". A batch of one document has no visual
    use "shuffled".
    """
    others = changed(batch, transform)

    @torch.no_grad()
    def run(step: int) -> dict[str, float]:
        objective.eval()
        device = next(objective.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            seen = objective(batch.to(device)).watch
            found = {f"probe_{name}": float(value) for name, value in seen.items()}
            if "text_nll" in seen:
                for name, images in others.items():
                    other = objective(replace(batch, images=images).to(device)).watch["text_nll"]
                    found[f"probe_visual_use_{name}"] = float(other) - float(seen["text_nll"])
        return found

    return run


def changed(batch: Batch, transform: ImageTransform) -> Mapping[Change, Float[Tensor, "m 3 s s"]]:
    """Images that a batch's text is read with instead of its own."""
    pixels = torch.zeros(len(batch.images), transform.size, transform.size, 3, dtype=torch.uint8)
    images: dict[Change, Tensor] = {"zeroed": transform.normalise(pixels)}
    foreign = of_other_documents(batch)
    return images if foreign is None else {"shuffled": batch.images[foreign], **images}


def of_other_documents(batch: Batch) -> Int[Tensor, " m"] | None:
    """For each image of the batch one of another document, spread over the batch; None where there is no other.

    Two pairs of one page are one document: their uids agree up to "#".
    """
    rows = next(iter(batch.rows.values()), None)
    if rows is None:
        return None
    documents = [batch.doc_uid[row].partition("#")[0] for row in rows.img_row.tolist()]
    foreign = []
    for place, own in enumerate(documents):
        others = [index for index, document in enumerate(documents) if document != own]
        if not others:
            return None
        foreign.append(others[place % len(others)])
    return torch.tensor(foreign)
