"""Probes of a run in training, on documents no step trains on: what an objective watches, what the language model gains
from the images, how hard each term pulls at the encoder, and a warning where the encoder has collapsed.

The LCL paper (4.2) reports that generation-only methods reach a text loss close to LCL's while their features collapse.
This number ("visual use", our choice) shows it: text loss with the images of other documents, and with black images,
minus the text loss with the true ones.

Shape letters: m images, p patches, v vision width, s image side.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from data.batch import Batch
from data.images import ImageTransform
from experiments.running.fit import Precision, Probe
from objectives.base import Objective
from results.alarms import collapsed, crossed

logger = logging.getLogger(__name__)

Change = Literal["shuffled", "zeroed"]


IN_A_ROW = 3  # probes with collapsed features before it is said in the log


def visual_use(
    objective: Objective,
    batch: Batch,
    transform: ImageTransform,
    precision: Precision,
    alarm: Callable[[str], None],
) -> Probe:
    """A probe for `fit`: the objective's watch values on a fixed batch, visual use where it predicts text, and the
    gradient of each term's mean at the patch tokens (its norm).

    Values are those of evaluation mode, under names that begin with "probe_". A batch of one document has no visual
    use "shuffled". Three probes in a row with collapsed features are a warning in the run's log.
    alarm: told after every probe which declared alarms (results/alarms.py) it sets off, "" for none.
    """
    others = changed(batch, transform)
    largest = min(len(batch.images), objective.vision.width)
    in_a_row = 0

    @torch.no_grad()
    def run(step: int) -> dict[str, float]:
        nonlocal in_a_row
        objective.eval()
        device = next(objective.parameters()).device.type
        with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
            seen, pulls = _observe(objective, batch.to(device))
            found = {f"probe_{name}": float(value) for name, value in seen.items()}
            found |= {f"probe_grad_{name}": pull for name, pull in pulls.items()}
            if "text_nll" in seen:
                for name, images in others.items():
                    other = objective(replace(batch, images=images).to(device)).watch["text_nll"]
                    found[f"probe_visual_use_{name}"] = float(other) - float(seen["text_nll"])
        alarm("; ".join(crossed(found, largest)))
        in_a_row = in_a_row + 1 if collapsed(found, largest) else 0
        if in_a_row == IN_A_ROW:
            logger.warning(
                "the encoder has collapsed: at step %d, std ratio %.3f and effective rank %.1f of %d, and at the %d "
                "probes before; its transfer will be near chance",
                step, found["probe_feature_std_ratio"], found["probe_rankme"], largest, IN_A_ROW - 1,
            )  # fmt: skip
        return found

    return run


@torch.enable_grad()
def _observe(objective: Objective, batch: Batch) -> tuple[Mapping[str, Tensor], Mapping[str, float]]:
    """Watch values, and for each term the norm of its mean's gradient at the patch tokens."""
    taps: list[Float[Tensor, "m p v"]] = []
    hook = objective.vision.register_forward_hook(lambda module, inputs, output: taps.append(output))
    try:
        losses = objective(batch)
    finally:
        hook.remove()
    pulls = {}
    for name, term in losses.terms.items():
        grads = torch.autograd.grad(
            term.sum / term.count.clamp(min=1), taps, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        pulls[name] = float(torch.stack([grad.float().norm() for grad in grads]).norm())
    return losses.watch, pulls


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
