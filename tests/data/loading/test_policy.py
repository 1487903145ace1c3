"""What ordinary data costs: not chosen is not broken, what is lost counts at its size, trouble is found beforehand."""

import io
import json
import math
import os
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from data.batch import Layout
from data.corpora import detect, open_corpus
from data.document import Bad, Cause, RawDocument
from data.errors import CorpusError
from data.images import ImageTransform
from data.loading import check
from data.loading.check import check_corpus
from data.loading.loader import Loader
from data.loading.progress import Progress, longest_streak
from data.loading.select import Rules, choose_images, unscored
from data.readers.mmc4_pair import Mmc4Pairs
from data.tokenizer import Tokenizer

BYTES = Tokenizer.train_bpe([], 256)
PAIRS = Rules(text_len=12)


def jpg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "green").save(buffer, "JPEG")
    return buffer.getvalue()


JPG = jpg()


def page(number: int, score: float | None = 0.3, image: str = "a.jpg", **extra) -> dict:
    images = [{"image_name": image, "matched_text_index": 0, "matched_sim": score}]
    return {"text_list": [f"Sentence {number}."], "image_info": images, **extra}


def shard(folder: Path, number: int, lines: list[object], form: str = "docs_shard_{}_v2.jsonl.zip") -> Path:
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "images" / "a.jpg").write_bytes(JPG)
    path = folder / form.format(number)
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    if path.suffix != ".zip":
        path.write_bytes(data)
        return path
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(path.stem, data)
    return path


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def pairs(keys: list[str]) -> dict[str, bytes]:
    return {f"{key}.{suffix}": data for key in keys for suffix, data in (("jpg", JPG), ("txt", b"words"))}


def load(corpus, rules: Rules | None = None, **changed) -> Loader:
    rules = rules or Rules()
    options = {"patches": 4, "slots": 4, "seq_len": 64, "images_per_step": 8, "total_images": 40, "seed": 0} | changed
    layouts = (Layout.IMAGE_FIRST,) if rules.text_len else (Layout.INTERLEAVED,)
    return Loader(corpus, BYTES, ImageTransform(size=4), layouts=layouts, rules=rules, **options)


def run(corpus, rules: Rules | None = None, **changed) -> Loader:
    loader = load(corpus, rules, **changed)
    assert sum(len(batch.images) for batch in loader.batches()) == loader.total_images
    return loader


def looked_at(corpus, rules: Rules | None = None, max_broken: float = 0.5) -> str | None:
    return check_corpus(corpus, corpus.lost_shards(), rules or Rules(), max_broken)


# --- not chosen is not broken


@pytest.mark.parametrize("share", [0.35, 0.9])
def test_documents_below_the_threshold_are_counted_apart_and_never_stop_a_run(tmp_path, share):
    shard(tmp_path, 0, [page(n, 0.2 if n < share * 100 else 0.24) for n in range(100)])
    corpus = open_corpus(tmp_path)
    assert looked_at(corpus) is None
    loader = run(corpus, max_broken=0.0)
    assert loader.coverage["not_chosen"] > 0 == loader.coverage["skipped"]
    assert set(loader.coverage) == {"documents", "images", "not_chosen"}
    assert "the best similarity is 0.200" in loader.state()["progress"]["examples"]["not_chosen"][0]


def test_a_hundred_unwanted_documents_in_a_row_are_no_streak():
    class Corpus:
        name, digest = "web", "web"

        def __len__(self):
            return 500

        def __getitem__(self, index):
            document = RawDocument("web/0/0", ("a",), (), (), ())
            return Bad("web/0/0", Cause.BAD_JSON, "broken") if self.broken else document

    corpus = Corpus()
    corpus.broken = False
    with pytest.raises(CorpusError, match="epoch of 500 documents gave not one.*not_chosen 500.*data.sim_threshold"):
        list(load(corpus).batches())
    corpus = Corpus()
    corpus.broken = True
    with pytest.raises(CorpusError, match="100 consecutive documents are broken"):
        list(load(corpus).batches())


