"""Tower: what a vision encoder must show, whoever wrote it, so that it can be transferred frozen or trained in full.

Source: LCL paper 4.1 and A.2 (drop-path 0.2 in full captioning); layer-wise decay as in facebookresearch/mae.

Shape letters: m images, s image side, t tokens, d width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from jaxtyping import Float
from timm.layers import drop_path
from torch import Tensor, nn


class Tower(nn.Module, ABC):
    """A vision encoder whose tokens come after its final norm: prefix tokens (class, registers) first, then patches."""

    width: int  # channels of a token
    image_size: int  # side of the images it reads, in pixels
    num_prefix_tokens: int
    num_patches: int

    @abstractmethod
    def tokens(self, images: Float[Tensor, "m 3 s s"]) -> Float[Tensor, "m t d"]:
        """Prefix and patch tokens after the final norm. Raises ValueError for images of another side."""

    @property
    @abstractmethod
    def blocks(self) -> Sequence[nn.Module]:
        """The blocks, from the image to the tokens."""

    @property
    @abstractmethod
    def last(self) -> Sequence[nn.Module]:
        """What comes after the blocks: the final norm."""

    @abstractmethod
    def branches(self, block: nn.Module) -> Sequence[nn.Module]:
        """Modules of a block whose outputs are added to its residual stream, which drop-path leaves out at times."""


class BeforeLast(Tower):
    """An encoder whose tokens are those that its last block would read, without the final norm (LLaVA's layer -2)."""

    def __init__(self, tower: Tower) -> None:
        """Raises ValueError for an encoder of one block."""
        super().__init__()
        if len(tower.blocks) < 2:
            raise ValueError("this encoder has one block; the block before the last needs two")
        self.tower = tower
        self.width, self.image_size = tower.width, tower.image_size
        self.num_prefix_tokens, self.num_patches = tower.num_prefix_tokens, tower.num_patches

    def tokens(self, images: Float[Tensor, "m 3 s s"]) -> Float[Tensor, "m t d"]:
        """Prefix and patch tokens after the block before the last."""
        seen: list[Any] = []
        hook = self.tower.blocks[-1].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        try:
            self.tower.tokens(images)
        finally:
            hook.remove()
        found: Tensor = seen[0]
        return found

    @property
    def blocks(self) -> Sequence[nn.Module]:
        """Those that the tokens come from."""
        return self.tower.blocks[:-1]

    @property
    def last(self) -> Sequence[nn.Module]:
        """Nothing comes after them."""
        return ()

    def branches(self, block: nn.Module) -> Sequence[nn.Module]:
        """As in the whole encoder."""
        return self.tower.branches(block)


def check_side(tower: Tower, images: Tensor) -> None:
    """Raises ValueError where images have another side than the encoder reads."""
    if images.shape[-1] != tower.image_size or images.shape[-2] != tower.image_size:
        raise ValueError(
            f"this encoder reads {tower.image_size}x{tower.image_size} images, got {tuple(images.shape[-2:])}; "
            "resize them in the transform"
        )


def layer_scales(tower: Tower, decay: float) -> dict[int, float]:
    """Factor on the learning rate of every parameter, by its id: decay ** (layers above it).

    What comes after the blocks counts 0, the last block 1, what comes before the first block their number + 1.
    """
    depth = len(tower.blocks)
    scales = {id(parameter): decay ** (depth + 1) for parameter in tower.parameters()}
    for number, block in enumerate(tower.blocks):
        scales |= {id(parameter): decay ** (depth - number) for parameter in block.parameters()}
    return scales | {id(parameter): 1.0 for module in tower.last for parameter in module.parameters()}


def add_drop_path(tower: Tower, rate: float) -> None:
    """In training mode each image leaves out a block's branches at random: rarely in the first block, at `rate` last.

    Random draws come from torch's global generator.
    """
    depth = len(tower.blocks)
    for number, block in enumerate(tower.blocks):
        share = rate * number / max(1, depth - 1)
        if share > 0:
            for branch in tower.branches(block):
                branch.register_forward_hook(_dropping(tower, share))


def _dropping(tower: Tower, share: float) -> Callable[[nn.Module, Any, Any], Any]:
    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        if isinstance(output, tuple):  # transformers' attention gives its weights as well
            return drop_path(output[0], share, tower.training), *output[1:]
        return drop_path(output, share, tower.training)

    return hook
