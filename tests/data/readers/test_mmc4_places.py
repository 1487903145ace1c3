"""MMC4 in the containers people have it in: images in tars, and documents in tars with their images inside."""

import base64
import io
import json
import operator
import os
import tarfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from PIL import Image

from data.corpora import detect, open_corpus
from data.document import Bad, Cause
from data.errors import BadImage, CorpusError
from data.images import open_image
from data.readers import mmc4_tars


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def entry(name: str, **extra) -> dict:
    return {
        "image_name": name,
        "raw_url": f"http://a.invalid/{name}",
        "matched_text_index": 0,
        "matched_sim": 0.3,
    } | extra


def page(names: list[str], **extra) -> dict:
    return {
        "text_list": ["Dig a hole."],
        "image_info": [entry(name) for name in names],
        "similarity_matrix": None,
    } | extra


def documents(folder: Path, pages: list[dict]) -> None:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "docs_shard_0_v2.jsonl").write_text("".join(json.dumps(each) + "\n" for each in pages))


def inline(colour: str | None, name: str = "a.jpg", **extra) -> dict:
    data = {} if colour is None else {"image_base64": base64.b64encode(png(colour)).decode()}
    return entry(name, **data, **extra)


# --- images in tars


@pytest.mark.parametrize("place", ["images/0.tar", "images/part/0.tar"])
def test_images_in_tars_are_found_by_name(tmp_path, place):
    documents(tmp_path, [page(["0a.jpg", "0b.PNG", "gone.jpg"])])
    tar(tmp_path / place, {"0/0b.PNG": png("blue"), "0/0a.jpg": png("red"), "note.txt": b"-"})
    corpus = open_corpus(tmp_path, cache=tmp_path / "cache")
    assert corpus.layout.name == "tars, by name" and corpus.layout.hit_rate == pytest.approx(2 / 3)
    red, blue, gone = corpus[0].images
    assert [open_image(image).getpixel((0, 0)) for image in (red, blue)] == [(255, 0, 0), (0, 0, 255)]
    with pytest.raises(BadImage) as caught:
        gone.read()
    assert caught.value.cause is Cause.MISSING_IMAGE


def test_images_in_tars_of_img2dataset_are_found_by_their_address(tmp_path):
    documents(tmp_path, [page(["0a.jpg", "0b.jpg"])])
    record = {"url": "http://a.invalid/0b.jpg", "status": "success"}
    members = {"000000000.jpg": png("red"), "000000000.json": b"{broken"}
    members |= {"000000001.jpg": png("blue"), "000000001.json": json.dumps(record).encode()}
    tar(tmp_path / "images" / "00000.tar", members)
    corpus = open_corpus(tmp_path)
    assert corpus.layout.name == "tars, by address"
    assert open_image(corpus[0].images[1]).getpixel((0, 0)) == (0, 0, 255)


def test_loose_images_are_preferred_and_a_cut_tar_gives_what_it_has(tmp_path):
    documents(tmp_path, [page(["0a.jpg", "0b.jpg"])])
    path = tar(tmp_path / "images" / "0.tar", {"0a.jpg": png("red"), "0b.jpg": png("red")})
    os.truncate(path, 1024 + 520)
    assert open_corpus(tmp_path).layout.hit_rate == 1 / 2
    (tmp_path / "images" / "0a.jpg").write_bytes(png("green"))
    assert open_corpus(tmp_path).layout.name == "images, flat"


def test_tars_of_other_images_are_refused(tmp_path):
    documents(tmp_path, [page(["0a.jpg"])])
    tar(tmp_path / "images" / "0.tar", {"else.jpg": png("red")})
    with pytest.raises(CorpusError, match=r"0\.0% exist.*2 ways to name it in tars"):
        open_corpus(tmp_path)


# --- documents in tars


def test_documents_in_tars_hold_their_images(tmp_path):
    first = page([], image_info=[inline("red"), inline("blue", "b.jpg"), inline(None, "c.jpg")])
    first["similarity_matrix"] = [[0.3], [0.25], [0.2]]
    tar(tmp_path / "000000000.tar", {"aa-bb.json": json.dumps(first).encode(), "cc.json": b"[1]"})
    tar(tmp_path / "000000001.tar", {"dd.json": json.dumps(page([], image_info=[inline("green")])).encode()})
    assert detect(tmp_path) == "mmc4"
    corpus = open_corpus(tmp_path, cache=tmp_path / "cache")
    assert corpus.shard_sizes == (2, 1)
    assert [corpus[at].doc_id for at in range(3)] == ["mmc4/000000000/aa-bb", "mmc4/000000000/cc", "mmc4/000000001/dd"]
    assert corpus[0].segments == ("Dig a hole.",) and corpus[0].meta["similarity_matrix"] == [[0.3], [0.25], [0.2]]
    assert [open_image(image).getpixel((0, 0)) for image in corpus[0].images[:2]] == [(255, 0, 0), (0, 0, 255)]
    with pytest.raises(BadImage) as caught:
        corpus[0].images[2].read()
    assert caught.value.cause is Cause.MISSING_IMAGE
    assert corpus[1].cause is Cause.SCHEMA


