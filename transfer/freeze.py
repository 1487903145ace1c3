"""The only place that decides which parameters train, and how: those outside a frozen encoder, or all of them.

Source: LCL paper 4.1 and A.2 (which parts train; learning rates of parts with and without initialisation). Our
choice: what frozen means beyond that (no drop-path, no dropout, weights equal before and after) and, as in LLaVA and
facebookresearch/mae, which parameters weight decay leaves alone.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from torch import nn

from backbones.kinds import weights
from backbones.tower import add_drop_path, layer_scales
from transfer.base import TransferHead, VisionTuning
from transfer.encoder import fingerprint
from transfer.pictures import Tuned


class Rates(Protocol):
    """What grouping reads of the recipe of a head."""

    @property
    def lr(self) -> float:
        """Of parts without initialisation."""
        ...

    @property
    def lr_pretrained(self) -> float:
        """Of a head's parts that come with weights."""
        ...

    @property
    def weight_decay(self) -> float:
        """Of weights (backbones/kinds.py)."""
        ...


class FullRates(Rates, Protocol):
    """The same of a head and its encoder."""

    @property
    def vision(self) -> VisionTuning:
        """Of the encoder."""
        ...


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


def frozen_transfer(head: TransferHead, encoder: nn.Module, config: Rates) -> tuple[ParameterGroup, ...]:
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
    return _head_groups(head, config, {})


def full_transfer(tuned: Tuned, config: FullRates) -> tuple[ParameterGroup, ...]:
    """Let head and encoder train, the encoder with its own rates by layer; each parameter is in exactly one group."""
    tuned.requires_grad_(True)
    add_drop_path(tuned.vision, config.vision.drop_path)
    tuned.train()
    vision = {id(parameter) for parameter in tuned.vision.parameters()}
    scales = layer_scales(tuned.vision, config.vision.layer_decay)
    decayed = weights(tuned.vision)
    groups: dict[tuple[float, bool], dict[str, nn.Parameter]] = {}
    for name, parameter in tuned.named_parameters():
        if id(parameter) in vision:
            groups.setdefault((scales[id(parameter)], id(parameter) in decayed), {})[name] = parameter
    return (
        *_head_groups(tuned, config, vision),
        *(
            ParameterGroup(
                f"vision_{scale:.3g}_{'decay' if decays else 'no_decay'}",
                parameters,
                config.vision.lr * scale,
                config.vision.weight_decay if decays else 0.0,
            )
            for (scale, decays), parameters in groups.items()
        ),
    )


def _head_groups(head: TransferHead, config: Rates, without: Collection[int]) -> tuple[ParameterGroup, ...]:
    """New and pretrained parts of a head, apart by what weight decay shrinks; parameters with those ids left out."""
    warm = {id(parameter) for part in head.pretrained() for parameter in part.parameters()}
    decayed = weights(head)
    groups = []
    for part, lr in (("new", config.lr), ("pretrained", config.lr_pretrained)):
        for rule, weight_decay in (("decay", config.weight_decay), ("no_decay", 0.0)):
            parameters = {
                name: parameter
                for name, parameter in head.named_parameters()
                if id(parameter) not in without
                and (id(parameter) in warm) == (part == "pretrained")
                and (id(parameter) in decayed) == (rule == "decay")
            }
            if parameters:
                groups.append(ParameterGroup(f"{part}_{rule}", parameters, lr, weight_decay))
    return tuple(groups)
