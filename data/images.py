"""From image bytes to the batch tensor (values of mlfoundations/open_clip, src/open_clip/transform.py).

Opening refuses what would hide a broken corpus (truncated files, half-grey pictures) or exhaust memory (bombs); the
transform is OpenCLIP's: random resized crop of 0.9-1 of the area for training, shorter side plus centre crop else.
"""

import hashlib
import json
import math
import struct
import warnings
import zlib
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageFile, UnidentifiedImageError

from data.document import Cause, ImageRef
from data.errors import BadImage

if TYPE_CHECKING:
    from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

MAX_PIXELS = 25_000_000  # open_clip drops larger pictures too
HARD_MAX_PIXELS = 128_000_000
# Pillow raises at twice this number, so no reader in the process can decode more than the backstop.
Image.MAX_IMAGE_PIXELS = HARD_MAX_PIXELS // 2
# From half of that on it warns on stderr; `max_pixels` has refused such a picture, or somebody wants it.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

# Only pixel decoders: Pillow's other plug-ins include one that starts Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
# What Pillow's decoders raise on hostile or broken files; anything else is a programming error and passes through.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, OverflowError, LookupError, struct.error, zlib.error)
Resize = Literal["shortest", "squash"]
MIDDLE = 6  # short sides of a strip that its middle square is made of: bicubic reads two pixels beyond it
_SAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


JpegDecoding = Literal["full", "scaled"]  # every pixel; or, where that is enough, half, a quarter, an eighth of a side


