"""Readers give every sample once, as a document or as a Bad of the right cause, from hostile and broken shards too."""

import io
import json
import operator
import os
import random
import tarfile
import zipfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tar_helpers import write_shards

from data.corpora import PEAK_LEARNING_RATE, detect, open_corpus
from data.document import Bad, Cause, ImageRef, RawDocument
from data.errors import BadImage, CorpusError
from data.images import open_image
from data.readers import mmc4, zips
from data.readers.mmc4_pair import Mmc4Pairs
from data.readers.tars import split_name


def png(colour="red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def sample(key: str, caption: bytes = b"a caption", image: bytes = b"pixels", record: object = None):
    members = [(f"{key}.jpg", image), (f"{key}.txt", caption)]
    return members if record is None else [*members, (f"{key}.json", json.dumps(record).encode())]


def read(corpus) -> list[RawDocument | Bad]:
    return [corpus[at] for at in range(len(corpus))]


def captions(corpus) -> list[str]:
    return [each.segments[0] if isinstance(each, RawDocument) else each.cause.value for each in read(corpus)]


def the_only(corpus) -> RawDocument | Bad:
    (document,) = read(corpus)
    return document


# --- tar shards


def test_a_pair_is_one_segment_one_image_and_its_record(tmp_path):
    write_tar(tmp_path / "00000.tar", sample("000000007", b" Blue teapot\n", png(), {"url": "http://shop.invalid"}))
    document = the_only(open_corpus(tmp_path))
    assert document.doc_id == "laion/00000/000000007"
    assert (document.segments, document.anchors, document.scores) == (("Blue teapot",), (0,), (None,))
    assert document.meta == {"url": "http://shop.invalid"}
    (image,) = document.images
    assert (image.name, image.label) == ("000000007.jpg", None)
    assert open_image(image).getpixel((0, 0)) == (255, 0, 0)


def test_suffixes_in_any_case_and_labels(tmp_path):
    for at, suffix in enumerate(["JPG", "jpeg", "PNG", "webp"]):
        write_tar(
            tmp_path / f"{at}.tar", [(f"k.{suffix}", suffix.encode()), ("k.TXT", b"words"), ("k.cls", str(at).encode())]
        )
    images = [document.images[0] for document in read(open_corpus(tmp_path))]
    assert [image.read() for image in images] == [b"JPG", b"jpeg", b"PNG", b"webp"]
    assert [image.label for image in images] == [0, 1, 2, 3]


def test_a_mark_of_the_order_of_bytes_is_no_part_of_a_text(tmp_path):
    mark = b"\xef\xbb\xbf"
    write_tar(tmp_path / "pairs" / "0.tar", [*sample("k", mark + b"a boat"), ("k.json", mark + b'{"a": 1}')])
    pair = the_only(open_corpus(tmp_path / "pairs"))
    assert (pair.segments, pair.meta) == (("a boat",), {"a": 1})
    write_mmc4(tmp_path / "pages", [mark + json.dumps(page()).encode() + b"\n", page()])
    assert [isinstance(each, RawDocument) for each in read(open_corpus(tmp_path / "pages"))] == [True, True]


def test_keys_that_are_no_utf8_are_told_apart(tmp_path):
    names = [os.fsdecode(b"k\xe9"), os.fsdecode(b"k\xe8")]
    write_tar(tmp_path / "0.tar", [member for name in names for member in sample(name)])
    assert len({document.doc_id for document in read(open_corpus(tmp_path))}) == 2


def test_a_link_to_nowhere_among_the_shards_is_one_message(tmp_path):
    (tmp_path / "0.tar").symlink_to(tmp_path / "gone")
    write_tar(tmp_path / "1.tar", sample("k"))
    with pytest.raises(CorpusError, match=r"0\.tar is a link to a file that is gone"):
        open_corpus(tmp_path)


@pytest.mark.parametrize("module, limit", [("laion", "MAX_TEXT"), ("mmc4", "MAX_LINE")])
def test_texts_of_any_length_are_not_read(tmp_path, monkeypatch, module, limit):
    if module == "laion":
        write_tar(tmp_path / "0.tar", [*sample("a", b"w" * 2000), *sample("b")])
    else:
        write_mmc4(tmp_path, [page(["w" * 2000]), page()])
    monkeypatch.setattr(f"data.readers.{module}.{limit}", 1000)
    first, second = read(open_corpus(tmp_path))
    assert first.cause is Cause.OVERSIZE and isinstance(second, RawDocument)


@pytest.mark.parametrize("loose", [True, False])
def test_a_picture_of_more_bytes_than_any_is_not_read(tmp_path, monkeypatch, loose):
    if loose:
        write_mmc4(tmp_path, [page(images=[entry("a.jpg")])])
    else:
        write_tar(tmp_path / "0.tar", sample("k"))
    monkeypatch.setattr("data.files.MAX_BYTES", 5)
    with pytest.raises(BadImage) as caught:
        the_only(open_corpus(tmp_path)).images[0].read()
    assert caught.value.cause is Cause.OVERSIZE


@pytest.mark.parametrize(
    ("members", "cause"),
    [
        (sample("k", b""), Cause.EMPTY_TEXT),
        (sample("k", b" \n\t"), Cause.EMPTY_TEXT),
        ([("k.jpg", b"pixels")], Cause.EMPTY_TEXT),
        (sample("k", b"caf\xe9"), Cause.BAD_UTF8),
        ([("k.txt", b"words"), ("k.json", b"{}")], Cause.MISSING_IMAGE),
        ([*sample("k"), ("k.json", b"{broken")], Cause.BAD_JSON),
        ([*sample("k"), ("k.json", b"[" * 100_000)], Cause.BAD_JSON),
        ([*sample("k"), ("k.json", b"9" * 5000)], Cause.BAD_JSON),
        ([*sample("k"), ("k.json", b"[1]")], Cause.SCHEMA),
        ([*sample("k"), ("k.json", b'{"a": "\xff"}')], Cause.BAD_UTF8),
        ([*sample("k"), ("k.cls", b"cat")], Cause.SCHEMA),
        ([*sample("k"), ("k.cls", b"9" * 20)], Cause.SCHEMA),
    ],
)
def test_each_defect_of_a_pair_has_its_cause(tmp_path, members, cause):
    write_tar(tmp_path / "0.tar", [*members, *sample("next", b"good")])
    first, second = read(open_corpus(tmp_path))
    assert isinstance(first, Bad) and (first.cause, first.doc_id) == (cause, "laion/0/k")
    assert second.segments == ("good",)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"top_caption": "a dog on grass"}, "a dog on grass"),
        ({"caption": "alt text"}, "empty_text"),
        ({"top_caption": None}, "empty_text"),
        ({"top_caption": ["a", "b"]}, "schema"),
        ({"top_caption": "\ud800"}, "bad_utf8"),
        (None, "empty_text"),
    ],
)
def test_the_caption_can_come_from_the_record(tmp_path, record, expected):
    write_tar(tmp_path / "0.tar", sample("k", b"alt text", record=record))
    assert captions(open_corpus(tmp_path, caption_key="top_caption")) == [expected]


