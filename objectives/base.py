"""Objective: what a pre-training objective declares, and the few steps all of them share.

Source: LCL paper 3.3 (visual embeddings are inserted at their positions in the sequence). Our choice: a rank without
images encodes a dummy one, so that every rank enters every collective.

Shape letters: m images, p patches, k image slots, b rows, t tokens, d width, v vision width, s image
side.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, get_args, get_origin, get_type_hints

from jaxtyping import Float
from torch import Tensor, nn

from backbones.lm import LanguageModel
from backbones.special import Special
from backbones.vit import Edit, VisionEncoder
from data.batch import Batch, Layout, Rows, TokenType
from objectives.diagnostics import collapse, norm_ratio
from objectives.functional import Losses


class Objective(nn.Module, ABC):
    """A pre-training objective: owns its heads, borrows the backbones, turns a batch into losses.

    A subclass lives in `objectives/<name>.py` under `@register("<name>")`, nests its own frozen
    `Config(Objective.Config)`, and declares what it reads. The defaults of `Config` are the paper's; what a scale
    changes in them stands with that scale (experiments/configuration/recipe.py).
    """

    name: ClassVar[str]  # set by `register`
    reads: ClassVar[Literal["pairs", "documents", "none"]]
    layouts: ClassVar[tuple[Layout, ...]]
    needs_labels: ClassVar[bool] = False  # a control that learns from the corpus's labels
    lm_passes: ClassVar[int]  # forward passes through the language model for one batch, as the paper's footnote counts
    protocol: ClassVar[int] = 1  # bump when equal settings would train different weights: a changed default, new maths
    on_pairs: ClassVar[Mapping[str, Any]] = {}  # fields of Config that a corpus of pairs implies, where none is chosen

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """What can be chosen about the objective; a subclass adds its own fields, closed choices as Literal."""

        def __post_init__(self) -> None:
            """Raises ValueError where a field holds none of its choices. A subclass that checks more calls it too."""
            for name, hint in get_type_hints(type(self)).items():
                if get_origin(hint) is Literal and getattr(self, name) not in get_args(hint):
                    choices = ", ".join(map(str, get_args(hint)))
                    raise ValueError(f"{name} has no choice {getattr(self, name)!r}; choose one of {choices}")

        def at_least(self, least: int, *names: str) -> None:
            """Raises ValueError for the first of these fields that is below."""
            for name in names:
                if not getattr(self, name) >= least:
                    raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

        def some_weight(self) -> None:
            """Raises ValueError where a field named "..._weight" is negative, or all are 0: nothing would train."""
            names = [field.name for field in fields(self) if field.name.endswith("_weight")]
            self.at_least(0, *names)
            if not any(getattr(self, name) for name in names):
                raise ValueError(f"{', '.join(names)} are 0, so nothing would be trained; raise one of them")

    @classmethod
    def layouts_for(cls, config: Config) -> tuple[Layout, ...]:
        """What the loader must render under these options: the declared layouts, where the config does not choose."""
        return cls.layouts

    @classmethod
    def slots(cls, config: Config, patches: int) -> int:
        """Image slots of one span in the row: the encoder's patches, where the objective does not say otherwise."""
        return patches

    def __init__(self, config: Config, vision: VisionEncoder, language: LanguageModel, special: Special) -> None:
        super().__init__()
        self.config, self.vision, self.language, self.special = config, vision, language, special

    @property
    def blocks(self) -> list[nn.Module]:
        """The layers that hold most of the weights: what each rank may keep a part of (`distributed.strategy`).

        Every rank runs them whole, as often as every other and in the same order, also where it has nothing for them.
        """
        return [*self.vision.blocks, *self.language.blocks]

    def prepare(self, images: Iterable[Float[Tensor, "_ 3 s s"]]) -> None:
        """Called once before the first step with batches of training images; fit what must be fitted to them here."""

    @abstractmethod
    def forward(self, batch: Batch) -> Losses:
        """Losses of one batch, as sums and counts on this rank."""

    def after_step(self) -> None:
        """Called after every optimiser step; clamp the temperature here."""

    def encode(self, images: Float[Tensor, "m 3 s s"], edit: Edit | None = None) -> Float[Tensor, "m p d"]:
        """Patch tokens H; `edit` as in `VisionEncoder.tokens`.

        A rank without images sends one dummy through, unedited, and keeps none of it: an empty H that is still
        connected to every parameter of the encoder.
        """
        if len(images):
            return self.vision(images, edit)
        side = self.vision.size.image_size
        return self.vision(images.new_zeros(1, 3, side, side))[:0]

    def embed(self, rows: Rows, visual: Float[Tensor, "m k d"] | None = None) -> Float[Tensor, "b t d"]:
        """Token embeddings with the k-th image slot, in row-major order, holding the k-th row of all visual tokens.

        visual: None for layouts without slots. Raises ValueError where slots and visual tokens differ in number.
        """
        slots = rows.token_type == int(TokenType.IMG)
        x = self.language.embed(rows.input_ids)  # what it gives for a slot is replaced below
        tokens = x.new_zeros(0, x.shape[-1]) if visual is None else visual.flatten(0, 1)
        if int(slots.sum()) != len(tokens):
            given = "no images" if visual is None else f"{visual.shape[0]} images of {visual.shape[1]} tokens"
            raise ValueError(
                f"the rows hold {int(slots.sum())} image slots, the encoder gave {given}; "
                "the loader's slots must be the objective's slots(config, patches)"
            )
        where = slots.nonzero(as_tuple=True)
        return x.index_put(where, tokens.to(x.dtype))

    def diagnose(
        self,
        patches: Float[Tensor, "m p v"],
        rows: Rows | None = None,
        visual: Float[Tensor, "m k d"] | None = None,
    ) -> dict[str, Tensor]:
        """What to watch of the encoder's patch tokens and, where the language model reads images, of what it reads."""
        watch = collapse(patches)
        if rows is not None and visual is not None and len(visual):
            words = rows.input_ids[rows.token_type == int(TokenType.TEXT)]
            if len(words):
                watch["norm_ratio"] = norm_ratio(visual.flatten(0, 1), self.language.embed(words[None])[0])
        return watch

    @staticmethod
    def at_boi(hidden: Float[Tensor, "b t d"], rows: Rows) -> Float[Tensor, "m d"]:
        """The state at each image's `<BoI>`, in the order of the batch's images."""
        return hidden[rows.img_row, rows.img_boi]