def test_when_no_document_is_wanted_the_advice_is_about_the_threshold(tmp_path):
    shard(tmp_path, 0, [page(n, 0.1) for n in range(30)])
    with pytest.raises(CorpusError, match=r"none is wanted \(not_chosen 30.*data\.sim_threshold"):
        looked_at(open_corpus(tmp_path))


def test_an_image_cut_off_with_the_row_is_not_chosen_and_one_that_is_gone_is_broken(tmp_path):
    long = page(0)
    long["text_list"] = ["x" * 90, "end"]
    long["image_info"][0]["matched_text_index"] = 1
    gone = page(1, image="gone.jpg")
    shard(tmp_path, 0, [long, gone, page(2), page(3)])
    loader = run(open_corpus(tmp_path), total_images=12)
    assert loader.coverage["not_chosen"] > 0 < loader.coverage["no_image_left"] == loader.coverage["missing_image"]
    assert loader.coverage["skipped"] == loader.coverage["no_image_left"]


# --- the limit


@pytest.mark.parametrize("view", ["documents", "pairs"])
def test_a_third_of_dead_links_is_borne_and_the_limit_is_a_setting(tmp_path, view):
    for number in (0, 1):
        lines = [page(n, image="gone.jpg" if n % 20 < 7 + 7 * number else "a.jpg") for n in range(40)]
        shard(tmp_path, number, lines)
    corpus = open_corpus(tmp_path)
    pairs_of = Mmc4Pairs(corpus, lambda raw: choose_images(raw, Rules(), 0))
    read, rules = (corpus, Rules()) if view == "documents" else (pairs_of, PAIRS)
    assert run(read, rules, total_images=80, max_broken=0.55).coverage["skipped"] > 0
    with pytest.raises(CorpusError) as caught:
        run(read, rules, total_images=80, max_broken=0.5)
    said = str(caught.value)
    assert "42 of 80 documents are broken, 52%; the limit is data.max_broken=0.5" in said
    assert "Most is broken in mmc4/docs_shard_1_v2 (28), mmc4/docs_shard_0_v2 (14)" in said
    assert "--set data.max_broken=0.6" in said
    run(read, rules, total_images=80, max_broken=0.6)  # advice that works


def test_the_default_bears_what_downloads_of_today_lack(tmp_path):
    shard(tmp_path, 0, [page(n, image="gone.jpg" if n % 20 < 7 else "a.jpg") for n in range(200)])
    corpus = open_corpus(tmp_path)
    assert "missing_image" in str(looked_at(corpus))
    assert run(corpus, total_images=400).coverage["skipped"] > 100


def test_a_share_that_is_borne_may_come_in_a_row(tmp_path):
    shard(tmp_path, 0, [page(n, image="a.jpg" if n % 100 == 0 else "gone.jpg") for n in range(1200)])
    corpus = open_corpus(tmp_path)
    with pytest.raises(CorpusError, match="100 consecutive documents are broken"):
        run(corpus, total_images=16, max_broken=0.5)
    for borne in (0.995, 1.0):
        assert run(corpus, total_images=16, max_broken=borne).coverage["skipped"] > 1000


@pytest.mark.parametrize(("borne", "row"), [(0.0, 100), (0.5, 100), (0.8, 100), (0.95, 405), (1.0, math.inf)])
def test_the_longest_row_grows_with_what_is_borne(borne, row):
    assert math.isclose(longest_streak(borne), row, abs_tol=1)


def test_a_corpus_of_empty_tars_is_said_to_be_empty(tmp_path):
    (tmp_path / "sizes.json").write_text('{"0.tar": 0}')
    tar(tmp_path / "0.tar", {})
    with pytest.raises(CorpusError, match="is empty: its shards are there and hold nothing"):
        looked_at(open_corpus(tmp_path), PAIRS)


# --- what is lost counts at its size


