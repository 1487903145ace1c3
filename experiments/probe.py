"""Probes of a run in training: what the language model gains from the images, on batches no step trains on.

The LCL paper (4.2) reports that generation-only methods reach a text loss close to LCL's while their features collapse.
This number ("visual use", our choice) shows it: text loss with the images of other documents, and with black images,
minus the text loss with the true ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch

from data.batch import Batch
from experiments.fit import Precision, Probe
from objectives.base import Objective
from objectives.functional import Losses


def visual_use(objective: Objective, batches: Sequence[Batch], precision: Precision) -> Probe:
    """A probe for `fit`: the objective's watch values on fixed batches, and visual use where it predicts text.

    Values are means over the batches, in evaluation mode, under names that begin with "probe_".
    """

    @torch.no_grad()
    def run(step: int) -> dict[str, float]:
        objective.eval()
        device = next(objective.parameters()).device.type
        totals: dict[str, float] = {}
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            for batch in batches:
                moved = batch.to(device)
                seen: Losses = objective(moved)
                for name, value in seen.watch.items():
                    totals[f"probe_{name}"] = totals.get(f"probe_{name}", 0.0) + float(value)
                if "text_nll" in seen.watch:
                    true = float(seen.watch["text_nll"])
                    for name, change in CHANGES.items():
                        other = replace(moved, images=change(moved.images))
                        gain = float(objective(other).watch["text_nll"]) - true
                        totals[f"probe_visual_use_{name}"] = totals.get(f"probe_visual_use_{name}", 0.0) + gain
        return {name: value / len(batches) for name, value in totals.items()}

    return run


Change = Literal["shuffled", "zeroed"]

CHANGES: dict[Change, Callable[[torch.Tensor], torch.Tensor]] = {
    "shuffled": lambda images: images.roll(len(images) // 2, dims=0),  # half a batch away: another document's images
    "zeroed": torch.zeros_like,
}
