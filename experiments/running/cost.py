"""What a step costs, counted while it runs: floating-point operations, passes and tokens through the language model.

Counted by torch's FlopCounterMode (multiply-add = 2) over forward and backward of the first batches of the run itself,
so the figure follows the code; the closed form of the same is experiments/planning/flops.py. Passes are calls of the
language model for one batch: the paper's footnote to Tables 1 and 2.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from data.seeds import stable_seed
from experiments.running.distributed.agree import everyone
from objectives.functional import total

STEPS = 3  # batches counted; documents differ in length, so one would be too few


@dataclass(frozen=True)
class Cost:
    """Training cost per image, and language-model passes per sample."""

    flops_per_image: float
    lm_passes: int
    lm_tokens_per_image: float  # positions through the language model in all passes, padding included


def measure(module: nn.Module, batches: Iterable[Any], seed: int) -> Cost:
    """Cost of a training step of `module`, averaged over the first batches; parameters and gradients stay as they were.

    batches: of this rank; what all ranks compute for theirs is added up. Every rank must call it with equally many.
    Raises ValueError where two batches need different numbers of language-model passes.
    """
    language = getattr(module, "language", None)
    calls: list[int] = []  # positions of each
    hook = None
    if isinstance(language, nn.Module):
        hook = language.register_forward_hook(lambda _, given, __: calls.append(given[0].shape[:2].numel()))
    flops, images, tokens, passes = 0, 0, 0, set()
    try:
        for step, batch in zip(range(STEPS), batches, strict=False):
            torch.manual_seed(stable_seed(seed, "cost", step))
            calls.clear()
            with FlopCounterMode(display=False) as counter:
                total(module(batch)).backward()
            flops += counter.get_total_flops()
            images += len(batch.images)
            tokens += sum(calls)
            passes.add(len(calls))
    finally:
        if hook is not None:
            hook.remove()
        module.zero_grad(set_to_none=True)
    if len(passes) != 1:
        raise ValueError(f"{type(module).__name__} used {sorted(passes)} language-model passes for different batches")
    flops, images, tokens = map(sum, zip(*everyone([flops, images, tokens], _device(module)), strict=True))
    return Cost(flops / max(1, images), passes.pop(), tokens / max(1, images))


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
