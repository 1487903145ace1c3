"""Downstream readers: the order, labels and captions of a split, and a stop at the first thing that is not whole."""

import io
import json
import tarfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image
from tar_helpers import write_shards

from data.errors import CorpusError
from data.loading.readable import training_pairs
from data.readers.downstream import COCO_TEST, blip, captioned, karpathy, nocaps, nocaps_file
from data.readers.imagenet import IMAGENET_VAL, imagenet
from data.readers.splits import Expected


def picture(colour: str = "red", form: str = "PNG", mode: str = "RGB", size: tuple[int, int] = (6, 4)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).convert(mode).save(buffer, form)
    return buffer.getvalue()


def put(path: Path, data: bytes | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture() if data is None else data)
    return path


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for name in ("n02", "n01"):
            put(tmp_path / split / name / "b.JPEG", picture("blue", "JPEG"))
            put(tmp_path / split / name / "a.png", picture("red" if name == "n01" else "lime"))
    return tmp_path


def coco(tmp_path: Path, **changes: object) -> Path:
    entries = [
        {
            "filepath": "val2014",
            "filename": "7.jpg",
            "split": "test",
            "sentences": [{"raw": " A cat.\n"}, {"raw": "Cat"}],
        },
        {"filepath": "val2014", "filename": "3.jpg", "split": "test", "sentences": [{"raw": "Dog"}]},
        {"filepath": "val2014", "filename": "9.jpg", "split": "restval", "sentences": [{"raw": "Bus"}]},
        {"filepath": "train2014", "filename": "1.jpg", "split": "train", "sentences": [{"raw": "Sea"}]},
    ]
    entries[0].update(changes)
    for entry in entries:
        if ".." not in str(entry["filename"]):
            put(tmp_path / "images" / str(entry["filepath"]) / str(entry["filename"]))
    (tmp_path / "coco.json").write_text(json.dumps({"dataset": "coco", "images": entries}))
    return tmp_path / "coco.json"


def test_classes_are_numbered_in_sorted_order_and_images_follow_their_names(classes):
    split = imagenet(classes, "val")
    assert split.item_ids == ("n01/a.png", "n01/b.JPEG", "n02/a.png", "n02/b.JPEG")
    assert split.labels == (0, 0, 1, 1)
    assert split.classes == ("n01", "n02")
    assert split.load(2).getpixel((0, 0)) == (0, 255, 0)


def test_digest_is_that_of_ids_labels_and_captions_and_not_of_the_place(classes, tmp_path_factory):
    before = imagenet(classes, "val").digest
    elsewhere = tmp_path_factory.mktemp("x") / "moved"
    classes.rename(elsewhere)
    assert imagenet(elsewhere, "val").digest == before
    put(elsewhere / "val" / "n01" / "c.png")
    assert imagenet(elsewhere, "val").digest != before


@pytest.mark.parametrize(
    "spoil, message",
    [
        (lambda root: put(root / "val" / "n03" / "a.png"), "2 classes.*3|3 classes.*2"),
        (lambda root: put(root / "val" / "loose.JPEG"), "outside the class folders"),
        (lambda root: put(root / "val" / "n01" / "notes.txt"), "not an image file"),
        (lambda root: [p.unlink() for p in (root / "val" / "n01").iterdir()], "holds no images"),
    ],
)
def test_imagenet_folder_that_is_not_as_published_is_refused(classes, spoil, message):
    spoil(classes)
    with pytest.raises(CorpusError, match=message):
        imagenet(classes, "val")


def test_odd_imagenet_files_load_as_rgb(classes):
    put(classes / "val" / "n01" / "cmyk.JPEG", picture(form="JPEG", mode="CMYK"))
    put(classes / "val" / "n01" / "d.JPEG", picture("blue", "PNG"))  # a PNG named .JPEG
    split = imagenet(classes, "val")
    assert {split.load(i).mode for i in range(len(split))} == {"RGB"}
    assert split.load(split.item_ids.index("n01/d.JPEG")).getpixel((0, 0)) == (0, 0, 255)


