"""OBELICS: parquet as published, images by address in every way they may lie, and whatever can be wrong with either."""

import hashlib
import io
import json
from urllib.parse import quote

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from tar_helpers import write_shards

from data.corpora import detect, open_corpus
from data.document import Bad, Cause
from data.errors import BadImage, CorpusError
from data.obelics import SCHEMA
from data.readers import obelics
from data.readers.obelics import END_OF_DOCUMENT
from data.readers.parquet import recent_groups

URL = "http://boats.invalid/{}.png?size=Large"


def png(number):
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (number, 0, 0)).save(out, "png")
    return out.getvalue()


def row(*nodes):
    """A document of texts and numbers of images, as published."""
    images = [URL.format(node) if isinstance(node, int) else None for node in nodes]
    about = [None if url is None else {"document_url": "http://boats.invalid/", "src": url} for url in images]
    return {
        "images": images,
        "texts": [node if isinstance(node, str) else None for node in nodes],
        "metadata": json.dumps(about),
        "general_metadata": json.dumps({"url": "http://boats.invalid/"}),
    }


PAGES = [
    row("Choosing a hull.\n\nWide hulls are stable.", 0, "Narrow hulls are fast."),
    row(1, 2, "Oars."),
    row("Sails."),
]


def write(folder, rows, name="train-00000-of-00001.parquet", schema=SCHEMA, group=2):
    folder.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.Table.from_pylist(rows, schema), folder / name, row_group_size=group)
    return folder / name


def tarred(folder, numbers=range(3)):
    samples = [(f"{n:09d}", {"png": png(n), "json": json.dumps({"url": URL.format(n)}).encode()}) for n in numbers]
    write_shards(samples, folder, 2)


def read(corpus):
    return [corpus[at] for at in range(len(corpus))]


@pytest.mark.parametrize("where", [".", "data"])
def test_the_order_of_a_page_is_kept_and_a_text_is_its_paragraphs(tmp_path, where):
    write(tmp_path / where, PAGES)
    tarred(tmp_path / "images")
    corpus = open_corpus(tmp_path)
    first, second, third = read(corpus)
    assert detect(tmp_path) == corpus.name == "obelics" and corpus.shard_sizes == (2, 1)
    assert first.segments == ("Choosing a hull.", "Wide hulls are stable.", "Narrow hulls are fast.")
    assert (first.order, second.order, third.order) == ((0, 1, -1, 2), (-1, -2, 0), (0,))
    assert first.doc_id == f"obelics/{'' if where == '.' else 'data/'}train-00000-of-00001/0"
    assert third.doc_id.endswith("/2") and first.meta["url"] == "http://boats.invalid/"
    assert [image.read() for image in second.images] == [png(1), png(2)] and second.scores == (None, None)


NAMES = {
    "sha1": lambda url: hashlib.sha1(url.encode()).hexdigest() + ".png",
    "sha256": lambda url: hashlib.sha256(url.encode()).hexdigest(),
    "md5 in folders": lambda url: f"{(name := hashlib.md5(url.encode()).hexdigest())[:2]}/{name}.jpg",
    "address": lambda url: quote(url, safe=""),
}


@pytest.mark.parametrize("way", NAMES)
def test_images_are_found_by_their_address_however_it_names_them(tmp_path, way):
    write(tmp_path, PAGES)
    for number in range(2):  # the third is gone
        path = tmp_path / "images" / NAMES[way](URL.format(number))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(number))
    corpus = open_corpus(tmp_path)
    assert corpus.place.hit_rate == pytest.approx(2 / 3)
    there, gone = corpus[1].images
    assert there.read() == png(1)
    with pytest.raises(BadImage) as error:
        gone.read()
    assert error.value.cause is Cause.MISSING_IMAGE and URL.format(2) in error.value.message


def test_an_address_is_matched_letter_by_letter(tmp_path):
    write(tmp_path, [row("a", 0)])
    lower = URL.format(0).lower()
    samples = [("0", {"png": png(9), "json": json.dumps({"url": lower}).encode()})]
    samples.append(("1", {"png": png(0), "json": json.dumps({"url": URL.format(0)}).encode()}))
    write_shards(samples, tmp_path / "images")
    assert open_corpus(tmp_path)[0].images[0].read() == png(0)


def test_a_file_that_leads_out_of_the_folder_is_not_read(tmp_path):
    write(tmp_path, [row("a", 0), row("b", 1)])
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "images").mkdir()
    for number, target in ((0, tmp_path / "secret"), (1, None)):
        path = tmp_path / "images" / NAMES["sha1"](URL.format(number))
        path.symlink_to(target) if target else path.write_bytes(png(1))
    with pytest.raises(BadImage, match="leads out of the image folder"):
        open_corpus(tmp_path)[0].images[0].read()


