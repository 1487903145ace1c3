"""Image opening refuses what would hide a broken corpus; transforms equal OpenCLIP's."""

import io
import struct
import zlib

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image, ImageFile
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.functional import resized_crop

from data.document import Cause, ImageRef
from data.errors import BadImage
from data.images import CLIP_MEAN, CLIP_STD, HARD_MAX_PIXELS, Centred, ImageTransform, open_image, open_scaled


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, form: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A few bytes that claim to be a picture of that size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    body = chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + body


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF"])
def test_every_common_format_opens_as_rgb_of_the_same_size(form):
    image = open_image(encoded(picture(20, 10), form))
    assert (image.mode, image.size) == ("RGB", (20, 10))


def test_a_lossless_image_comes_back_exactly():
    original = picture(7, 5)
    assert np.array_equal(np.asarray(open_image(encoded(original, "PNG"))), np.asarray(original))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "1", "CMYK"])
def test_other_modes_are_converted(mode):
    form = "JPEG" if mode == "CMYK" else "PNG"
    assert open_image(encoded(picture(8, 8).convert(mode), form)).mode == "RGB"


def test_sixteen_bit_grey_is_scaled_not_clipped_to_white():
    grey = np.array([[0, 0x4000], [0x8000, 0xFFFF]], dtype=np.uint16)
    opened = np.asarray(open_image(encoded(Image.fromarray(grey), "PNG")))
    assert opened[..., 0].tolist() == [[0, 0x40], [0x80, 0xFF]]


@pytest.mark.parametrize(
    ("values", "form", "expected"),
    [
        (np.array([[0, 255]], np.int32), "TIFF", [0, 255]),  # 8-bit values in a wider file
        (np.array([[0, 255]], np.uint16), "TIFF", [0, 255]),
        (np.array([[0, 0x8000]], np.uint16), "TIFF", [0, 0x80]),
        (np.array([[256, 0xFFFF]], np.int32), "TIFF", [1, 255]),
        (np.array([[0, 2**30]], np.int32), "TIFF", [0, 128]),
        (np.array([[-5, 200]], np.int32), "TIFF", [0, 200]),
        (np.array([[0, 255]], np.uint16), "PNG", [0, 0]),  # 16 bits by definition: it is a black picture
    ],
)
def test_integers_are_scaled_by_their_range(values, form, expected):
    assert np.asarray(open_image(encoded(Image.fromarray(values), form)))[0, :, 0].tolist() == expected


def see_through(mode: str) -> bytes:
    """A black square on nothing, transparent in the way of that mode."""
    drawing = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    drawing.paste((0, 0, 0, 255), (0, 0, 2, 4))
    if mode == "P":
        palette = Image.new("P", (4, 4), 0)
        palette.putpalette([0, 0, 0, 0, 0, 0])
        palette.paste(1, (0, 0, 2, 4))
        return encoded(palette, "PNG", transparency=0)
    if mode == "L":
        grey = Image.new("L", (4, 4), 9)
        grey.paste(0, (0, 0, 2, 4))
        return encoded(grey, "PNG", transparency=9)
    return encoded(drawing.convert(mode), "PNG")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L"])
def test_transparency_is_laid_over_white(mode):
    pixels = np.asarray(open_image(see_through(mode)))[..., 0]
    assert (pixels[:, :2] == 0).all() and (pixels[:, 2:] == 255).all()


def test_half_transparent_pixels_mix_with_white_and_opaque_ones_stay():
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 102))
    assert np.asarray(open_image(encoded(image, "WEBP", lossless=True)))[0, :, 0].tolist() == [153, 0]


def test_exif_orientation_is_ignored():
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert open_image(encoded(picture(20, 10), "JPEG", exif=exif)).size == (20, 10)