def test_karpathy_keeps_every_caption_raw_and_restval_joins_train(tmp_path):
    path = coco(tmp_path)
    test = karpathy(path, tmp_path / "images", "test")
    assert test.name == "coco/test"
    assert test.item_ids == ("val2014/7.jpg", "val2014/3.jpg")
    assert test.captions == ((" A cat.\n", "Cat"), ("Dog",))
    assert karpathy(path, tmp_path / "images", "train").item_ids == ("val2014/9.jpg", "train2014/1.jpg")


def test_flickr_file_has_no_filepath(tmp_path):
    put(tmp_path / "5.jpg")
    entry = {"filename": "5.jpg", "split": "test", "sentences": [{"raw": "A boat"}]}
    (tmp_path / "d.json").write_text(json.dumps({"dataset": "flickr30k", "images": [entry]}))
    split = karpathy(tmp_path / "d.json", tmp_path, "test")
    assert (split.name, split.item_ids) == ("flickr30k/test", ("5.jpg",))


def test_missing_image_is_named_when_the_split_is_opened(tmp_path):
    path = coco(tmp_path)
    (tmp_path / "images" / "val2014" / "3.jpg").unlink()
    with pytest.raises(CorpusError, match=r"1 of 2 images are missing.*val2014/3\.jpg"):
        karpathy(path, tmp_path / "images", "test")


@pytest.mark.parametrize("data", [b"<html>404</html>", picture(form="JPEG", size=(200, 200))[:-500]])
def test_unreadable_image_is_named_when_it_is_loaded(tmp_path, data):
    path = coco(tmp_path)
    put(tmp_path / "images" / "val2014" / "3.jpg", data)
    split = karpathy(path, tmp_path / "images", "test")
    split.load(0)
    with pytest.raises(CorpusError, match=r"image 1, val2014/3\.jpg.*decode_error"):
        split.load(1)


@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd", "a\\..\\b.jpg", "C:x.jpg", "x\0.jpg"])
def test_file_names_of_the_json_stay_inside_the_image_folder(tmp_path, name):
    put(tmp_path / "secret.jpg")
    entry = {"filename": name, "split": "test", "sentences": [{"raw": "A"}]}
    (tmp_path / "d.json").write_text(json.dumps({"images": [entry]}))
    with pytest.raises(CorpusError, match="does not stay inside"):
        karpathy(tmp_path / "d.json", tmp_path / "a" / "b", "test")


def test_image_folder_may_be_linked_together_by_its_owner(tmp_path):
    path = coco(tmp_path)
    (tmp_path / "images" / "val2014").rename(tmp_path / "disk2")
    (tmp_path / "images" / "val2014").symlink_to(tmp_path / "disk2")
    assert karpathy(path, tmp_path / "images", "test").load(0).size == (6, 4)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sentences": []}, r"val2014/7\.jpg has no caption"),
        ({"sentences": [{"raw": 3}]}, r"val2014/7\.jpg has no caption"),
        ({"sentences": [{"text": "A"}]}, "field 'raw' is missing"),
        ({"sentences": None}, "another structure"),
        ({"filename": "3.jpg"}, "more than once"),
    ],
)
def test_karpathy_file_of_another_schema_is_refused(tmp_path, changes, message):
    with pytest.raises(CorpusError, match=message):
        karpathy(coco(tmp_path, **changes), tmp_path / "images", "test")


def test_unknown_split_says_what_there_is(tmp_path):
    with pytest.raises(CorpusError, match="train, val, test.*'testing'"):
        karpathy(coco(tmp_path), tmp_path / "images", "testing")
    with pytest.raises(CorpusError, match="no images of split 'val'; it has restval 1, test 2, train 1"):
        karpathy(coco(tmp_path), tmp_path / "images", "val")


def test_counts_of_the_real_set_are_demanded_only_when_asked(tmp_path, classes):
    path = coco(tmp_path)
    exact = Expected(images=2, captions=3)
    assert len(karpathy(path, tmp_path / "images", "test", expect=exact)) == 2
    with pytest.raises(CorpusError, match="captions 3 instead of 4"):
        karpathy(path, tmp_path / "images", "test", expect=replace(exact, captions=4))
    with pytest.raises(CorpusError, match="images 2 instead of 5000; captions 3 instead of 25010"):
        karpathy(path, tmp_path / "images", "test", expect=COCO_TEST)
    with pytest.raises(CorpusError, match="images per class 2 instead of 50; first class n01 instead of n01440764"):
        imagenet(classes, "val", expect=IMAGENET_VAL)
    put(classes / "val" / "n01" / "more.png")
    with pytest.raises(CorpusError, match=r"images per class \[2, 3\] instead of 2"):
        imagenet(classes, "val", expect=Expected(images=5, per_class=2))


