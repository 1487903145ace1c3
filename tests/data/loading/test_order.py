"""Orders: every entry once an epoch, shards opened once, nothing to remember but a position."""

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import Layout
from data.corpora import open_corpus
from data.document import Bad, Cause, RawDocument
from data.images import ImageTransform
from data.loading.held_out import Subset, split
from data.loading.loader import Loader
from data.loading.order import Shuffled, Windows, order_of
from data.loading.select import Rules, choose_images
from data.readers import mmc4, zips
from data.readers.index import LARGEST_SHUFFLED, WIDEST, window_of
from data.readers.mmc4_pair import Mmc4Pairs
from data.tokenizer import Tokenizer

BYTES = Tokenizer.train_bpe([], 256)
PIXEL = (
    b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00\x00\x00"
    b"\x0cIDATx\x9cc\xf8\xcf\xc0\x00\x00\x03\x01\x01\x00\xc9\xfe\x92\xef\x00\x00\x00\x00IEND\xaeB`\x82"
)


class Sharded:
    """A corpus of which only the sizes count."""

    name, digest = "web", "web"

    def __init__(self, sizes, window=None):
        self.shard_sizes, self.window = tuple(sizes), window

    def __len__(self):
        return sum(self.shard_sizes)

    def __getitem__(self, index):
        return Bad(f"web/0/{index}", Cause.SCHEMA, "")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(1, 40), st.integers(0, 9), st.integers(0, 3))
def test_windows_give_every_entry_once_and_open_every_shard_once(sizes, window, seed, epoch):
    order = Windows(sizes, window, seed)
    read = [order.index(epoch, at) for at in range(sum(sizes))]
    assert sorted(read) == list(range(sum(sizes)))
    shards = np.repeat(np.arange(len(sizes)), sizes)[read]
    first, last = ({s: at for at, s in each} for each in (list(enumerate(shards))[::-1], list(enumerate(shards))))
    for at in range(len(read)):
        open_now = [s for s in first if first[s] <= at <= last[s]]
        assert len(open_now) <= window


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=3, max_size=9), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_a_position_alone_says_what_is_read_there(sizes, jumps):
    if not sum(sizes):
        return
    steady = Windows(sizes, 2, 0)
    expected = {(epoch, at): steady.index(epoch, at) for epoch in range(3) for at in range(sum(sizes))}
    jumping = Windows(sizes, 2, 0)
    for jump in jumps:
        epoch, at = divmod(jump % (3 * sum(sizes)), sum(sizes))
        assert jumping.index(epoch, at) == expected[epoch, at]


def test_orders_of_epochs_and_seeds_differ():
    reads = {(seed, epoch): [Windows([50] * 40, 4, seed).index(epoch, at) for at in range(2000)] for seed, epoch in
             ((0, 0), (0, 1), (1, 0))}  # fmt: skip
    for other in ((0, 1), (1, 0)):
        assert np.mean(np.array(reads[0, 0]) == np.array(reads[other])) < 0.01


def test_small_corpora_are_permuted_whole_and_large_ones_never():
    assert isinstance(order_of(Sharded([10] * 10), 0), Shuffled)
    assert isinstance(order_of(Sharded([10] * 10, 3), 0), Windows)
    assert window_of(LARGEST_SHUFFLED, 100) is None and window_of(LARGEST_SHUFFLED + 1, 100) == WIDEST
    assert window_of(1000, 100, unpacked=10_000, budget=10_000) is None
    assert window_of(1000, 100, unpacked=20_000, budget=1000) == 5
    assert window_of(10, 2, unpacked=20_000, budget=1000) == 1


def test_a_view_of_a_corpus_lies_in_its_shards():
    corpus = Sharded([40, 0, 30, 50], 2)
    training, held = split(corpus)
    entries = [int(training[at].doc_id.rpartition("/")[2]) for at in range(len(training))]
    out = [int(held[at].doc_id.rpartition("/")[2]) for at in range(len(held))]
    assert sorted(entries + out) == list(range(120)) and entries == sorted(entries)
    ends = np.cumsum(corpus.shard_sizes)
    lies = np.bincount(np.searchsorted(ends, entries, side="right"), minlength=4)
    assert training.shard_sizes == tuple(lies) and training.window == 2
    assert training.digest == Subset(corpus, np.array(entries)).digest