@pytest.mark.parametrize("text", ["not base64!", "AAA", 7, ["x"], ""])
def test_what_is_no_base64_is_a_bad_image(tmp_path, text):
    tar(tmp_path / "0.tar", {"a.json": json.dumps(page([], image_info=[entry("a.jpg", image_base64=text)])).encode()})
    with pytest.raises(BadImage) as caught:
        open_image(open_corpus(tmp_path)[0].images[0])
    assert caught.value.cause in (Cause.DECODE_ERROR, Cause.MISSING_IMAGE)


def test_a_bad_entry_before_does_not_shift_the_images(tmp_path):
    infos = [None, inline("red", matched_text_index=9), inline("blue")]
    tar(tmp_path / "0.tar", {"a.json": json.dumps(page([], image_info=infos)).encode()})
    document = open_corpus(tmp_path)[0]
    assert [bad.cause for bad in document.removed] == [Cause.BAD_IMAGE_ENTRY] * 2
    assert open_image(document.images[0]).getpixel((0, 0)) == (0, 0, 255)


def test_images_that_are_no_list_cost_their_document_only(tmp_path):
    lines = [json.dumps(page([], image_info=info)).encode() for info in (5, {"a": 1}, [inline("red")])]
    tar(tmp_path / "0.tar", {f"{number}.json": line for number, line in enumerate(lines)})
    first, second, third = map(open_corpus(tmp_path).__getitem__, range(3))
    assert (first.cause, second.cause) == (Cause.SCHEMA, Cause.SCHEMA) and len(third.images) == 1


def test_a_cut_tar_of_documents_counts_what_is_gone(tmp_path):
    data = json.dumps(page([], image_info=[inline("red")])).encode()
    for number in range(3):
        path = tar(tmp_path / f"{number}.tar", {f"{n}.json": data for n in range(8)})
    with tarfile.open(path) as archive:
        cut = archive.getmember("3.json").offset_data + 10
    os.truncate(path, cut)
    (bad,) = open_corpus(tmp_path).lost_shards()
    assert isinstance(bad, Bad) and (bad.cause, bad.lost) == (Cause.BAD_TAR, 5)
    path.unlink()


def test_a_tar_of_documents_that_vanishes_is_counted(tmp_path):
    path = tar(tmp_path / "0.tar", {"a.json": json.dumps(page([], image_info=[inline("red")])).encode()})
    corpus = open_corpus(tmp_path)
    image = corpus[0].images[0]
    mmc4_tars._record.cache_clear()
    path.unlink()
    assert corpus[0].cause is Cause.MISSING_SHARD
    with pytest.raises(BadImage) as caught:
        image.read()
    assert caught.value.cause is Cause.MISSING_SHARD


def test_pairs_with_records_beside_them_are_no_documents(tmp_path):
    tar(tmp_path / "0.tar", {"0.jpg": png("red"), "0.txt": b"words", "0.json": b'{"url": "x"}'})
    assert detect(tmp_path) == "laion"


@pytest.mark.parametrize("first", ["junk", "empty"])
def test_a_first_tar_that_is_damaged_or_empty_does_not_hide_the_documents_of_others(tmp_path, first):
    (tmp_path / "0.tar").write_bytes(b"junk" * 999) if first == "junk" else tar(tmp_path / "0.tar", {})
    tar(tmp_path / "1.tar", {"a.json": json.dumps(page([], image_info=[inline("red")])).encode()})
    assert detect(tmp_path) == "mmc4" and len(open_corpus(tmp_path)[1].images) == 1


def test_a_picture_beside_a_record_makes_a_pair_whatever_the_record_says(tmp_path):
    tar(tmp_path / "0.tar", {"0.json": b'{"text_list": ["x"]}', "0.jpg": png("red"), "0.txt": b"words"})
    assert detect(tmp_path) == "laion"


@pytest.mark.parametrize("where", ["tars of images", "tars of documents", "loose"])
def test_documents_cross_process_borders(tmp_path, where):
    if where == "tars of documents":
        tar(tmp_path / "0.tar", {"a.json": json.dumps(page([], image_info=[inline("red")])).encode()})
    else:
        documents(tmp_path, [page(["0a.jpg"])])
        tar(tmp_path / "images" / "0.tar", {"0a.jpg": png("red")})
        if where == "loose":
            (tmp_path / "images" / "0a.jpg").write_bytes(png("red"))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        document = pool.submit(operator.getitem, open_corpus(tmp_path), 0).result()
    assert document.images[0].read() == png("red")