def test_defects_cost_a_place_or_a_document_and_are_counted(tmp_path):
    good = row("text", 0)
    rows = [
        good,
        good | {"images": ["", URL.format(0)], "texts": ["text", None]},  # "" for null, as early stages have it
        good | {"images": [None, URL.format(0), URL.format(1)]},  # unequal lengths
        good | {"images": None},
        row("  \n\n ", 0),
        good | {"images": [None, URL.format(0), None], "texts": ["text", "both", None]},
        good | {"general_metadata": "{broken", "metadata": "[]"},
    ]
    write(tmp_path, rows)
    tarred(tmp_path / "images")
    found = read(open_corpus(tmp_path))
    causes = {at: each.cause for at, each in enumerate(found) if isinstance(each, Bad)}
    assert causes == {2: Cause.SCHEMA, 3: Cause.SCHEMA, 4: Cause.EMPTY_TEXT}
    assert found[1].segments == ("text",) and found[1].images[0].read() == png(0)
    assert [bad.cause for bad in found[5].removed] == [Cause.BAD_IMAGE_ENTRY, Cause.BAD_SENTENCE]
    assert "expected one of the two" in found[5].removed[0].message
    assert found[6].meta == {"url": None} and found[6].segments == ("text",)


def test_the_sentinel_is_a_boundary_and_never_text(tmp_path):
    write(tmp_path, [row(f"one\n\n{END_OF_DOCUMENT}\n\ntwo", 0)])
    tarred(tmp_path / "images")
    assert open_corpus(tmp_path)[0].segments == ("one", "", "two")


def test_text_that_is_no_utf8_costs_its_document(tmp_path):
    values = pa.array([[None], [None]], pa.list_(pa.string()))
    raw = pa.array([[b"fine"], [b"\xff\xfe"]], pa.list_(pa.binary()))
    texts = pa.ListArray.from_arrays(raw.offsets, raw.values.view(pa.string()))
    (tmp_path / "images").mkdir()
    parquet.write_table(pa.table({"images": values, "texts": texts}), tmp_path / "a.parquet")
    first, second = read(open_corpus(tmp_path))
    assert first.segments == ("fine",) and second.cause is Cause.BAD_UTF8


@pytest.mark.parametrize("spoil", ["junk", "cut", "empty", "no rows", "other columns"])
def test_a_file_that_cannot_be_read_counts_for_what_it_held(tmp_path, spoil):
    whole = write(tmp_path, PAGES * 4, "train-00000-of-00002.parquet")
    path = write(tmp_path, PAGES * 4, "train-00001-of-00002.parquet")
    tarred(tmp_path / "images")
    if spoil == "no rows":
        write(tmp_path, [], path.name)
    elif spoil == "other columns":
        parquet.write_table(pa.table({"url": ["a"] * 12}), path)
    else:
        path.write_bytes({"junk": b"PAR1 no PAR1", "cut": whole.read_bytes()[:900], "empty": b""}[spoil])
    corpus = open_corpus(tmp_path)
    found = read(corpus)
    assert [isinstance(each, Bad) for each in found[:12]] == [False] * 12
    assert sum(each.lost for each in found[12:]) == 12
    expected = {"no rows": Cause.SCHEMA, "other columns": Cause.SCHEMA}.get(spoil, Cause.BAD_TAR)
    assert {each.cause for each in found[12:]} == {expected}
    assert [bad.lost for bad in corpus.lost_shards()] == ([] if spoil == "other columns" else [12])


def test_row_groups_are_unpacked_when_wanted_and_kept_by_size(tmp_path, monkeypatch):
    write(tmp_path, PAGES * 4)
    tarred(tmp_path / "images")
    opened = []
    groups = recent_groups(obelics.COLUMNS, budget=1)
    monkeypatch.setattr(obelics, "_read", lambda group: (opened.append(group[2]), groups(group))[1])
    corpus = open_corpus(tmp_path)
    opened.clear()
    assert len(corpus) == 12 and not opened
    corpus[5], corpus[4]
    assert set(opened) == {2}


def test_a_row_group_larger_than_the_limit_is_counted_and_not_unpacked(tmp_path, monkeypatch):
    write(tmp_path, PAGES)
    tarred(tmp_path / "images")
    monkeypatch.setattr("data.readers.parquet.MAX_GROUP", 10)
    assert {each.cause for each in read(open_corpus(tmp_path))} == {Cause.OVERSIZE}


def test_files_that_vanish_are_counted(tmp_path, monkeypatch):
    path = write(tmp_path, PAGES)
    tarred(tmp_path / "images")
    corpus = open_corpus(tmp_path)
    monkeypatch.setattr(obelics, "_read", recent_groups(obelics.COLUMNS))
    path.unlink()
    assert {each.cause for each in read(corpus)} == {Cause.MISSING_SHARD}


def test_missing_images_are_one_clear_message(tmp_path):
    write(tmp_path, PAGES)
    with pytest.raises(CorpusError, match="images is no folder; put the folder of the images there"):
        open_corpus(tmp_path)
    tarred(tmp_path / "images", range(7, 9))
    with pytest.raises(CorpusError, match=r"of 3 image addresses probed, 0\.0% are there .* img2dataset"):
        open_corpus(tmp_path)


def test_an_index_that_is_kept_is_used(tmp_path):
    write(tmp_path / "corpus", PAGES)
    tarred(tmp_path / "corpus" / "images")
    first, second = (open_corpus(tmp_path / "corpus", cache=tmp_path / "cache") for _ in range(2))
    assert first.digest == second.digest and read(first) == read(second)