def test_the_orientation_of_a_tiff_is_obeyed_as_pillow_does():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(encoded(picture(40, 20), "TIFF", exif=exif)).size == (20, 40)


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert open_image(data).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!DOCTYPE html><html>404 not found</html>",
        encoded(picture(64, 64), "JPEG")[:-600],
        encoded(picture(64, 64), "PNG")[:600],
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
    ids=["empty", "html", "cut jpeg", "cut png", "postscript"],
)
def test_what_is_no_whole_image_is_a_decode_error(data):
    with pytest.raises(BadImage) as caught:
        open_image(ImageRef(lambda: data, "a.jpg"))
    assert caught.value.cause is Cause.DECODE_ERROR
    assert caught.value.message.startswith("a.jpg")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [5001, 9000, 30_000])
def test_a_bomb_is_refused_by_its_header(side):
    with pytest.raises(BadImage) as caught:
        open_image(png_header(side, side))
    assert caught.value.cause is Cause.OVERSIZE


def test_the_header_limit_is_inclusive_and_can_be_lowered():
    data = encoded(picture(10, 10), "PNG")
    assert open_image(data, max_pixels=100).size == (10, 10)
    with pytest.raises(BadImage, match="10 x 10 pixels, the limit is 99"):
        open_image(data, max_pixels=99)


def test_the_hard_limit_stays_finite():
    assert Image.MAX_IMAGE_PIXELS * 2 == HARD_MAX_PIXELS  # Pillow raises at twice its limit
    with pytest.raises(ValueError, match="hard limit"):
        open_image(b"", max_pixels=HARD_MAX_PIXELS + 1)


def test_lenient_loading_elsewhere_in_the_process_is_noticed(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ValueError, match="LOAD_TRUNCATED_IMAGES"):
        open_image(encoded(picture(8, 8), "JPEG"))


@pytest.mark.parametrize(("width", "height"), [(32, 32), (97, 31), (40, 64), (333, 500), (224, 300), (10, 7)])
@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("resize", ["shortest", "squash"])
def test_eval_transform_equals_open_clip(width, height, size, resize):
    image = picture(width, height)
    reference = open_clip.image_transform(
        size, is_train=False, mean=CLIP_MEAN, std=CLIP_STD, resize_mode=resize, interpolation="bicubic"
    )(image)
    transform = ImageTransform(size=size, resize=resize)
    ours = transform.normalise(torch.from_numpy(transform.eval(image).copy())[None])[0]
    assert ours.shape == (3, size, size)
    torch.testing.assert_close(ours, reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(60_000, 2), (60_001, 1), (2, 60_000)])
def test_the_middle_of_a_strip_is_taken_before_it_is_enlarged(shape, monkeypatch):
    strip, transform = Image.effect_noise(shape, 90).convert("RGB"), ImageTransform(size=16)
    whole = transform.eval(strip)
    monkeypatch.setattr("data.images.MAX_PIXELS", 10_000)
    cut = transform.eval(strip)
    assert np.array_equal(cut, whole)


@pytest.mark.parametrize("shape", [(10_000_000, 1), (1, 10_000_000)])
def test_a_strip_of_ten_million_pixels_is_a_picture_too(shape):
    line = open_image(encoded(Image.new("RGB", shape, "red"), "PNG"))
    assert (Centred(size=224).train(line, np.random.default_rng(0)) == (255, 0, 0)).all()


@pytest.mark.parametrize(("width", "height"), [(32, 32), (100, 60), (300, 40)])
def test_train_crop_has_torchvisions_pixels_and_allowed_shapes(width, height):
    image, transform = picture(width, height), ImageTransform(size=32)
    for seed in range(50):
        top, left, h, w = transform.crop_box(height, width, np.random.default_rng(seed))
        assert 0 <= top <= height - h and 0 <= left <= width - w
        crop = transform.train(image, np.random.default_rng(seed))
        reference = resized_crop(image, top, left, h, w, [32, 32], InterpolationMode.BICUBIC)
        assert crop.dtype == np.uint8 and np.array_equal(crop, np.asarray(reference))