def test_nocaps_captions_join_their_image_by_id(tmp_path):
    put(tmp_path / "a.jpg")
    put(tmp_path / "b.jpg")
    content = {
        "images": [{"id": 8, "file_name": "b.jpg"}, {"id": 2, "file_name": "a.jpg"}],
        "annotations": [{"image_id": i, "caption": f"{i}-{k}"} for k in range(2) for i in (2, 8)],
    }
    (tmp_path / "n.json").write_text(json.dumps(content))
    split = nocaps(tmp_path / "n.json", tmp_path)
    assert split.item_ids == ("b.jpg", "a.jpg")
    assert split.captions == (("8-0", "8-1"), ("2-0", "2-1"))
    content["annotations"].append({"image_id": 99, "caption": "nobody"})
    (tmp_path / "n.json").write_text(json.dumps(content))
    with pytest.raises(CorpusError, match="names image 99"):
        nocaps(tmp_path / "n.json", tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"id": 8}, "2 images have the id 8, and would share captions"), ({"file_name": 5}, "file_name is 5")],
)
def test_images_of_nocaps_that_cannot_be_told_apart_or_found_are_refused(tmp_path, change, words):
    images = [{"id": 8, "file_name": "b.jpg"}, {"id": 2, "file_name": "a.jpg"} | change]
    captions = [{"image_id": i, "caption": "a"} for i in (8, 2)]
    (tmp_path / "n.json").write_text(json.dumps({"images": images, "annotations": captions}))
    with pytest.raises(CorpusError, match=rf"n\.json.*{words}"):
        nocaps(tmp_path / "n.json", tmp_path)


def test_splits_cross_to_loader_workers(tmp_path, classes):
    samples = [("0001", {"jpg": picture(), "txt": b"one"}), ("0002", {"jpg": picture("blue"), "txt": b"two"})]
    write_shards(samples, tmp_path / "tars")
    read = training_pairs(tmp_path / "tars", "cc3m/train", None, max_broken=0.0)
    for split in (imagenet(classes, "val"), read):
        with ProcessPoolExecutor(1, mp_context=get_context("fork")) as pool:
            assert pool.submit(split.load, 1).result().size == (6, 4)


def test_of_the_files_nocaps_offers_the_one_with_captions_is_taken(tmp_path):
    with pytest.raises(CorpusError, match=r"no nocaps_val\*\.json; put nocaps_val_4500_captions\.json there"):
        nocaps_file(tmp_path)
    images = {"images": [{"id": 0, "file_name": "a.jpg"}]}
    (tmp_path / "nocaps_val_image_info.json").write_text(json.dumps(images))
    (tmp_path / "._nocaps_val_4500_captions.json").write_bytes(b"\0\5\26\7")
    with pytest.raises(CorpusError, match=r"nocaps_val_image_info\.json, which lists images and no captions"):
        nocaps_file(tmp_path)
    captioned = images | {"annotations": [{"image_id": 0, "caption": "a cat"}]}
    path = tmp_path / "nocaps_val_4500_captions.json"
    path.write_text(json.dumps(captioned))
    assert nocaps_file(tmp_path) == path
    (tmp_path / "nocaps_val_old.json").write_text(json.dumps(captioned))
    with pytest.raises(
        CorpusError, match=r"2 files .*nocaps_val_4500_captions\.json, nocaps_val_old\.json\); keep one"
    ):
        nocaps_file(tmp_path)


# --- lists of BLIP and LAVIS


def blip_list(tmp_path: Path, place: str = "images", prefix: str = "val2014/") -> Path:
    entries = [
        {"image": f"{prefix}7.jpg", "caption": [" A cat.\n", "Cat"]},
        {"image": f"{prefix}3.jpg", "caption": ["Dog"]},
    ]
    for name in ("7.jpg", "3.jpg"):
        put(tmp_path / place / name)
    (tmp_path / "coco_karpathy_test.json").write_text(json.dumps(entries))
    return tmp_path / "coco_karpathy_test.json"