def cut_points(members):
    """(bytes kept, captions expected): inside each header and each body of a two-sample shard."""
    with tarfile.open(fileobj=members) as tar:
        return [(info.offset, info.offset_data, info.size) for info in tar.getmembers()]


def test_a_cut_shard_keeps_the_samples_before_the_cut_wherever_it_falls(tmp_path):
    pairs = sample("a", b"first") + sample("b", b"second") + sample("c", b"third")
    whole = write_tar(tmp_path / "whole" / "0.tar", pairs).read_bytes()
    (tmp_path / "cut").mkdir()
    for at, (header, body, size) in enumerate(cut_points(io.BytesIO(whole))):
        complete = ["first", "second", "third"][: at // 2]
        for kept in (header, header + 100, body, body + size - 1):
            (tmp_path / "cut" / "0.tar").write_bytes(whole[:kept])
            write_tar(tmp_path / "cut" / "1.tar", sample("c", b"next shard"))
            assert captions(open_corpus(tmp_path / "cut")) == [*complete, "bad_tar", "next shard"], (at, kept - header)


def test_a_cut_inside_the_record_drops_that_sample(tmp_path):
    pairs = sample("a", b"first", record={"n": 1}) + sample("b", b"second", record={"n": 2})
    whole = write_tar(tmp_path / "0.tar", pairs).read_bytes()
    start = cut_points(io.BytesIO(whole))[-1][0]
    for kept in (start, start + 512 + 2):
        (tmp_path / "0.tar").write_bytes(whole[:kept])
        first, last = read(open_corpus(tmp_path))
        assert first.segments == ("first",)
        assert (last.cause, last.doc_id) == (Cause.BAD_TAR, "laion/0/b")


@pytest.mark.parametrize("junk", [b"", b"<html>not a tar</html>" * 100, b"\x1f\x8b\x08" + bytes(600)])
def test_a_file_that_is_no_tar_is_one_bad_sample(tmp_path, junk):
    (tmp_path / "0.tar").write_bytes(junk)
    write_tar(tmp_path / "1.tar", sample("k", b"good"))
    assert captions(open_corpus(tmp_path)) == ["bad_tar", "good"]


def test_damage_in_the_middle_is_not_taken_for_the_end(tmp_path):
    path = write_tar(tmp_path / "0.tar", sample("a", b"first") + sample("b", b"second") + sample("c", b"third"))
    data = bytearray(path.read_bytes())
    header = cut_points(io.BytesIO(bytes(data)))[2][0]
    data[header : header + 50] = b"\x07" * 50
    path.write_bytes(data)
    assert captions(open_corpus(tmp_path)) == ["first", "bad_tar"]


def test_scattered_members_are_an_error_that_names_shard_and_key(tmp_path):
    a, b = sample("a"), sample("b")
    write_tar(tmp_path / "00003.tar", [a[0], b[0], a[1], b[1]])
    with pytest.raises(CorpusError, match=r"00003\.tar: the members of key 'a'"):
        open_corpus(tmp_path)


def test_a_repeated_suffix_starts_a_new_sample(tmp_path):
    write_tar(tmp_path / "0.tar", sample("a", b"one") + sample("a", b"two") + sample("b", b"x") + sample("a", b"three"))
    corpus = open_corpus(tmp_path)
    assert captions(corpus) == ["one", "two", "x", "three"]
    assert [document.doc_id for document in read(corpus)] == ["laion/0/a", "laion/0/a#2", "laion/0/b", "laion/0/a#3"]


def test_a_sample_never_spans_two_shards(tmp_path):
    write_tar(tmp_path / "0.tar", [("k.jpg", b"pixels")])
    write_tar(tmp_path / "1.tar", [("k.txt", b"words")])
    assert captions(open_corpus(tmp_path)) == ["empty_text", "missing_image"]


def test_member_names_never_touch_the_file_system_and_links_are_not_followed(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    folder = tmp_path / "corpus"
    folder.mkdir()
    with tarfile.open(folder / "0.tar", "w") as tar:
        for name, data in (("../../secret.jpg", b"pixels"), ("/etc/passwd.jpg", b"pixels"), ("c.jpg", b"pixels")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("c.txt")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
    assert captions(open_corpus(folder)) == ["empty_text"] * 3
    assert sorted(tmp_path.iterdir()) == [folder, secret]


def test_a_shard_that_vanishes_or_shrinks_is_counted(tmp_path):
    path = write_tar(tmp_path / "0.tar", sample("a", b"words") + sample("b", b"more"))
    corpus = open_corpus(tmp_path)
    image = corpus[1].images[0]
    os.truncate(path, 600)
    assert corpus[1].cause is Cause.BAD_TAR
    with pytest.raises(BadImage) as caught:
        image.read()
    assert caught.value.cause is Cause.BAD_TAR
    path.unlink()
    assert corpus[0].cause is Cause.MISSING_SHARD
    with pytest.raises(BadImage) as caught:
        image.read()
    assert caught.value.cause is Cause.MISSING_SHARD


def test_names_split_as_in_webdataset():
    from webdataset.tariterators import base_plus_ext

    for name in ("a.jpg", "x/y.z/a.b.JPG", "./a.txt", "a", ".hidden", "a.", "x.y/a"):
        key, suffix = base_plus_ext(name)
        if key is not None and suffix:
            assert split_name(name) == (key, suffix.lower()), name


def test_shards_written_by_webdataset_read_back_equal(tmp_path, monkeypatch):
    monkeypatch.setenv("WDS_SECURE", "1")
    import webdataset

    rng = random.Random(0)
    records = [
        {"__key__": f"{n:09d}", "jpg": rng.randbytes(rng.randrange(1, 2000)), "txt": f"caption {n} é", "json": {"n": n}}
        for n in range(25)
    ]
    with webdataset.ShardWriter(f"{tmp_path}/%05d.tar", maxcount=10, verbose=0, encoder=False) as writer:
        for record in records:
            encoded = {"txt": record["txt"].encode(), "json": json.dumps(record["json"]).encode()}
            writer.write({**record, **encoded})
    corpus = open_corpus(tmp_path)
    assert corpus.shard_sizes == (10, 10, 5)
    for record, document in zip(records, read(corpus), strict=True):
        assert document.doc_id.rpartition("/")[2] == record["__key__"]
        assert (document.segments, document.meta) == ((record["txt"],), record["json"])
        assert document.images[0].read() == record["jpg"]


def test_shards_read_back_equal_here_and_in_webdataset(tmp_path, monkeypatch):
    monkeypatch.setenv("WDS_SECURE", "1")
    import webdataset

    samples = [(f"{n:06d}", {"png": png(), "txt": f"caption {n}".encode(), "json": b"{}"}) for n in range(7)]
    shards = write_shards(samples, tmp_path / "one", samples_per_shard=3)
    assert [path.name for path in shards] == ["00000.tar", "00001.tar", "00002.tar"]
    assert json.loads((tmp_path / "one" / "sizes.json").read_text()) == dict(
        zip(map(str, ["00000.tar", "00001.tar", "00002.tar"]), [3, 3, 1], strict=True)
    )
    assert captions(open_corpus(tmp_path / "one")) == [f"caption {n}" for n in range(7)]
    theirs = list(webdataset.WebDataset([str(path) for path in shards], shardshuffle=False))
    assert [
        (each["__key__"], {suffix: each[suffix] for suffix in ("png", "txt", "json")}) for each in theirs
    ] == samples


# --- the index


def test_the_cached_index_gives_the_same_corpus_and_notices_changes(tmp_path):
    shards, cache = tmp_path / "shards", tmp_path / "cache"
    write_tar(shards / "part0" / "00000.tar", sample("a", b"first"))
    path = write_tar(shards / "part1" / "00000.tar", sample("a", b"second"))
    plain, written, mapped = (read(open_corpus(shards, cache=each)) for each in (None, cache, cache))
    assert plain == written == mapped
    assert [document.doc_id for document in mapped] == ["laion/part0/00000/a", "laion/part1/00000/a"]
    assert len(list(cache.iterdir())) == 1
    write_tar(path, sample("a", b"third") + sample("b", b"fourth"))
    assert captions(open_corpus(shards, cache=cache)) == ["first", "third", "fourth"]


def test_processes_do_not_change_the_index(tmp_path):
    for at in range(3):
        write_tar(tmp_path / f"{at}.tar", sample(f"k{at}", str(at).encode()))
    assert captions(open_corpus(tmp_path, processes=2)) == ["0", "1", "2"]


def test_corpora_and_lazy_images_cross_process_borders(tmp_path):
    path = write_tar(tmp_path / "0.tar", sample("a", b"words"))
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        document = pool.submit(operator.getitem, open_corpus(tmp_path), 0).result()
        assert document.images[0].read() == b"pixels"
        path.unlink()
        with pytest.raises(BadImage) as caught:
            pool.submit(document.images[0].read).result()
    assert caught.value.cause is Cause.MISSING_SHARD


def test_the_digest_is_of_names_and_sizes(tmp_path):
    write_tar(tmp_path / "x" / "0.tar", sample("a", b"one"))
    write_tar(tmp_path / "y" / "0.tar", sample("a", b"one"))
    write_tar(tmp_path / "z" / "1.tar", sample("a", b"one"))
    x, y, z = (open_corpus(tmp_path / name).digest for name in "xyz")
    assert x == y != z


# --- MMC4


def entry(name: str, anchor: object = 0, score: object = 0.3, **extra) -> dict:
    return {"image_name": name, "raw_url": "u", "matched_text_index": anchor, "matched_sim": score, **extra}


def page(texts=("Dig a hole.", "Water it."), images=(), **extra) -> dict:
    return {"url": "http://garden.invalid", "text_list": list(texts), "image_info": list(images), **extra}


def write_mmc4(folder: Path, lines: list[object], number: int = 0, place: str | None = "", name: str = "{}_v3") -> Path:
    """One shard; images of well-formed entries are put in images/<place>, or nowhere when place is None."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "images").mkdir(exist_ok=True)
    data = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    path = folder / f"docs_shard_{name.format(number)}.jsonl"
    path.write_bytes(data)
    for line in lines if place is not None else ():
        for each in line["image_info"] if isinstance(line, dict) else ():
            target = folder / "images" / place / each["image_name"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(f"{number}/{each['image_name']}".encode())
    return path


def zipped(path: Path, **options) -> Path:
    target = path.with_name(path.name + ".zip")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        archive.write(path, path.name)
    path.unlink()
    return target


def test_a_document_keeps_every_image_sentence_anchor_and_score(tmp_path):
    images = [entry("a.jpg", 1, 0.27, label=5), entry("b.jpg", 0, None), entry("c.jpg", 1, 0)]
    matrix = [[0.1, 0.27]] * 3
    write_mmc4(tmp_path, [page(["", "Water it."], images, dom_order=[2, 0, 1], similarity_matrix=matrix)])
    document = the_only(open_corpus(tmp_path))
    assert document.doc_id == "mmc4/docs_shard_0_v3/0"
    assert (document.segments, document.anchors, document.scores) == (("", "Water it."), (1, 0, 1), (0.27, None, 0.0))
    assert [(image.name, image.label) for image in document.images] == [("a.jpg", 5), ("b.jpg", None), ("c.jpg", None)]
    assert document.order is None
    assert document.meta == {
        "url": "http://garden.invalid",
        "dom_order": (2, 0, 1),
        "similarity_matrix": matrix,
    }
    assert document.images[2].read() == b"0/c.jpg"


def test_zipped_and_plain_shards_read_alike_in_number_order(tmp_path):
    for number in (10, 9, 2):
        lines = [page([f"{number}.{n}\u2028line"], [entry(f"{number}_{n}.jpg")]) for n in range(3)]
        path = write_mmc4(tmp_path, lines, number, name="{}_v2" if number != 9 else "{}")
        if number == 10:
            zipped(path)
    corpus = open_corpus(tmp_path)
    assert captions(corpus) == [f"{number}.{n}\u2028line" for number in (2, 9, 10) for n in range(3)]
    assert corpus.shard_sizes == (3, 3, 3)
    assert [document.images[0].read() for document in read(corpus)][-1] == b"10/10_2.jpg"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (b"{broken\n", Cause.BAD_JSON),
        (b"[" * 100_000 + b"\n", Cause.BAD_JSON),
        (b'{"text_list": ["\xff"]}\n', Cause.BAD_UTF8),
        (b'{"text_list": ["\\ud800"], "image_info": []}\n', Cause.BAD_SENTENCE),
        (b"null\n", Cause.SCHEMA),
        ({"text_list": ["a"]}, Cause.SCHEMA),
        (page([1]), Cause.BAD_SENTENCE),
        ({"text_list": ["a"], "image_info": None}, Cause.SCHEMA),
        (page([], []), Cause.EMPTY_TEXT),
        (page(["", " "], []), Cause.EMPTY_TEXT),
        (page(images=[entry("a.jpg")], dom_order=[0, 1]), Cause.SCHEMA),
    ],
)
def test_each_defect_of_a_document_costs_that_line_only(tmp_path, line, cause):
    write_mmc4(tmp_path, [line, b"\n"], place=None)
    path = write_mmc4(tmp_path, [page(["good"])], 1)
    (tmp_path / "images" / "a.jpg").write_bytes(b"pixels")
    for _ in range(2):
        first, second = read(open_corpus(tmp_path))
        assert isinstance(first, Bad) and (first.cause, first.doc_id) == (cause, "mmc4/docs_shard_0_v3/0")
        assert second.segments == ("good",)
        path = zipped(path) if path.suffix == ".jsonl" else path


@pytest.mark.parametrize(
    "broken",
    [
        "a.jpg",
        None,
        entry(None),
        entry("/etc/passwd"),
        entry("../a.jpg"),
        entry("x/../../a.jpg"),
        entry("..\\a.jpg"),
        entry("a\0.jpg"),
        entry(""),
        entry("a.jpg", 2),
        entry("a.jpg", -1),
        entry("a.jpg", 1.0),
        entry("a.jpg", True),
        entry("a.jpg", None),
        entry("a.jpg", label="cat"),
        entry("a.jpg", label=10**20),
        entry("\ud800.jpg"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_one_bad_image_entry_costs_that_image_and_is_counted(tmp_path, broken, first):
    good = entry("good.jpg", 1, 0.31)
    images = [broken, good] if first else [good, broken]
    matrix = [[0.1, 0.2], [0.3, 0.4]]
    write_mmc4(tmp_path, [page(images=images, dom_order=[5, 7], similarity_matrix=matrix)], place=None)
    (tmp_path / "images" / "good.jpg").write_bytes(b"pixels")
    document = the_only(open_corpus(tmp_path))
    assert [image.name for image in document.images] == ["good.jpg"]
    assert (document.anchors, document.scores) == ((1,), (0.31,))
    assert [bad.cause for bad in document.removed] == [Cause.BAD_IMAGE_ENTRY]
    assert document.meta["dom_order"] == ((7,) if first else (5,))
    assert document.meta["similarity_matrix"] == [matrix[1 if first else 0]]


@pytest.mark.parametrize("score", [None, float("nan"), float("inf"), "0.3", True, [0.3], 10**400])
def test_what_is_no_similarity_is_none(tmp_path, score):
    write_mmc4(tmp_path, [page(images=[entry("a.jpg", 0, score), entry("b.jpg", 1, 0.3)])])
    document = the_only(open_corpus(tmp_path))
    assert (document.scores, document.removed) == ((None, 0.3), ())


@pytest.mark.parametrize("sentence", [None, 3, ["a"], "\ud800"])
def test_one_bad_sentence_becomes_blank_and_the_others_keep_their_numbers(tmp_path, sentence):
    write_mmc4(tmp_path, [page(["one", sentence, "three"], [entry("a.jpg", 2), entry("b.jpg", 1)])])
    document = the_only(open_corpus(tmp_path))
    assert (document.segments, document.anchors) == (("one", "", "three"), (2, 1))
    assert [bad.cause for bad in document.removed] == [Cause.BAD_SENTENCE]


def test_a_name_longer_than_any_file_has_is_a_missing_image(tmp_path):
    write_mmc4(tmp_path, [page(images=[entry("n" * 300 + ".jpg"), entry("a.jpg")])], place=None)
    (tmp_path / "images" / "a.jpg").write_bytes(b"pixels")
    long, there = the_only(open_corpus(tmp_path)).images
    assert there.read() == b"pixels"
    with pytest.raises(BadImage) as caught:
        long.read()
    assert caught.value.cause is Cause.MISSING_IMAGE


def test_a_filtered_image_list_leaves_no_matrix_of_the_wrong_shape(tmp_path):
    write_mmc4(tmp_path, [page(images=[entry("a.jpg")], similarity_matrix=[[0.1, 0.2], [0.3, 0.1]])])
    assert the_only(open_corpus(tmp_path)).meta["similarity_matrix"] is None


@pytest.mark.parametrize(
    ("places", "layout"),
    [
        (("4", "9"), "images/<shard number>"),
        (("0", "1"), "images/<position of the shard in this folder>"),
        (("", ""), "images, flat"),
    ],
)
def test_the_three_image_layouts_are_found_by_looking(tmp_path, places, layout):
    for number, place in zip((4, 9), places, strict=True):
        write_mmc4(tmp_path, [page(images=[entry("same.jpg"), entry(f"{number}.jpg")])], number, place)
    corpus = open_corpus(tmp_path)
    assert (corpus.layout.name, corpus.layout.hit_rate) == (layout, 1.0)
    if layout != "images, flat":
        assert [document.images[0].read() for document in read(corpus)] == [b"4/same.jpg", b"9/same.jpg"]


def test_the_position_in_the_published_list_skips_missing_shards(tmp_path):
    write_mmc4(tmp_path, [page(images=[entry("a.jpg")])], 5065, place="5062")
    assert "published list" in open_corpus(tmp_path).layout.name


def test_missing_images_are_fatal_only_when_almost_all_are_missing(tmp_path):
    lines = [page(images=[entry(f"{n}.jpg")]) for n in range(20)]
    write_mmc4(tmp_path, lines, place=None)
    with pytest.raises(CorpusError, match=r"of 20 image names probed, 0\.0% exist .* images/0/0\.jpg"):
        open_corpus(tmp_path)
    (tmp_path / "images" / "3.jpg").write_bytes(b"pixels")
    corpus = open_corpus(tmp_path)
    assert corpus.layout.hit_rate == 1 / 20
    with pytest.raises(BadImage) as caught:
        corpus[0].images[0].read()
    assert caught.value.cause is Cause.MISSING_IMAGE


def test_an_image_that_is_a_link_out_of_the_folder_is_not_read(tmp_path):
    write_mmc4(tmp_path, [page(images=[entry("a.jpg"), entry("b.jpg")])])
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (tmp_path / "images" / "b.jpg").unlink()
    (tmp_path / "images" / "b.jpg").symlink_to(secret)
    with pytest.raises(BadImage) as caught:
        the_only(open_corpus(tmp_path)).images[1].read()
    assert caught.value.cause is Cause.SCHEMA


@pytest.mark.parametrize("spoil", ["bomb", "large", "junk", "two", "flipped", "cut"])
def test_a_hostile_or_broken_zip_is_one_bad_document(tmp_path, monkeypatch, spoil):
    line = page(["x" * 300_000 if spoil == "bomb" else random.Random(0).randbytes(3000).hex()])
    path = zipped(write_mmc4(tmp_path, [line]))
    if spoil == "large":
        monkeypatch.setattr(zips, "MAX_ZIP_MEMBER", 1000)
    if spoil == "junk":
        path.write_bytes(b"not a zip")
    if spoil == "two":
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr("other.jsonl", "{}")
    if spoil == "flipped":
        data = bytearray(path.read_bytes())
        data[400] ^= 0xFF
        path.write_bytes(data)
    if spoil == "cut":
        os.truncate(path, 1000)
    bad = the_only(open_corpus(tmp_path))
    expected = {"bomb": Cause.OVERSIZE, "large": Cause.OVERSIZE, "two": Cause.SCHEMA}.get(spoil, Cause.BAD_TAR)
    assert (bad.cause, bad.doc_id) == (expected, "mmc4/docs_shard_0_v3/0")


def test_a_document_shard_that_vanishes_is_counted(tmp_path):
    plain, packed = write_mmc4(tmp_path, [page()], 0), zipped(write_mmc4(tmp_path, [page()], 1))
    corpus = open_corpus(tmp_path)
    mmc4.unzip = zips.recent_zips(1)
    plain.unlink()
    packed.unlink()
    assert [document.cause for document in read(corpus)] == [Cause.MISSING_SHARD] * 2


def test_pairs_are_the_selected_images_with_their_sentences(tmp_path):
    first = page(["one", "two", " "], [entry("a.jpg", 1, 0.3), entry("b.jpg", 0, 0.2), entry("c.jpg", 1, 0.25)])
    second = page(["three"], [entry("a.jpg", 0, 0.1)])
    third = page(["four", ""], [entry("d.jpg", 0, 0.9, label=3), entry("d.jpg", 0, 0.8), entry("e.jpg", 1, 0.9)])
    write_mmc4(tmp_path, [first, b"{broken\n", second, third])
    corpus = open_corpus(tmp_path)
    pairs = Mmc4Pairs(corpus, lambda raw: [at for at, score in enumerate(raw.scores) if score >= 0.24])
    shard = "mmc4/docs_shard_0_v3"
    assert [(each.doc_id, getattr(each, "segments", None)) for each in read(pairs)] == [
        (f"{shard}/0#a.jpg", ("two",)),
        (f"{shard}/0#c.jpg", ("two",)),
        (f"{shard}/1", None),
        (f"{shard}/3#d.jpg", ("four",)),
        (f"{shard}/3#d.jpg#2", ("four",)),
        (f"{shard}/3#e.jpg", None),
    ]
    assert [each.cause for each in read(pairs) if isinstance(each, Bad)] == [Cause.BAD_JSON, Cause.EMPTY_TEXT]
    assert (pairs[3].anchors, pairs[3].scores, pairs[3].images[0].label) == ((0,), (0.9,), 3)
    assert pairs[0].images[0].read() == b"0/a.jpg"
    assert pairs.digest != Mmc4Pairs(corpus, lambda raw: [0]).digest


def test_a_raw_document_needs_an_anchor_for_each_image():
    with pytest.raises(ValueError, match="1 images, 0 anchors"):
        RawDocument("d", ("a",), (ImageRef(lambda: b"", "a.jpg"),), (), (None,))


# --- opening folders


def test_wrong_folders_are_refused_with_what_was_found(tmp_path):
    def folder(name: str, *files: str) -> Path:
        for file in files:
            (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / file).write_bytes(b"x")
        (tmp_path / name).mkdir(exist_ok=True)
        return tmp_path / name

    cases = {
        "does not exist; expected": tmp_path / "nowhere",
        "is a file; pass the folder": folder("file", "a.tar") / "a.tar",
        "it is empty": folder("empty"),
        "looks like ImageNet folders": folder("imagenet", "n01440764/n01440764_10026.JPEG", "n15075141/a.JPEG"),
        "data set with splits": folder("splits", "train/n01440764/a.JPEG", "val/n01440764/b.JPEG"),
        "no shards that say": folder("coco", "dataset_coco.json", "images/a.jpg"),
        "tars are compressed": folder("packed", "00000.tar.gz"),
        "download them with img2dataset": folder("urls", "part-00000.parquet"),
        "not named like MMC4 shards": folder("json", "docs.jsonl"),
        "table of URLs": folder("cc3m", "train.tsv"),
        "loose images": folder("loose", "a.jpg"),
        "it holds notes.md": folder("other", "notes.md"),
        "both tar shards and MMC4": folder("both", "0.tar", "docs_shard_0.jsonl"),
        "the same shard twice": folder("twice", "docs_shard_0_v2.jsonl", "docs_shard_0_v2.jsonl.zip", "images/a.jpg"),
        "is no folder; put the folder of the images there": folder("imageless", "docs_shard_0.jsonl"),
    }
    for words, path in cases.items():
        with pytest.raises(CorpusError, match=words) as caught:
            open_corpus(path)
        assert str(path) in str(caught.value)


def test_options_of_the_other_format_are_refused(tmp_path):
    write_tar(tmp_path / "tars" / "0.tar", sample("a"))
    write_mmc4(tmp_path / "documents", [page()])
    with pytest.raises(CorpusError, match="drop images="):
        open_corpus(tmp_path / "tars", images=tmp_path)
    with pytest.raises(CorpusError, match="drop caption_key='top_caption'"):
        open_corpus(tmp_path / "documents", caption_key="top_caption")
    assert (detect(tmp_path / "tars"), detect(tmp_path / "documents")) == ("laion", "mmc4")


def test_the_learning_rate_is_higher_on_laion_alone():
    assert {name for name, rate in PEAK_LEARNING_RATE.items() if rate == 5e-4} == {"laion", "laion-random"}
    assert set(PEAK_LEARNING_RATE.values()) == {5e-4, 3e-4}


def test_random_bytes_never_escape_as_other_errors(tmp_path):
    """Flip bytes of good shards: readers give documents or Bads, or the scattered-members error, and nothing else."""
    tar = write_tar(tmp_path / "tar" / "0.tar", sample("a", b"one", png(), {"n": 1}) + sample("b", b"two", png()))
    packed = zipped(write_mmc4(tmp_path / "zip", [page(images=[entry("a.jpg")]), page()]))
    originals = {path: path.read_bytes() for path in (tar, packed)}
    rng = np.random.default_rng(0)
    for path, original in originals.items():
        for _ in range(150):
            data = np.frombuffer(original, np.uint8).copy()
            data[rng.integers(0, len(data), 3)] = rng.integers(0, 256, 3)
            path.write_bytes(data.tobytes())
            try:
                documents = read(open_corpus(path.parent))
            except CorpusError:
                continue
            for document in documents:
                for image in document.images if isinstance(document, RawDocument) else ():
                    try:
                        open_image(image)
                    except BadImage:
                        continue