def test_train_crop_boxes_follow_torchvisions_distribution():
    """Height, width and position of 4000 boxes; 5 standard errors of the difference of two means."""
    transform, count = ImageTransform(size=32), 4000
    image = torch.zeros(3, 64, 80)
    torch.manual_seed(0)
    reference = [RandomResizedCrop.get_params(image, [0.9, 1.0], [3 / 4, 4 / 3]) for _ in range(count)]
    rng = np.random.default_rng(0)
    ours = [transform.crop_box(64, 80, rng) for _ in range(count)]
    theirs, mine = np.array(reference, float), np.array(ours, float)
    tolerance = 5 * np.sqrt((theirs.var(0) + mine.var(0)) / count)
    assert (np.abs(theirs.mean(0) - mine.mean(0)) <= tolerance).all()
    areas = mine[:, 2] * mine[:, 3] / (64 * 80)
    assert areas.min() > 0.88 and areas.max() <= 1.0


def test_train_crop_depends_on_the_generator_alone():
    image, transform = picture(90, 80), ImageTransform(size=16)
    first, again, other = (transform.train(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_transforms_refuse_palettes_and_digest_every_field():
    with pytest.raises(ValueError, match="mode 'P'"):
        ImageTransform().eval(picture(8, 8).convert("P"))
    variants = [
        ImageTransform(),
        ImageTransform(size=32),
        ImageTransform(scale=(0.5, 1.0)),
        ImageTransform(mean=(0,) * 3),
    ]
    assert len({variant.digest() for variant in variants}) == len(variants)
    assert ImageTransform().digest() == ImageTransform(size=224).digest()


# -- JPEGs at a fraction of their size


def photograph(width: int, height: int) -> bytes:
    """A JPEG with detail at all scales, as photographs have it."""
    rng = np.random.default_rng(5)
    pixels = np.zeros((height, width, 3))
    for cell in (4, 16, 64):
        coarse = Image.fromarray(rng.integers(0, 256, (height // cell + 1, width // cell + 1, 3), dtype=np.uint8))
        pixels += cell**0.5 * np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), float)
    return encoded(Image.fromarray((pixels / pixels.max() * 255).astype(np.uint8)), "JPEG", quality=90)


@pytest.mark.parametrize(
    ("size", "divided", "decoded"),
    [
        ((512, 400), 1, (512, 400)),
        ((512, 448), 2, (256, 224)),
        ((900, 1801), 4, (225, 451)),
        ((1999, 1998), 8, (250, 250)),
    ],
)
def test_a_jpeg_is_decoded_at_the_smallest_scale_that_is_large_enough(size, divided, decoded):
    image, by = open_scaled(photograph(*size), 224)
    assert (image.size, by, image.mode) == (decoded, divided, "RGB")


def test_what_has_no_scales_is_decoded_whole():
    for data in (encoded(picture(900, 900), "PNG"), photograph(300, 300)):
        image, by = open_scaled(data, 224)
        assert by == 1 and np.array_equal(np.asarray(image), np.asarray(open_image(data)))


@pytest.mark.parametrize("size", [(512, 512), (801, 601)])
def test_crops_of_scaled_jpegs_are_near_those_of_whole_ones(size):
    data, transform = photograph(*size), ImageTransform(224)
    whole, (scaled, divided) = open_image(data), open_scaled(data, 224)
    assert divided > 1
    for seed in range(5):
        exact = transform.train(whole, np.random.default_rng(seed)).astype(float)
        near = transform.train(scaled, np.random.default_rng(seed), divided).astype(float)
        other = transform.train(scaled, np.random.default_rng(seed + 9), divided).astype(float)
        assert np.abs(near - exact).mean() < 3 < np.abs(other - exact).mean()


def test_scaled_decoding_refuses_what_whole_decoding_refuses():
    data = photograph(800, 800)
    for broken in (data[: len(data) // 2], b"<html>", b""):
        with pytest.raises(BadImage) as caught:
            open_scaled(broken, 100)
        assert caught.value.cause is Cause.DECODE_ERROR
    with pytest.raises(BadImage, match="5001 x 5001"):
        open_scaled(png_header(5001, 5001), 8)


def test_a_centred_crop_of_a_scaled_jpeg_draws_nothing():
    data, transform = photograph(600, 500), Centred(224)
    scaled, divided = open_scaled(data, 224)
    near = transform.train(scaled, np.random.default_rng(0), divided).astype(float)
    assert np.abs(near - transform.eval(open_image(data)).astype(float)).mean() < 3
