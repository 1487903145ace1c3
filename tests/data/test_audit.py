"""The audit counts what a run would find, and says where; every number is checked against one counted by hand."""

import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from tar_helpers import write_shards

from data.audit.__main__ import main
from data.audit.survey import Pictures, fingerprint, packed, survey
from data.audit.windows import Windows
from data.batch import Layout
from data.corpora import open_corpus
from data.errors import CorpusError
from data.images import ImageTransform
from data.loading.loader import Loader
from data.loading.select import Rules
from data.loading.windows import Filling
from data.obelics import SCHEMA
from data.tokenizer import Tokenizer


def photo(seed: int, size: int = 64) -> Image.Image:
    grey = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(grey).resize((size, size), Image.Resampling.BICUBIC)


def encoded(picture: Image.Image, form: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def page(names: list[str], scores: list[float], text: str = "One sentence here.") -> dict:
    images = [
        {"image_name": name, "matched_text_index": at, "matched_sim": score}
        for at, (name, score) in enumerate(zip(names, scores, strict=True))
    ]
    return {"text_list": [f"{text} {at}" for at in range(max(1, len(names)))], "image_info": images}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    (folder / "images").mkdir(parents=True)
    for seed in range(4):
        (folder / "images" / f"{seed}.png").write_bytes(encoded(photo(seed)))
    (folder / "images" / "copy.png").write_bytes(encoded(photo(0)))
    (folder / "images" / "html.png").write_bytes(b"<html>")
    pages = [
        page(["0.png", "1.png"], [0.3, 0.1], "The first"),
        page(["copy.png"], [0.3], "The second"),
        page(["2.png", "html.png"], [0.3, 0.3], "The third"),
        page(["3.png"], [0.2], "Not chosen"),
        page(["gone.png"], [0.3], "Broken"),
        page(["3.png"], [0.3], "The second"),
    ]
    for number in range(2):
        lines = [json.dumps(each) for each in pages[3 * number : 3 * number + 3]]
        (folder / f"docs_shard_{number}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "docs_shard_2.jsonl").write_bytes(b"")
    return folder


def audit(tmp_path: Path, *arguments: object) -> dict:
    assert main([*map(str, arguments), "--json", str(tmp_path / "a.json")]) == 0
    return json.loads((tmp_path / "a.json").read_text())


def test_every_count_is_that_of_the_corpus(corpus, tmp_path, capsys):
    evaluation = tmp_path / "coco"
    evaluation.mkdir()
    (evaluation / "twin.jpg").write_bytes(encoded(photo(2, 200), "JPEG", quality=80))  # another size, another format
    (evaluation / "other.jpg").write_bytes(encoded(photo(9), "JPEG"))
    picture = tmp_path / "a.png"
    said = audit(tmp_path, corpus, "--against", f"coco={evaluation}", "--picture", picture, "--images-per-step", 3)
    assert said["documents"] == {
        "looked_at": 9,  # six documents, and three that the lost shard held
        "used": 4,
        "not_chosen": 1,
        "broken": 4,
        "broken_share_of_wanted": 0.5,
        "same_text_as_one_before": 1,
    }
    assert said["images"] == {"named": 8, "used": 4, "exact_duplicates": 1}
    counts = {cause: each["count"] for cause, each in said["causes"].items()}
    assert counts == {"decode_error": 1, "missing_image": 1, "no_image_left": 1, "not_chosen": 1, "schema": 3}
    assert said["worst_shards"] == {"mmc4/docs_shard_2": 3, "mmc4/docs_shard_1": 1}
    assert said["evaluation_overlap"] == {"coco": ["mmc4/docs_shard_0/2 2.png: twin.jpg"]}
    assert said["evaluation_sets"] == {"coco": {"looked_for": 2, "not_looked_for": 0}}
    assert said["steps_of_an_epoch"] == 2 and said["per_document"]["images"]["mean"] == 1.0
    page = capsys.readouterr().out
    assert "most is broken in mmc4/docs_shard_2 (3)" in page and "50.0% of the wanted" in page
    with Image.open(picture) as drawn:
        colours = {colour for _, colour in drawn.convert("RGB").getcolors(1 << 20)}
    assert {(59, 125, 216), (216, 116, 59)} <= colours  # bars of what is used and of what is broken


def test_pairs_are_audited_too_and_shards_can_be_a_few(tmp_path):
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(4):
        with tarfile.open(folder / f"{number}.tar", "w") as archive:
            for key in range(3):
                for suffix, data in (("png", encoded(photo(3 * number + key))), ("txt", b"a few words")):
                    info = tarfile.TarInfo(f"{key}.{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))
    assert audit(tmp_path, folder)["documents"]["used"] == 12
    padding = audit(tmp_path, folder, "--patches", 4, "--text-len", 12)["not_padding"]
    said = audit(tmp_path, folder, "--patches", 4, "--text-len", 52)  # a pair's row is as long as its caption may be
    assert padding["one_document_a_row"] == pytest.approx(3 * said["not_padding"]["one_document_a_row"], rel=1e-3)
    said = audit(tmp_path, folder, "--shards", 2)
    assert said["documents"]["used"] == said["images"]["used"] == 6
    assert said["documents"]["same_text_as_one_before"] == 5


def test_lost_shards_alone_make_a_report_too(tmp_path, capsys):
    (tmp_path / "0.tar").write_bytes(b"<html>")
    assert main([str(tmp_path), "--picture", str(tmp_path / "a.png")]) == 0
    assert "broken                  1  100.0% of the wanted" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments", [["nowhere"], [".", "--shards", "0"], [".", "--sim-threshold", "high"], [".", "--against", "coco"]]
)
def test_what_cannot_be_audited_is_said_and_is_exit_2(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2 and capsys.readouterr().err


def test_a_picture_is_found_again_after_scaling_and_compression_and_no_other_is(tmp_path):
    for seed in range(30):
        (tmp_path / f"{seed}.jpg").write_bytes(encoded(photo(seed, 150), "JPEG", quality=85))
    (tmp_path / "white.png").write_bytes(encoded(Image.new("RGB", (9, 9), "white")))
    (tmp_path / "broken.png").write_bytes(b"<html>")
    (tmp_path / "nowhere.png").symlink_to("gone.png")
    known = Pictures(tmp_path)
    assert [known.twin(photo(seed, 64)) for seed in range(30)] == [f"{seed}.jpg" for seed in range(30)]
    assert [known.twin(photo(seed, 64)) for seed in range(100, 400)] == [None] * 300
    assert known.twin(Image.new("RGB", (50, 50), "white")) is None
    assert (len(known), known.blind) == (30, 3)


def test_drawings_on_white_are_told_apart_by_their_colours(tmp_path):
    """Of a small thing on white only the bits at its edge are set, wherever its shape and colours differ."""
    for name, colour in (("red", (255, 40, 0)), ("blue", (0, 40, 255))):
        drawing = Image.new("RGB", (160, 160), "white")
        drawing.paste(colour, (60, 60, 100, 100))
        drawing.save(tmp_path / f"{name}.png")
    with Image.open(tmp_path / "red.png") as red, Image.open(tmp_path / "blue.png") as blue:
        assert fingerprint(red) == fingerprint(blue)
        (tmp_path / "blue.png").unlink()
        known = Pictures(tmp_path)
        assert known.twin(red.resize((90, 90))) == "red.png" and known.twin(blue) is None


def test_packing_lays_rows_one_after_the_other():
    assert packed([6, 4, 10], 10) == 1.0
    assert packed([6, 6, 6], 10) == pytest.approx(18 / 30)
    assert packed([], 10) == 0.0


def test_a_cut_shard_counts_for_what_it_held_in_the_audit(corpus, tmp_path):
    path = corpus / "docs_shard_1.jsonl"
    os.truncate(path, path.stat().st_size // 2)
    assert audit(tmp_path, corpus)["documents"]["looked_at"] == 9


@pytest.fixture
def obelics(tmp_path: Path) -> Path:
    """30 equal pages of two images, so that windows do not depend on the order in which a run reads them."""
    folder = tmp_path / "obelics"
    url, other = "http://a.invalid/0.png", "http://a.invalid/gone.png"
    row = {"images": [None, url, None, other, url], "texts": ["A boat with oars." * 3, None, "A sail.", None, None]}
    parquet.write_table(pa.Table.from_pylist([row] * 30, SCHEMA), _made(folder) / "train-00000-of-00001.parquet")
    (_made(folder / "images") / hashlib.sha1(url.encode()).hexdigest()).write_bytes(encoded(photo(0)))
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_windows_of_an_audit_are_those_of_a_run(obelics):
    corpus, tokenizer, rules = open_corpus(obelics), Tokenizer.train_bpe([], 256), Rules(sim_threshold=None)
    lengths = {"patches": 4, "seq_len": 48}
    windows = Windows(**lengths, images_per_step=9)
    survey(corpus, range(len(corpus)), rules, tokenizer, **lengths, windows=windows, against={})
    layouts, budget = (Layout.INTERLEAVED,), {"images_per_step": 9, "total_images": 60, "seed": 0}
    loader = Loader(
        corpus, tokenizer, ImageTransform(8), layouts=layouts, slots=4, **lengths, **budget, rules=rules,
        filling=Filling.WINDOWS,
    )  # fmt: skip
    tokens, images, documents = [], [], []
    for batch in loader.batches():
        rows = batch[Layout.INTERLEAVED]
        tokens += rows.attn_mask.sum(1).tolist()
        images += rows.img_row.bincount(minlength=len(rows.input_ids)).tolist()
        documents += (rows.doc_id.amax(1) + 1).tolist()
    assert (windows.tokens, windows.images, windows.documents) == (tokens, images, documents)
    assert len(tokens) > 30 and 0 in images


def test_documents_and_windows_of_obelics_are_both_named(obelics, tmp_path, capsys):
    said = audit(tmp_path, obelics, "--seq-len", 48, "--patches", 4, "--picture", tmp_path / "a.png")
    assert said["documents"]["used"] == 30 and said["images"] == {"named": 90, "used": 60, "exact_duplicates": 59}
    windows, page = said["windows"], capsys.readouterr().out
    assert set(said["per_document"]) == {"images", "text_tokens"} and windows["count"] > 20
    assert said["not_padding"]["one_document_a_row"] is None and 0.5 < said["not_padding"]["windows"] < 1
    assert f"windows {windows['count']:>19,}  rows of a run; {windows['without_image']} hold no image" in page
    assert "a window (median" in page and "of a window" in page


def test_rows_too_short_for_an_image_are_refused(obelics, capsys):
    assert main([str(obelics), "--seq-len", "100"]) == 2
    assert "--patches 196 with its markers needs 200 tokens, and a row has --seq-len 100" in capsys.readouterr().err


def test_a_threshold_of_similarities_is_refused_where_there_are_none(obelics, capsys):
    assert main([str(obelics), "--sim-threshold", "0.3"]) == 2
    said = capsys.readouterr().err
    assert "--sim-threshold is for MMC4" in said and "in the form of obelics" in said


@pytest.mark.parametrize("option", ["--seq-len", "--max-images", "--sim-threshold"])
def test_what_says_nothing_of_pairs_is_refused(tmp_path, capsys, option):
    write_shards([("0", {"png": encoded(photo(0)), "txt": b"a"})], tmp_path)
    assert main([str(tmp_path), option, "1"]) == 2
    assert f"{option} is for " in (said := capsys.readouterr().err) and "in the form of laion; leave it out" in said


def test_the_length_of_captions_is_refused_where_there_are_none(corpus, obelics, capsys):
    for folder in (corpus, obelics):
        assert main([str(folder), "--text-len", "12"]) == 2
        assert "--text-len is for pairs" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [["--json", "nofolder/x.json"], ["--picture", "."], ["--sim-threshold", "nan"], ["--sim-threshold", "inf"]],
)
def test_what_cannot_be_written_or_compared_is_refused_before_anything_is_read(option, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["gone", *option])
    assert caught.value.code == 2 and f"argument {option[0]}: {option[1]!r} is no" in capsys.readouterr().err


def test_where_rows_are_windows_no_length_of_a_row_is_named(obelics, tmp_path):
    for path in (obelics / "images").iterdir():
        path.write_bytes(b"<html>")
    said = audit(tmp_path, obelics, "--seq-len", 48, "--patches", 4)
    assert said["causes"]["no_image_left"]["examples"][0].endswith("/0: no image; 3 could not be used")
    rules = Rules(sim_threshold=None)
    loader = Loader(
        open_corpus(obelics), Tokenizer.train_bpe([], 256), ImageTransform(8), layouts=(Layout.INTERLEAVED,), patches=4,
        slots=4, seq_len=48, images_per_step=9, total_images=60, seed=0, rules=rules, filling=Filling.WINDOWS,
    )  # fmt: skip
    with pytest.raises(CorpusError, match=r"as \S+: no image; 3 could not be decoded"):
        list(loader.batches())