def test_a_blip_list_and_karpathys_give_the_same_split(tmp_path):
    coco(tmp_path / "karpathy").rename(tmp_path / "karpathy" / "dataset_coco.json")
    (tmp_path / "blip").mkdir()
    blip_list(tmp_path / "blip", "images/val2014")
    one, other = (captioned(tmp_path / name, "coco", "test") for name in ("karpathy", "blip"))
    assert (one.name, one.item_ids, one.captions) == (other.name, other.item_ids, other.captions)
    assert one.digest == other.digest
    assert one.load(0).getpixel((0, 0)) == other.load(0).getpixel((0, 0))


@pytest.mark.parametrize("place", ["images/val2014", "val2014", "images", "."])
def test_the_pictures_of_a_blip_list_are_found_with_and_without_their_folder(tmp_path, place):
    assert len(captioned_here(tmp_path, place)) == 2


def captioned_here(tmp_path: Path, place: str):
    blip_list(tmp_path, place)
    return captioned(tmp_path, "coco", "test")


def test_one_caption_an_entry_joins_by_image(tmp_path):
    entries = [{"image": "a.jpg", "caption": "one"}, {"image": "a.jpg", "caption": "two"}]
    put(tmp_path / "a.jpg")
    (tmp_path / "flickr30k_test.json").write_text(json.dumps(entries))
    assert captioned(tmp_path, "flickr30k", "test").captions == (("one", "two"),)


@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "[]",
        '[{"image": "a.jpg"}]',
        '[{"image": "a", "caption": {"en": "b"}}]',
        "[1]",
        '[{"image": 3, "caption": ["a"]}]',
        "[",
    ],
)
def test_a_list_of_another_kind_is_one_clear_message(tmp_path, content):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(CorpusError, match=r"x\.json"):
        blip(tmp_path / "x.json", tmp_path, "coco/test")


@pytest.mark.parametrize("name", ["n" * 300 + ".jpg", "\ud800.jpg"])
def test_what_no_file_can_be_called_is_a_missing_image(tmp_path, name):
    (tmp_path / "x.json").write_text(json.dumps([{"image": name, "caption": "a"}]))
    with pytest.raises(CorpusError, match="1 of 1 images are missing"):
        blip(tmp_path / "x.json", tmp_path, "coco/test")


def test_without_any_list_the_message_names_those_that_are_read(tmp_path):
    with pytest.raises(CorpusError, match=r"dataset_coco\.json, coco_karpathy_test\.json and coco_test\.json"):
        captioned(tmp_path, "coco", "test")


# --- ImageNet in tars and by its list