class Pages(Sharded):
    def __getitem__(self, index):
        number = index % 3
        anchors = (0,) * number
        return RawDocument(f"web/0/{index}", ("a",), tuple([None] * number), anchors, (None,) * number)


def test_pairs_lie_in_the_shards_of_their_documents_and_are_found_once(tmp_path, monkeypatch):
    corpus = Pages([4, 5, 0, 3], 2)
    pairs = Mmc4Pairs(corpus, lambda raw: range(len(raw.images)), saved=tmp_path / "cache" / "pairs.npy")
    assert pairs.shard_sizes == (3, 6, 0, 3) and pairs.window == 2
    monkeypatch.setattr(Pages, "__getitem__", lambda self, index: pytest.fail("documents were read again"))
    again = Mmc4Pairs(corpus, lambda raw: range(len(raw.images)), saved=tmp_path / "cache" / "pairs.npy")
    assert (again.digest, again.document.tolist()) == (pairs.digest, pairs.document.tolist())


# --- a corpus of zips that do not fit


def zipped(folder: Path, shards: int, documents: int) -> None:
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(PIXEL)
    for number in range(shards):
        lines = [
            {"text_list": [f"{number} {k} " + "word " * 40],
             "image_info": [{"image_name": "a.png", "matched_text_index": 0, "matched_sim": 0.3}]}
            for k in range(documents)
        ]  # fmt: skip
        with zipfile.ZipFile(folder / f"docs_shard_{number}_v2.jsonl.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"docs_shard_{number}_v2.jsonl", "".join(json.dumps(each) + "\n" for each in lines))


@pytest.fixture
def large(tmp_path, monkeypatch):
    """20 zips, of which 3 fit into what may be unpacked; counts how often one is opened."""
    zipped(tmp_path / "corpus", 20, 12)
    with zipfile.ZipFile(tmp_path / "corpus" / "docs_shard_0_v2.jsonl.zip") as archive:
        size = archive.infolist()[0].file_size
    monkeypatch.setattr(mmc4, "UNPACKED_BYTES", 3 * size + 99)
    monkeypatch.setattr(mmc4, "unzip", zips.recent_zips(3 * size + 99))
    opened: list[str] = []
    read = zips.read_zip
    monkeypatch.setattr(zips, "read_zip", lambda path: (opened.append(path.name), read(path))[1])
    return tmp_path / "corpus", opened


def loader(corpus, rules=None, **changed) -> Loader:
    options = {"patches": 4, "slots": 4, "seq_len": 300, "images_per_step": 8, "total_images": 456, "seed": 3} | changed
    layouts = (Layout.INTERLEAVED,) if rules is None else (Layout.IMAGE_FIRST,)
    return Loader(corpus, BYTES, ImageTransform(size=2), layouts=layouts, rules=rules or Rules(), **options)


@pytest.mark.parametrize("view", ["documents", "pairs"])
def test_zips_that_do_not_fit_are_opened_once_an_epoch(large, view):
    folder, opened = large
    corpus = open_corpus(folder)
    assert corpus.window == 3
    rules = None
    if view == "pairs":
        corpus, rules = Mmc4Pairs(corpus, lambda raw: choose_images(raw, Rules(), 0)), Rules(text_len=20)
    training, _ = split(corpus)
    opened.clear()
    run = loader(training, rules)
    uids = [uid for batch in run.batches() for uid in batch.doc_uid]
    assert len(training) == 228 and len(set(uids)) == 228 and len(uids) == 456
    assert len(opened) == 40


def test_a_run_over_zips_resumes_at_any_step(large):
    folder, _ = large
    training, _ = split(open_corpus(folder))
    whole = [batch.doc_uid for batch in loader(training).batches()]
    run = loader(training)
    for step, _ in enumerate(run.batches(), 1):
        saved = json.loads(json.dumps(run.state()))
        if step in (1, 13, 29, 56):
            assert [batch.doc_uid for batch in loader(training).batches(saved)] == whole[step:]
    assert saved["of"]["order"] == "windows of 3 shards"


def test_a_state_of_another_order_is_refused(large, monkeypatch):
    folder, _ = large
    run = loader(split(open_corpus(folder))[0])
    next(run.batches())
    monkeypatch.setattr(mmc4, "UNPACKED_BYTES", 10**9)
    with pytest.raises(ValueError, match="of another run"):
        loader(split(open_corpus(folder))[0]).batches(run.state())