@pytest.mark.parametrize("how", ["cut", "junk", "empty", "no document", "two"])
def test_a_lost_zip_counts_for_what_it_held(tmp_path, how):
    for number in range(2):
        path = shard(tmp_path, number, [page(n) for n in range(20)])
    match how:
        case "cut":
            os.truncate(path, path.stat().st_size // 2)
        case "junk":
            path.write_bytes(b"<html>502 Bad Gateway</html>")
        case "empty":
            path.write_bytes(b"")
        case "no document":
            shard(tmp_path, 1, [])
        case "two":
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr("other.jsonl", "{}")
    corpus = open_corpus(tmp_path)
    (bad,) = corpus.lost_shards()
    assert bad.lost == 20 and "about 20 documents are lost" in bad.message and "docs_shard_1_v2" in bad.doc_id
    said = looked_at(corpus)
    assert "about 50% of what is wanted is broken" in said and "docs_shard_1_v2" in said
    assert run(corpus, total_images=20).coverage["skipped"] in (0, 20)  # of the first epoch, in which it may come last
    with pytest.raises(CorpusError, match="20 of 40 documents are broken, 50%"):
        run(corpus, total_images=200, max_broken=0.4)
    with pytest.raises(CorpusError, match="about 50%"):
        looked_at(corpus, max_broken=0.4)


def test_what_macos_puts_into_a_zip_is_not_looked_at(tmp_path):
    for number, extra in enumerate(["__MACOSX/._docs_shard_0_v2.jsonl", "._docs_shard_1_v2.jsonl", "__MACOSX/x.jsonl"]):
        path = shard(tmp_path, number, [page(n) for n in range(5)])
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(extra, b"\0\5\26\7\0\2\0\0Mac OS X        ")
    (tmp_path / "._docs_shard_0_v2.jsonl.zip").write_bytes(b"\0\5\26\7")
    corpus = open_corpus(tmp_path)
    assert corpus.shard_sizes == (5, 5, 5) and not corpus.lost_shards()


def test_hidden_tars_are_no_shards(tmp_path):
    tar(tmp_path / "00000.tar", pairs(["a"]))
    (tmp_path / "._00000.tar").write_bytes(b"\0\5\26\7")
    (tmp_path / "__MACOSX").mkdir()
    assert len(open_corpus(tmp_path)) == 1


def test_a_cut_jsonl_counts_the_lines_that_are_gone(tmp_path):
    for number in range(3):
        path = shard(tmp_path, number, [page(n) for n in range(10)], "docs_shard_{}.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:20])
    corpus = open_corpus(tmp_path)
    (bad,) = corpus.lost_shards()
    assert (len(corpus), bad.lost, bad.cause) == (25, 6, Cause.BAD_JSON)
    path.write_bytes(b"".join(lines[:4]) + lines[4][:-1])  # a last line without its end is whole
    assert not open_corpus(tmp_path).lost_shards()


@pytest.mark.parametrize(
    ("beside", "lost"),
    [
        ({}, 7),  # as many as the other shards hold
        ({"00001_stats.json": '{"successes": 9}'}, 6),
        ({"sizes.json": '{"00000.tar": 10, "00001.tar": 8}'}, 5),
        ({"00001_stats.json": "[", "sizes.json": '{"00001.tar": "8"}'}, 7),
        ({"00001_stats.json": '{"successes": 2}'}, 1),
    ],
)
def test_a_cut_tar_counts_for_what_was_in_it(tmp_path, beside, lost):
    tar(tmp_path / "00000.tar", pairs([f"{n:04d}" for n in range(10)]))
    path = tar(tmp_path / "00001.tar", pairs([f"{n:04d}" for n in range(10)]))
    with tarfile.open(path) as archive:
        cut = archive.getmember("0003.txt").offset
    os.truncate(path, cut)
    for name, content in beside.items():
        (tmp_path / name).write_text(content)
    corpus = open_corpus(tmp_path)
    (bad,) = corpus.lost_shards()
    assert (len(corpus), bad.lost, bad.cause) == (14, lost, Cause.BAD_TAR)


def test_a_cut_tar_alone_says_that_nobody_knows(tmp_path):
    path = tar(tmp_path / "0.tar", pairs(["a", "b"]))
    os.truncate(path, 2048)
    (bad,) = open_corpus(tmp_path).lost_shards()
    assert bad.lost == 1 and "nothing says how many it held" in bad.message


def test_a_header_that_became_zeros_is_no_end(tmp_path):
    for number in range(2):
        path = tar(tmp_path / f"{number}.tar", pairs([f"{n:04d}" for n in range(6)]))
    with tarfile.open(path) as archive:
        header = archive.getmember("0002.jpg").offset
    with path.open("r+b") as file:
        file.seek(header)
        file.write(bytes(512))
    (bad,) = open_corpus(tmp_path).lost_shards()
    assert bad.lost == 4


def zeroed(path, share):
    """The tar with everything behind that share of its samples overwritten by zeros, its size as before."""
    size = path.stat().st_size
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    os.truncate(path, members[int(len(members) * share)].offset)
    os.truncate(path, size)
    return path


def declared(folder, number, **said):
    (folder / f"{number:05d}_stats.json").write_text(json.dumps(said))
    return tar(folder / f"{number:05d}.tar", pairs([f"{n:04d}" for n in range(40)]))


def test_tars_whose_tail_or_whole_became_zeros_count_for_what_they_held(tmp_path):
    declared(tmp_path, 0, successes=40)
    zeroed(declared(tmp_path, 1, successes=40), 0.5)
    zeroed(declared(tmp_path, 2, successes=40), 0)
    corpus = open_corpus(tmp_path)
    assert [(bad.cause, bad.lost) for bad in corpus.lost_shards()] == [(Cause.BAD_TAR, 20), (Cause.BAD_TAR, 40)]
    with pytest.raises(CorpusError, match="about 50% of what is wanted is broken"):
        check_corpus(corpus, corpus.lost_shards(), PAIRS, 0.1)


def test_more_zeros_than_any_program_writes_are_no_end(tmp_path):
    path = tar(tmp_path / "0.tar", pairs(["a", "b"]))
    size = path.stat().st_size
    os.truncate(path, size + (1 << 19))  # a large record
    assert len(open_corpus(tmp_path)) == 2 and not open_corpus(tmp_path).lost_shards()
    os.truncate(path, size + (1 << 21))
    assert [bad.cause for bad in open_corpus(tmp_path).lost_shards()] == [Cause.BAD_TAR]


@pytest.mark.parametrize(("said", "lost"), [({"successes": 50}, [50]), ({}, [40]), ({"successes": 0}, [])])
def test_a_tar_without_a_member_is_lost_unless_it_is_said_to_be_empty(tmp_path, said, lost):
    declared(tmp_path, 0)
    declared(tmp_path, 1, **said)
    tar(tmp_path / "00001.tar", {})
    corpus = open_corpus(tmp_path)
    assert [bad.lost for bad in corpus.lost_shards()] == lost and len(corpus) == 40 + len(lost)


def test_a_tar_that_was_filtered_or_names_what_could_not_be_downloaded_is_whole(tmp_path):
    failed = {f"9{n:03d}.json": b"{}" for n in range(10)}
    (tmp_path / "00000_stats.json").write_text('{"successes": 90}')
    tar(tmp_path / "00000.tar", pairs(["a", "b"]))
    (tmp_path / "00001_stats.json").write_text('{"successes": 2}')
    path = tar(tmp_path / "00001.tar", pairs(["a", "b"]) | failed)
    os.truncate(path, path.stat().st_size + 30_000)
    assert not open_corpus(tmp_path).lost_shards()


# --- keys with dots


def test_keys_with_dots_are_counted_and_say_why(tmp_path):
    keys = [f"lens 2.{n} (clean)" if n % 3 == 0 else f"photo{n}" for n in range(9)]
    tar(tmp_path / "some" / "0.tar", pairs(keys))
    tar(tmp_path / "all" / "0.tar", pairs([f"v1.{n}" for n in range(5)]))
    some, every = open_corpus(tmp_path / "some"), open_corpus(tmp_path / "all")
    found = [entry.cause if isinstance(entry, Bad) else "used" for entry in (some[at] for at in range(len(some)))]
    assert found.count("used") == 6 and found.count(Cause.DOT_IN_KEY) == 3
    assert "'lens 2.0 (clean)' holds a dot" in next(some[at].message for at in range(9) if isinstance(some[at], Bad))
    assert "dot_in_key 3" in looked_at(some, PAIRS)
    with pytest.raises(CorpusError, match=r"none can be used \(dot_in_key 5.*rename"):
        looked_at(every, PAIRS)


def test_more_files_of_a_sample_are_no_keys_with_dots(tmp_path):
    members = pairs(["a", "b"]) | {"b.seg.png": JPG, "b.seg.json": b"{}", "c.x.json": b"{}"}
    tar(tmp_path / "0.tar", members)
    assert len(open_corpus(tmp_path)) == 2


def test_a_whole_pair_under_a_longer_name_is_one_more_sample(tmp_path):
    tar(tmp_path / "0.tar", pairs(["photo", "photo.1"]))
    corpus = open_corpus(tmp_path)
    assert len(corpus) == 2 and corpus[1].cause is Cause.DOT_IN_KEY


# --- names


@pytest.mark.parametrize(
    "form",
    [
        "docs_no_face_shard_{}_v2.jsonl.zip",
        "docs_no_face_shard_{}_v3.jsonl",
        "docs_shard_{}_v3.jsonl",
        "docs_shard_{}.jsonl",
    ],
)
def test_the_names_of_the_published_sets_are_read(tmp_path, form):
    for number in (3, 12):
        shard(tmp_path, number, [page(number)], form)
    corpus = open_corpus(tmp_path)
    assert detect(tmp_path) == "mmc4"
    assert [corpus[at].segments for at in range(2)] == [("Sentence 3.",), ("Sentence 12.",)]


@pytest.mark.parametrize("name", ["shard_7.jsonl", "part_7.jsonl.zip", "docs_shard_x.jsonl"])
def test_advice_about_names_is_advice_that_works(tmp_path, name):
    path = shard(tmp_path, 7, [page(0)], "docs_shard_{}" + "".join(Path(name).suffixes))
    right = path.name
    path.rename(tmp_path / name)
    with pytest.raises(CorpusError, match=r"rename them docs_shard_<number>, suffixes kept"):
        open_corpus(tmp_path)
    (tmp_path / name).rename(tmp_path / right)
    assert len(open_corpus(tmp_path)) == 1


# --- the look before


def test_trouble_is_looked_for_in_the_whole_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "LOOKED_AT", 40)
    for number in range(10):
        image = "gone.jpg" if number >= 3 else "a.jpg"
        shard(tmp_path, number, [page(n, image=image) for n in range(30)])
    with pytest.raises(CorpusError, match=r"about 7\d% of what is wanted is broken.*missing_image.*max_broken=0\.\d"):
        looked_at(open_corpus(tmp_path), max_broken=0.3)


def test_scores_are_asked_for_where_a_threshold_is_set_even_when_the_first_shard_has_them(tmp_path):
    shard(tmp_path, 0, [page(n, None) for n in range(9)])
    with pytest.raises(CorpusError, match="data.sim_threshold=none"):
        looked_at(open_corpus(tmp_path))
    assert looked_at(open_corpus(tmp_path), Rules(sim_threshold=None)) is None
    shard(tmp_path, 1, [page(n) for n in range(9)])
    said = looked_at(open_corpus(tmp_path))
    assert "no_score 9" in said and "about 50%" in said


def test_a_single_null_score_late_in_a_shard_costs_its_image_in_both_views(tmp_path):
    lines = [page(n) for n in range(30)]
    lines[27]["image_info"].append({"image_name": "a.jpg", "matched_text_index": 0, "matched_sim": None})
    shard(tmp_path, 0, lines)
    corpus = open_corpus(tmp_path)
    loader = run(corpus, total_images=30)
    assert loader.coverage == {"documents": 30, "images": 30, "no_score": 1}
    run(Mmc4Pairs(corpus, lambda raw: choose_images(raw, Rules(), 0)), PAIRS, total_images=30)


def test_images_without_a_score_are_counted_in_the_view_of_pairs_too(tmp_path):
    shard(tmp_path, 0, [page(n, None if n < 6 else 0.3) for n in range(8)])
    corpus = open_corpus(tmp_path)
    paired = pairs_of(corpus)
    found = [entry.cause for entry in map(paired.__getitem__, range(len(paired))) if isinstance(entry, Bad)]
    assert found == [Cause.NO_SCORE] * 6 and len(paired) == 8
    for view, rules in ((corpus, Rules()), (paired, PAIRS)):
        with pytest.raises(CorpusError, match="6 of 8 documents are broken, 75%"):
            run(view, rules, total_images=80)


def test_lost_documents_count_in_the_view_of_pairs_at_what_others_give(tmp_path):
    three = [{"image_name": "a.jpg", "matched_text_index": at, "matched_sim": 0.3} for at in range(3)]
    for number in range(4):
        lines = [{"text_list": [f"{n}{at}." for at in range(3)], "image_info": three} for n in range(30)]
        path = shard(tmp_path, number, lines)
        if number % 2:
            path.write_bytes(b"junk")
    corpus = open_corpus(tmp_path)
    for view, rules in ((corpus, Rules()), (pairs_of(corpus), PAIRS)):
        with pytest.raises(CorpusError, match=r"\d+ of \d+ documents are broken, 50%") as caught:
            run(view, rules, max_broken=0.4, total_images=400)
    assert "about 90 pairs are lost, as other documents give 3 each" in str(caught.value)


def pairs_of(corpus):
    choose, unjudged = partial(choose_images, rules=Rules(), seed=0), partial(unscored, rules=Rules())
    return Mmc4Pairs(corpus, choose, unjudged=unjudged)


def test_bad_images_are_counted_in_both_views(tmp_path):
    lines = [page(n) for n in range(12)]
    lines[5]["image_info"].append({"image_name": None})
    shard(tmp_path, 0, lines)
    corpus = open_corpus(tmp_path)
    assert run(corpus, total_images=12).coverage["bad_image_entry"] == 1
    paired = Mmc4Pairs(corpus, lambda raw: choose_images(raw, Rules(), 0))
    assert [paired[at].cause for at in range(13) if isinstance(paired[at], Bad)] == [Cause.BAD_IMAGE_ENTRY]


def test_a_look_opens_only_so_many_shards(tmp_path):
    for number in range(10):
        shard(tmp_path, number, [page(number)])
        (tmp_path / "images" / str(number)).mkdir()
        (tmp_path / "images" / str(number) / "a.jpg").write_bytes(JPG)
    corpus = open_corpus(tmp_path, shards=3)
    assert [corpus[at].segments[0] for at in range(len(corpus))] == ["Sentence 0.", "Sentence 3.", "Sentence 6."]


def test_a_state_written_before_lost_shards_had_sizes_is_read():
    old = {"step": 2, "position": 9, "images": 5, "used_in_epoch": 5, "streak": 1, "skipped": [3, 8]}
    progress = Progress.restore(old | {"coverage": {"skipped": 2}, "examples": {}})
    assert (list(progress.skipped), progress.lost) == ([(3, 1), (8, 1)], 2)
    assert Progress.restore(json.loads(json.dumps(progress.plain()))) == progress
