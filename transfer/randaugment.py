"""RandAugment (Cubuk et al. 2020) as MAE fine-tunes: timm's `rand-mM-mstd0.5-inc1`, drawn from a generator.

timm's own draws from the interpreter's global generators, so a picture would depend on what was drawn before it and on
the number of threads. Here operations, their order and their ranges are timm's, whose functions change the pixels; the
draws are the caller's. "inc1": every operation is stronger at a larger magnitude.
"""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image
from timm.data.auto_augment import NAME_TO_OP

OPERATIONS = 2  # drawn for a picture, with replacement
PROBABILITY = 0.5  # that a drawn operation is applied
SPREAD = 0.5  # standard deviation of the magnitude
LARGEST = 10.0  # magnitude

# Share of the largest magnitude and a sign -> arguments of timm's operation of that name.
ARGUMENTS: Mapping[str, Callable[[float, int], tuple[float, ...]]] = {
    "AutoContrast": lambda share, sign: (),
    "Equalize": lambda share, sign: (),
    "Invert": lambda share, sign: (),
    "Rotate": lambda share, sign: (sign * share * 30.0,),  # degrees
    "PosterizeIncreasing": lambda share, sign: (max(1, 4 - int(share * 4)),),  # bits that stay; Pillow refuses timm's 0
    "SolarizeIncreasing": lambda share, sign: (256 - min(256, int(share * 256)),),  # threshold
    "SolarizeAdd": lambda share, sign: (min(128, int(share * 110)),),
    **dict.fromkeys(
        ("ColorIncreasing", "ContrastIncreasing", "BrightnessIncreasing", "SharpnessIncreasing"),
        lambda share, sign: (max(0.1, 1.0 + sign * share * 0.9),),  # 1 is the picture itself
    ),
    **dict.fromkeys(("ShearX", "ShearY"), lambda share, sign: (sign * share * 0.3,)),
    **dict.fromkeys(("TranslateXRel", "TranslateYRel"), lambda share, sign: (sign * share * 0.45,)),  # of the side
}
_NAMES = tuple(ARGUMENTS)


def rand_augment(
    image: Image.Image, magnitude: float, fill: tuple[float, float, float], rng: np.random.Generator
) -> Image.Image:
    """An RGB picture after two random operations of about that magnitude (0 to 10).

    fill: what is put where a picture was moved away, as a share of full brightness: the encoder's mean.
    """
    colour = tuple(min(255, round(255 * value)) for value in fill)
    for number in rng.integers(len(_NAMES), size=OPERATIONS):
        applied, sign = rng.random() < PROBABILITY, 1 if rng.random() < 0.5 else -1
        share = float(np.clip(rng.normal(magnitude, SPREAD), 0.0, LARGEST)) / LARGEST
        if applied:
            name = _NAMES[number]
            image = NAME_TO_OP[name](
                image, *ARGUMENTS[name](share, sign), fillcolor=colour, resample=Image.Resampling.BICUBIC
            )
    return image