def open_image(source: ImageRef | bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode one image to RGB. EXIF orientation is ignored (of a TIFF Pillow obeys it), of an animation the first frame
    is taken.

    Transparency is laid over white, as on a page. 16-bit grey is scaled to 8 bits; a TIFF of integers by the range of
    its values, as many programs write 8-bit values into wider ones. CMYK and palettes are converted. The header is
    checked before any pixel is decoded.

    Raises:
        BadImage: oversize (more than max_pixels by the header), decode_error (not an image, truncated, damaged),
            or whatever cause `source.read` names.
    """
    return _open(source, max_pixels, None)[0]


def open_scaled(source: ImageRef | bytes, at_least: int) -> tuple[Image.Image, int]:
    """As `open_image`, but a JPEG is decoded at the smallest of 1, 1/2, 1/4 and 1/8 whose sides are `at_least` pixels.

    The JPEG decoder then leaves out what it would only average away. Also gives by how much the sides were divided.
    How near it comes is in docs/data.md.
    """
    return _open(source, MAX_PIXELS, at_least)


def _open(source: ImageRef | bytes, max_pixels: int, at_least: int | None) -> tuple[Image.Image, int]:
    if not 0 < max_pixels <= HARD_MAX_PIXELS:
        raise ValueError(f"max_pixels is {max_pixels}; it must lie in 1..{HARD_MAX_PIXELS}, the hard limit")
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError("PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True, which turns broken files into half-grey images")
    name, data = (source.name, source.read()) if isinstance(source, ImageRef) else ("image", source)
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise BadImage(Cause.OVERSIZE, f"{name}: {width} x {height} pixels, the limit is {max_pixels}")
            if at_least is not None:
                image.draft(None, (at_least, at_least))  # does nothing where the format knows no scales
            divided = round(width / image.width)
            image.load()
            return _to_rgb(image), divided
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(Cause.OVERSIZE, f"{name}: {error}") from error
    except UnidentifiedImageError as error:
        start = data[:16]
        raise BadImage(Cause.DECODE_ERROR, f"{name}: not an image, {len(data)} bytes from {start!r}") from error
    except _DECODER_ERRORS as error:
        raise BadImage(Cause.DECODE_ERROR, f"{name}: {type(error).__name__}: {error}") from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # Pillow would clip 16-bit values at 255, which is a white picture
        values = np.clip(np.asarray(image).astype(np.int64), 0, None)
        bits = max(16, int(values.max(initial=0)).bit_length())
        if image.format == "TIFF" and values.max(initial=0) < 256:
            bits = 8
        return Image.fromarray((values >> (bits - 8)).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating point pixels have no defined range")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    if image.mode == "RGB" and image.format == "JPEG":
        return image  # loaded, so nothing of it is read later; converting would copy it
    return image.convert("RGB")


@dataclass(frozen=True)
class ImageTransform:
    """What happens between an RGB picture and the encoder. Part of the encoder: stored with every checkpoint."""

    size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    scale: tuple[float, float] = (0.9, 1.0)  # share of the area that a training crop keeps
    ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height of a training crop
    resize: Resize = "shortest"  # of a picture that is evaluated: cut after the shorter side, or squashed into a square

    def __post_init__(self) -> None:
        if self.size < 1 or self.interpolation not in _SAMPLING:
            raise ValueError(f"size {self.size} with {self.interpolation!r}; interpolations are {sorted(_SAMPLING)}")
        if self.resize not in get_args(Resize):
            raise ValueError(f"resize is one of {get_args(Resize)}, got {self.resize!r}")
        if not (0 < self.scale[0] <= self.scale[1] <= 1 and 0 < self.ratio[0] <= self.ratio[1]):
            raise ValueError(f"scale {self.scale} must be an interval in (0, 1] and ratio {self.ratio} a positive one")

    def with_scale(self, scale: tuple[float, float]) -> "ImageTransform":
        """The same, its training crops keeping such shares of the area."""
        return replace(self, scale=scale)

    def train(self, image: Image.Image, rng: np.random.Generator, divided: int = 1) -> UInt8[np.ndarray, "s s 3"]:
        """A random resized crop (no flip, no colour jitter), uint8. The generator alone decides.

        divided: as `open_scaled` gives it; the crop is the one of the whole picture.
        """
        top, left, height, width = self.crop_box(_rgb(image).height * divided, image.width * divided, rng)
        if divided > 1:
            box = (left / divided, top / divided, (left + width) / divided, (top + height) / divided)
            return np.asarray(image.resize((self.size, self.size), _SAMPLING[self.interpolation], box=box))
        crop = image.crop((left, top, left + width, top + height))
        return np.asarray(crop.resize((self.size, self.size), _SAMPLING[self.interpolation]))

    def crop_box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) of a training crop, by torchvision's RandomResizedCrop.get_params rule.

        Ten draws of area and log-ratio; when none fits, the largest centred box whose ratio is allowed.
        """
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        draws = rng.random(40).tolist()  # one call: the generator is slow on single numbers
        for at in range(0, 40, 4):
            area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * draws[at])
            ratio = math.exp(low + (high - low) * draws[at + 1])
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(draws[at + 2] * (height - h + 1)), int(draws[at + 3] * (width - w + 1)), h, w
        w, h = width, height
        if width / height < self.ratio[0]:
            h = round(width / self.ratio[0])
        elif width / height > self.ratio[1]:
            w = round(height * self.ratio[1])
        return (height - h) // 2, (width - w) // 2, h, w

    def eval(self, image: Image.Image) -> UInt8[np.ndarray, "s s 3"]:
        """Shorter side to `size` (antialiased), centre crop, uint8; or squashed. Equal to open_clip's evaluation."""
        width, height = _rgb(image).size
        if self.resize == "squash":
            return np.asarray(image.resize((self.size, self.size), _SAMPLING[self.interpolation]))
        short = min(width, height)
        if self.size * max(width, height) / short > MAX_PIXELS / self.size:
            image = _middle(image, MIDDLE * short)
            width, height = image.size
        if short != self.size:
            width, height = (self.size if side == short else int(self.size * side / short) for side in (width, height))
            image = image.resize((width, height), _SAMPLING[self.interpolation])
        left, top = round((width - self.size) / 2), round((height - self.size) / 2)
        return np.asarray(image.crop((left, top, left + self.size, top + self.size)))

    def normalise(self, images: "UInt8[Tensor, 'm s s 3']") -> "Float[Tensor, 'm 3 s s']":
        """The encoder's input from stacked `train` or `eval` crops: channels first, (x / 255 - mean) / std."""
        import torch  # only here: processes that read and crop (data/loading/reader.py) do without

        mean = torch.tensor(self.mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=images.device).view(3, 1, 1)
        # A tensor: by a number CUDA multiplies with its reciprocal, which rounds otherwise than the CPU's division.
        most = torch.tensor(255.0, device=images.device)
        out = torch.empty(len(images), 3, *images.shape[1:3], device=images.device)
        # Into channels-first memory at once: the same values as transposing at the end, at a third of the time.
        return out.copy_(images.permute(0, 3, 1, 2)).div_(most).sub_(mean).div_(std)

    def digest(self) -> str:
        """Equal for equal transforms; part of the key of every feature cache."""
        said = asdict(self)
        if self.resize == "shortest":
            del said["resize"]  # features that were cached before there was a choice stay good
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


class Centred(ImageTransform):
    """The same encoder input for a loader that feeds a probe: training crops are the evaluation's, without chance."""

    def train(self, image: Image.Image, rng: np.random.Generator, divided: int = 1) -> UInt8[np.ndarray, "s s 3"]:
        """The evaluation's crop; nothing is drawn."""
        return self.eval(image)


def _middle(image: Image.Image, most: int) -> Image.Image:
    """The middle of a strip: what its crop is made of. As a whole it would take gigabytes once its short side fits."""
    # Of an odd side an odd number, or the middle would move by half a pixel.
    width, height = (side if side <= most else most + (side - most) % 2 for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode != "RGB":  # a palette resized before conversion silently uses nearest neighbour
        raise ValueError(f"the transform takes RGB images, got mode {image.mode!r}; open files with open_image")
    return image
