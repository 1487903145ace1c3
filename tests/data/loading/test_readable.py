"""Downloads as training sets: what is broken is counted and left out. Test sets: every picture or nothing."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tar_helpers import write_shards

from data.errors import CorpusError
from data.loading.readable import refuse_unreadable, training_classes, training_pairs
from data.readers.imagenet import imagenet
from data.readers.splits import make_split


def picture(number: int = 0, form: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def download(folder: Path) -> Path:
    """20 samples: one without a caption, one of white space, a web page, half a picture, and none at all."""
    samples = [(f"{i:04d}", {"jpg": picture(i), "txt": f"plant {i}".encode()}) for i in range(20)]
    samples[3][1]["txt"] = b""
    samples[8][1]["txt"] = b" \n"
    samples[5][1]["jpg"] = b"<!DOCTYPE html><html>410 Gone</html>"
    samples[9][1]["jpg"] = picture(9)[:700]
    samples[12] = ("0012", {"txt": b"nothing to see"})
    write_shards(samples, folder)
    return folder


def test_a_download_keeps_what_can_be_used_and_counts_the_rest(tmp_path: Path) -> None:
    split = training_pairs(download(tmp_path), "web", None, max_broken=0.5)
    assert [text for (text,) in split.captions or ()] == [f"plant {i}" for i in range(20) if i not in (3, 5, 8, 9, 12)]
    assert split.coverage == {"documents": 15, "skipped": 5, "empty_text": 2, "decode_error": 2, "missing_image": 1}
    for place, number in ((4, 6), (14, 19)):  # pictures stay with their captions behind a gap
        expected = Image.open(io.BytesIO(picture(number)))
        assert np.array_equal(np.asarray(split.load(place)), np.asarray(expected))


def test_too_broken_a_download_is_refused_with_causes_and_advice(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"5 of 20 documents are broken.*decode_error 2.*data\.max_broken"):
        training_pairs(download(tmp_path), "web", None, max_broken=0.2)
    with pytest.raises(CorpusError, match=r"no \.tar files"):
        training_pairs(tmp_path / "nowhere", "web", None, max_broken=0.2)


def test_the_caption_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    write_shards(
        [("1", {"jpg": picture(), "txt": b"alt", "json": b'{"top_caption": "made"}'}), ("2", {"jpg": picture(2)})],
        tmp_path,
    )
    split = training_pairs(tmp_path, "coco", "top_caption", max_broken=0.5)
    assert split.captions == (("made",),)
    assert split.digest != training_pairs(tmp_path, "coco", None, max_broken=0.5).digest


def test_what_was_found_is_remembered_until_the_files_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from data.loading import readable

    folder, cache = download(tmp_path / "tars"), tmp_path / "cache"
    first = training_pairs(folder, "web", None, max_broken=0.5, cache=cache)
    opened: list[str] = []
    monkeypatch.setattr(readable, "open_image", lambda ref, most: opened.append(ref.name))
    again = training_pairs(folder, "web", None, max_broken=0.5, cache=cache)
    assert not opened and (again.digest, again.coverage) == (first.digest, first.coverage)
    write_shards([("0001", {"jpg": picture(), "txt": b"one"})], folder)
    training_pairs(folder, "web", None, max_broken=0.5, cache=cache)
    assert opened


def classes(root: Path) -> Path:
    for split in ("train", "val"):
        for number in range(8):
            path = root / split / f"class{number % 2}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
    return root


def test_classes_lose_pictures_that_cannot_be_decoded_and_keep_labels_with_the_others(tmp_path: Path) -> None:
    root = classes(tmp_path)
    whole = training_classes(root, max_broken=0.0)
    assert whole.digest == imagenet(root, "train").digest  # nothing skipped, nothing renamed
    (root / "train" / "class0" / "2.jpg").write_bytes(b"<html>")
    split = training_classes(root, max_broken=0.5)
    assert split.item_ids == tuple(item for item in whole.item_ids if item != "class0/2.jpg")
    assert split.labels == (0, 0, 0, 1, 1, 1, 1) and split.coverage["decode_error"] == 1
    assert np.array_equal(np.asarray(split.load(1)), np.asarray(Image.open(io.BytesIO(picture(4)))))
    with pytest.raises(CorpusError, match="1 of 8 documents are broken"):
        training_classes(root, max_broken=0.1)


def test_a_test_set_is_whole_or_refused_and_a_restored_file_is_looked_at_again(tmp_path: Path) -> None:
    root, cache = classes(tmp_path), tmp_path / "cache"
    damaged = root / "val" / "class1" / "3.jpg"
    damaged.write_bytes(picture(3)[:800])
    split = imagenet(root, "val")
    for _ in range(2):
        with pytest.raises(CorpusError, match=r"1 of 8 images cannot be used.*class1/3\.jpg.*decode_error"):
            refuse_unreadable(split, cache)
    damaged.write_bytes(picture(3))
    refuse_unreadable(split, cache)


def test_captions_given_as_one_string_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="captions of a.jpg are one string"):
        make_split("x", ["a.jpg"], lambda i: Image.new("RGB", (2, 2)), captions=["a cat"])  # type: ignore[list-item]
