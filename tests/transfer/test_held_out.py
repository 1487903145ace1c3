"""Training images that no head trains on: a function of the set alone, no item in both parts, none lost."""

from dataclasses import replace

import pytest
from transfer_helpers import split

from transfer.classify import Classify
from transfer.held_out import parts


def test_each_item_is_in_one_part_with_its_picture_label_and_captions():
    whole = split(20)
    rest, held = parts(whole, 0.3)
    assert (len(rest), len(held)) == (14, 6)
    assert sorted(rest.item_ids + held.item_ids) == list(whole.item_ids)
    for part in (rest, held):
        assert list(part.item_ids) == sorted(part.item_ids)  # in the order of the split
        for index, item in enumerate(part.item_ids):
            place = whole.item_ids.index(item)
            assert (part.labels[index], part.captions[index]) == (whole.labels[place], whole.captions[place])
            assert part.load(index).tobytes() == whole.load(place).tobytes()


def test_what_is_held_out_depends_on_the_set_alone():
    assert [part.item_ids for part in parts(split(20), 0.3)] == [part.item_ids for part in parts(split(20), 0.3)]
    other = replace(split(20), digest="another set")
    assert parts(other, 0.3)[1].item_ids != parts(split(20), 0.3)[1].item_ids
    digests = {part.digest for share in (0.3, 0.5) for part in parts(split(20), share)}
    assert len(digests | {split(20).digest}) == 5  # features are kept under them


def test_a_share_that_leaves_nothing_is_refused():
    with pytest.raises(ValueError, match="held_out=0.01 of the 20 images of 'toy/train' leaves 20 to train on and 0"):
        parts(split(20), 0.01)
    with pytest.raises(ValueError, match=r"held_out is a share of the training images in \[0, 1\), got 1.0"):
        Classify.Config(held_out=1.0)
