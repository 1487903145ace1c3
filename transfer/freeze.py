"""The only place that decides which parameters train, and how: frozen encoder, everything outside it is trained.

Source: LCL paper 4.1 and A.2 (which parts train; learning rates of parts with and without initialisation). Our
choice: what frozen means beyond that (no drop-path, no dropout, weights equal before and after) and, as in LLaVA and
facebookresearch/mae, which parameters weight decay leaves alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import nn

from transfer.base import TransferConfig, TransferHead
from transfer.encoder import fingerprint

# Weight decay shrinks these. Norms, biases, queries, layer scales and the logit scale are parameters of other kinds.
_DECAYED = (nn.Linear, nn.Embedding, nn.Conv2d)


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that share a peak learning rate and a weight decay."""

    name: str
    parameters: dict[str, nn.Parameter]
    lr: float
    weight_decay: float


def freeze(module: nn.Module) -> None:
    """No gradient, no drop-path, no dropout."""
    module.requires_grad_(False)
    module.eval()


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """Inside, nothing may alter the module. Raises RuntimeError at the end where its bytes differ."""
    before = fingerprint(module)
    yield
    after = fingerprint(module)
    if after != before:
        raise RuntimeError(
            f"a frozen encoder changed: {before[:12]} before, {after[:12]} after; a parameter or buffer of it was "
            "trained or a forward pass updated statistics"
        )


def frozen_transfer(head: TransferHead, encoder: nn.Module, config: TransferConfig) -> tuple[ParameterGroup, ...]:
    """Freeze the encoder and group the head's parameters for the optimiser, each in exactly one group.

    Raises ValueError where the head holds parameters of the encoder: with zero gradients weight decay would still move
    them.
    """
    freeze(encoder)
    held = {id(parameter) for parameter in encoder.parameters()}
    shared = [name for name, parameter in head.named_parameters() if id(parameter) in held]
    if shared:
        raise ValueError(f"the head holds {len(shared)} parameters of the frozen encoder, first {shared[0]!r}")
    head.requires_grad_(True)
    head.train()
    warm = {id(parameter) for part in head.pretrained() for parameter in part.parameters()}
    decayed = {id(module.weight) for module in head.modules() if isinstance(module, _DECAYED)}
    groups = []
    for part, lr in (("new", config.lr), ("pretrained", config.lr_pretrained)):
        for rule, weight_decay in (("decay", config.weight_decay), ("no_decay", 0.0)):
            parameters = {
                name: parameter
                for name, parameter in head.named_parameters()
                if (id(parameter) in warm) == (part == "pretrained") and (id(parameter) in decayed) == (rule == "decay")
            }
            if parameters:
                groups.append(ParameterGroup(f"{part}_{rule}", parameters, lr, weight_decay))
    return tuple(groups)