def imagenet_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_imagenet_tars_give_pictures_and_numbers(tmp_path):
    for shard, colour, number in ((0, "red", b"1"), (1, "blue", b"0\n")):
        members = {f"n{shard}.jpg": picture(colour), f"n{shard}.cls": number, f"n{shard}.json": b"{}"}
        imagenet_tar(tmp_path / "val" / f"imagenet1k-validation-{shard:02d}.tar", members)
    split = imagenet(tmp_path, "val", cache=tmp_path / "cache")
    assert split.item_ids == ("imagenet1k-validation-00/n0", "imagenet1k-validation-01/n1")
    assert (split.labels, split.classes) == ((1, 0), ("0", "1"))
    assert [split.load(at).getpixel((0, 0)) for at in range(2)] == [(255, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize(
    "members",
    [{"a.jpg": b"x"}, {"a.cls": b"1"}, {"a.jpg": b"x", "a.cls": b"cat"}, {"v1.a.jpg": b"x", "v1.a.cls": b"1"}],
)
def test_an_imagenet_tar_with_anything_less_is_refused(tmp_path, members):
    imagenet_tar(tmp_path / "val" / "0.tar", members)
    with pytest.raises(CorpusError, match=r"0\.tar"):
        imagenet(tmp_path, "val")


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("form", ["val.txt", "LOC_val_solution.csv"])
def test_a_flat_val_is_read_with_its_official_list(tmp_path, form, train):
    names = [f"ILSVRC2012_val_0000000{n}" for n in (1, 2, 3)]
    for name in names:
        put(tmp_path / "val" / f"{name}.JPEG")
    if train:
        for name in ("n01", "n02"):
            put(tmp_path / "train" / name / "a.JPEG")
    if form == "val.txt":
        lines = [f"{name}.JPEG {label}" for name, label in zip(names, (1, 0, 1), strict=True)]
    else:
        classes = ("n02", "n01", "n02")
        lines = ["ImageId,PredictionString", *(f"{n},{c} 1 2 3 4" for n, c in zip(names, classes, strict=True))]
    (tmp_path / form).write_text("\n".join(lines) + "\n")
    split = imagenet(tmp_path, "val")
    assert split.labels == (1, 0, 1) and len(split.classes) == 2
    assert split.item_ids == tuple(f"{name}.JPEG" for name in names)


@pytest.mark.parametrize("form", ["val.txt", "tar"])
@pytest.mark.parametrize("numbers", [(1, 2, 3), (0, 10**20)])
def test_numbers_that_no_class_has_are_refused(tmp_path, form, numbers):
    for name in ("n01", "n02", "n03") if numbers[0] else ():
        put(tmp_path / "train" / name / "a.JPEG")
    if form == "val.txt":
        for number in numbers:
            put(tmp_path / "val" / f"{number}.JPEG")
        (tmp_path / "val.txt").write_text("".join(f"{number}.JPEG {number}\n" for number in numbers))
    else:
        members = {f"{n}.{suffix}": data for n in numbers for suffix, data in (("jpg", b"x"), ("cls", b"%d" % n))}
        imagenet_tar(tmp_path / "val" / "0.tar", members)
    known = "has 3 classes, 0 to 2" if numbers[0] else "there are up to 1000000"
    with pytest.raises(CorpusError, match=rf"from {numbers[0]} to {numbers[-1]}, but .*{known}\. Numbers begin at 0"):
        imagenet(tmp_path, "val")


def test_kaggles_list_goes_with_a_train_in_tars(tmp_path):
    for name in "ab":
        put(tmp_path / "val" / f"{name}.JPEG")
    imagenet_tar(tmp_path / "train" / "0.tar", {"a.jpg": picture(), "a.cls": b"1", "b.jpg": picture(), "b.cls": b"0"})
    (tmp_path / "LOC_val_solution.csv").write_text("ImageId,PredictionString\na,n02 1 2 3 4\nb,n01 1 2 3 4\n")
    assert imagenet(tmp_path, "val").labels == (1, 0)


def test_a_flat_val_without_a_list_says_what_is_missing(tmp_path):
    put(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(CorpusError, match=r"val\.txt or LOC_val_solution\.csv"):
        imagenet(tmp_path, "val")


def test_a_sorted_train_goes_with_a_flat_val_and_with_tars(tmp_path):
    for name in ("n01", "n02"):
        put(tmp_path / "train" / name / "a.JPEG")
    put(tmp_path / "val" / "a.JPEG")
    (tmp_path / "val.txt").write_text("a.JPEG 1\n")
    assert imagenet(tmp_path, "train").classes == ("n01", "n02") and imagenet(tmp_path, "val").labels == (1,)
    (tmp_path / "val" / "a.JPEG").unlink()
    imagenet_tar(tmp_path / "val" / "0.tar", {"a.jpg": picture(), "a.cls": b"1"})
    assert imagenet(tmp_path, "train").labels == (0, 1) and imagenet(tmp_path, "val").labels == (1,)


def test_classes_known_by_number_alone_are_compared_by_their_count(tmp_path):
    imagenet_tar(tmp_path / "val" / "0.tar", {"a.jpg": picture(), "a.cls": b"1", "b.jpg": picture(), "b.cls": b"0"})
    expected = replace(IMAGENET_VAL, images=2, classes=2, per_class=1)
    assert len(imagenet(tmp_path, "val", expect=expected)) == 2
    with pytest.raises(CorpusError, match="classes 2 instead of 3"):
        imagenet(tmp_path, "val", expect=replace(expected, classes=3))
