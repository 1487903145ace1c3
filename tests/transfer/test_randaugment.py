"""RandAugment has timm's operations and ranges, and a picture is a function of its generator alone."""

import random

import numpy as np
import pytest
from PIL import Image
from timm.data import auto_augment
from timm.data.auto_augment import LEVEL_TO_ARG
from transfer_helpers import encoder, split, task

from data.seeds import generator
from transfer.pictures import PictureSplit, PictureStream
from transfer.randaugment import ARGUMENTS, rand_augment


def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8))


def test_operations_are_those_of_timm_s_increasing_set():
    assert set(ARGUMENTS) == set(auto_augment._RAND_INCREASING_TRANSFORMS)


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("level", [0.0, 3.3, 9.0, 10.0])
def test_arguments_are_timm_s_at_every_level_and_sign(monkeypatch, name, level):
    of = LEVEL_TO_ARG[name]
    for draw, sign in ((0.4, 1), (0.6, -1)):  # timm negates above one half
        monkeypatch.setattr(random, "random", lambda draw=draw: draw)
        expected = () if of is None else of(level, {})
        if name == "PosterizeIncreasing":
            expected = (max(1, *expected),)  # of no bits Pillow makes no picture
        assert ARGUMENTS[name](level / 10, sign) == pytest.approx(expected)


def test_a_picture_is_a_function_of_the_generator_and_changes_as_often_as_it_should():
    fill = (0.5, 0.4, 0.3)
    made = [np.asarray(rand_augment(picture(), 9.0, fill, generator("test", i))) for i in range(200)]
    random.seed(1)
    np.random.seed(1)  # the generators of others have no say
    again = [np.asarray(rand_augment(picture(), 9.0, fill, generator("test", i))) for i in range(200)]
    assert all(np.array_equal(a, b) for a, b in zip(made, again, strict=True))
    same = np.mean([np.array_equal(each, np.asarray(picture())) for each in made])
    assert 0.15 < same < 0.4  # two operations are left out in one case of four, and some change nothing
    assert all(each.shape == (24, 24, 3) and each.dtype == np.uint8 for each in made)


def test_where_a_picture_was_moved_away_is_the_encoder_s_mean():
    colours = set()
    for i in range(300):
        made = np.asarray(
            rand_augment(Image.new("RGB", (24, 24), "white"), 10.0, (0.2, 0.4, 0.6), generator("fill", i))
        )
        colours |= {tuple(map(int, colour)) for colour in made.reshape(-1, 3)}
    assert (51, 102, 153) in colours


def test_a_stream_augments_only_where_it_is_asked_to():
    def images(**changes):
        config = task("classify", batch=12, epochs=1.0, pictures="augmented", **changes).config
        return PictureStream(PictureSplit(split(), encoder()), config, 0).batch(0).images

    assert not images(rand_augment=9.0).equal(images()) and images(rand_augment=9.0).equal(images(rand_augment=9.0))
    with pytest.raises(ValueError, match="magnitude from 0 to 10, got 11"):
        images(rand_augment=11.0)
