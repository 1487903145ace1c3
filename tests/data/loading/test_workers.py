"""Readers in processes of their own, and ranks: the same documents in the same steps, and nobody left behind."""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from tar_helpers import write_shards
from torch import distributed as dist
from torch import multiprocessing as mp

from data.batch import Batch, Layout
from data.corpora import open_corpus
from data.document import Corpus
from data.errors import CorpusError
from data.files import SpanBytes
from data.images import ImageTransform
from data.loading import entries
from data.loading import loader as loading
from data.loading.loader import Loader
from data.loading.readers import ReaderDied
from data.loading.select import Rules
from data.obelics import SCHEMA
from data.readers import laion
from data.seeds import generator
from data.tokenizer import Tokenizer

ROOT = Path(__file__).parents[3]
BYTES = Tokenizer.train_bpe([], 256)
SOON = 20  # seconds in which a process must be gone, on a busy machine


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(generator("picture", number).integers(0, 255, (12, 10, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 MMC4 documents of one to eight images in two shards; some images are web pages, some are missing."""
    folder, rng = tmp_path_factory.mktemp("pages"), generator("pages")
    (folder / "images").mkdir()
    number = 0
    for shard in range(2):
        lines = []
        for _ in range(30):
            info = []
            for _ in range(int(rng.integers(1, 9))):
                number += 1
                if number % 13 != 5:
                    (folder / "images" / f"{number}.png").write_bytes(picture(number) if number % 11 else b"<html>")
                at = int(rng.integers(0, 4))
                info.append({"image_name": f"{number}.png", "matched_text_index": at, "matched_sim": 0.3})
            lines.append(json.dumps({"text_list": [f"{number} {i}" for i in range(4)], "image_info": info}))
        (folder / f"docs_shard_{shard}_v2.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 pairs in 7 tars."""
    folder = tmp_path_factory.mktemp("pairs")
    write_shards([(f"{i:04d}", {"png": picture(i), "txt": f"plant {i}".encode()}) for i in range(70)], folder, 10)
    return folder


@pytest.fixture(scope="module")
def tarred(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 documents of OBELICS, their pictures in tars."""
    folder, address = tmp_path_factory.mktemp("tarred"), "http://a.invalid/{}.png".format
    rows = [{"images": [None, address(n)], "texts": [f"plant {n}", None]} for n in range(30)]
    parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "train-00000-of-00001.parquet")
    beside = [json.dumps({"url": address(n)}).encode() for n in range(30)]
    write_shards([(f"{n:04d}", {"png": picture(n), "json": beside[n]}) for n in range(30)], folder / "images", 10)
    return folder


def load(corpus: Corpus | Path, **changed: object) -> Loader:
    opened = open_corpus(corpus) if isinstance(corpus, Path) else corpus
    of_pairs = isinstance(opened, laion.LaionCorpus)
    options = {"patches": 4, "slots": 4, "seq_len": 90, "images_per_step": 16, "total_images": 400, "seed": 0}
    options |= {"rules": Rules(text_len=12) if of_pairs else Rules()} | changed
    layouts = (Layout.IMAGE_FIRST,) if of_pairs else (Layout.INTERLEAVED,)
    return Loader(opened, BYTES, ImageTransform(8), layouts=layouts, **options)  # type: ignore[arg-type]


def held(batch: Batch) -> tuple[object, ...]:
    rows = next(iter(batch.rows.values()))
    return batch.doc_uid, batch.doc_seed.tolist(), batch.images.numpy().tobytes(), rows.input_ids.tolist()


def readers_of(process: int) -> list[int]:
    """Process ids of the readers that a process has started and that are alive."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            said = status.read_text().rpartition(")")[2].split()
            if said[0] != "Z" and int(said[1]) == process and b"data.loading.reader" in _command(status):
                found.append(int(status.parent.name))
        except OSError:
            continue  # gone meanwhile
    return found


def _command(status: Path) -> bytes:
    return (status.parent / "cmdline").read_bytes()


def gone(readers: list[int]) -> bool:
    """Whether all of them end soon."""
    until = time.monotonic() + SOON
    while alive := [each for each in readers if _alive(each)]:
        if time.monotonic() > until:
            return not alive
        time.sleep(0.05)
    return True


def _alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- the same samples ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("corpus", "workers"),
    [("pages", 3), ("pairs", 2), *(pytest.param(name, 1, marks=pytest.mark.slow) for name in ("pages", "pairs"))],
)
def test_any_number_of_readers_gives_the_same_batches_and_counts(
    corpus: str, workers: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = request.getfixturevalue(corpus)
    if corpus == "pairs":  # in windows, as a corpus of real size is
        monkeypatch.setattr(laion, "window_of", lambda entries, shards: 3)
    whole = load(folder)
    expected = [held(batch) for batch in whole.batches()]
    loader = load(folder, workers=workers)
    assert [held(batch) for batch in loader.batches()] == expected
    assert (loader.coverage, loader.state()) == (whole.coverage, whole.state())
    assert not readers_of(os.getpid())


@pytest.mark.parametrize("cached", [False, True])
def test_readers_find_the_pictures_of_obelics_in_tars(tarred: Path, tmp_path: Path, cached: bool) -> None:
    def batches(workers: int) -> list[tuple[object, ...]]:
        corpus = open_corpus(tarred, cache=tmp_path if cached else None)
        loader = load(corpus, rules=Rules(sim_threshold=None), total_images=60, workers=workers)
        return [held(batch) for batch in loader.batches()]

    assert batches(1) == batches(0)


def test_readers_get_an_index_that_is_kept_by_the_name_of_its_files(tarred: Path, tmp_path: Path) -> None:
    place = open_corpus(tarred, cache=tmp_path).place  # type: ignore[union-attr]
    sent = bytes(ForkingPickler.dumps(place))
    assert sent.count(b"order-") == 2 and len(sent) < 4000
    assert isinstance(ForkingPickler.loads(sent).locate("http://a.invalid/7.png"), SpanBytes)


def resumed(folder: Path, steps: list[int], workers: list[int]) -> None:
    """Stop after each of those steps, while readers are ahead, and continue with so many: equal to one run."""
    whole = load(folder)
    expected = [held(batch) for batch in whole.batches()]
    run: list[object] = []
    saved: object = 0
    for step, count in zip([*steps, len(expected)], [*workers, 0], strict=True):
        loader = load(folder, workers=count)
        batches = loader.batches(saved)
        run += [held(batch) for batch in itertools.islice(batches, step - len(run))]
        saved = json.loads(json.dumps(loader.state()))
        batches.close()  # type: ignore[attr-defined]
    assert run == expected
    assert loader.coverage == whole.coverage


def test_a_run_stopped_and_continued_by_other_readers_equals_one_that_was_not(pages: Path) -> None:
    resumed(pages, [3, 17], [2, 0])


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_run_continues_at_20_random_steps(pages: Path, workers: int) -> None:
    steps = sorted(generator("stops", workers).choice(load(pages).steps, 20, replace=False).tolist())
    resumed(pages, steps, [workers] * 20)


# Reads 10,000 pairs in windows, and prints by how many MB the process grew after the first 500.
FLAT = """
import sys
from pathlib import Path
import torch
from data.batch import Layout
from data.corpora import open_corpus
from data.images import ImageTransform
from data.loading.loader import Loader
from data.loading.select import Rules
from data.obelics import SCHEMA
from data.readers import laion
from data.tokenizer import Tokenizer

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

torch.set_num_threads(1)
laion.window_of = lambda entries, shards: 3  # as a corpus of real size is read
loader = Loader(
    open_corpus(Path(sys.argv[1])), Tokenizer.train_bpe([], 256), ImageTransform(8), layouts=(Layout.IMAGE_FIRST,),
    patches=4, slots=4, seq_len=90, images_per_step=50, total_images=10_000, seed=0, rules=Rules(text_len=12),
)
for step, _ in enumerate(loader.batches()):
    if step == 10:
        began = held()
print(held() - began)
"""


@pytest.mark.slow
def test_memory_stays_flat_over_10_000_samples(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (128, 128)).save(out, "JPEG")
    sample = {"jpg": out.getvalue(), "txt": b"a plant"}  # 48 kB decoded: the pictures of an epoch would take 50 MB
    write_shards([(f"{number:05d}", sample) for number in range(1000)], tmp_path, 50)
    program = [sys.executable, "-c", FLAT, str(tmp_path)]
    done = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 10


def test_a_shard_is_read_by_one_reader_and_a_window_by_all(monkeypatch: pytest.MonkeyPatch, pairs: Path) -> None:
    monkeypatch.setattr(laion, "window_of", lambda entries, shards: 3)
    order = load(pairs)._order
    homes: dict[int, set[int]] = {}
    for at in range(70):
        homes.setdefault(order.index(0, at) // 10, set()).add(order.home(0, at) % 3)
    assert all(len(each) == 1 for each in homes.values())
    assert {order.home(0, at) % 3 for at in range(30)} == {0, 1, 2}


def test_how_jpegs_are_decoded_belongs_to_a_run(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.fromarray(generator("jpeg").integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(out, "JPEG")
    write_shards([(f"{i:04d}", {"jpg": out.getvalue(), "txt": b"a"}) for i in range(20)], tmp_path)
    runs = [load(tmp_path, jpeg=jpeg, total_images=16) for jpeg in ("full", "scaled")]
    full, scaled = (next(run.batches()).images for run in runs)
    assert 0 < (full - scaled).abs().mean() < 1
    for run, other in itertools.permutations(runs):
        with pytest.raises(ValueError, match="jpeg"):
            run.batches(other.state())


# -- ranks --------------------------------------------------------------------------------------------------------


def rank_of_two(rank: int, folder: str, pages: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    loader = load(Path(pages))
    steps = [[batch.doc_uid, batch.images] for batch in loader.batches()]
    tight = load(Path(pages), images_per_step=6, total_images=60)
    try:
        refused = str(len(list(tight.batches())))
    except ValueError as error:
        refused = str(error)
    torch.save([steps, dict(loader.coverage), loader.state()["progress"], refused], f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_see_exactly_the_documents_of_one_in_each_step(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    mp.start_processes(rank_of_two, (str(tmp_path), str(pages)), nprocs=2, start_method="fork")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    whole = load(pages)
    alone = list(whole.batches())
    assert len(first[0]) == len(second[0]) == len(alone) == whole.steps
    for batch, (uids, images), (more, others) in zip(alone, first[0], second[0], strict=True):
        assert set(uids).isdisjoint(more) and sorted([*uids, *more]) == sorted(batch.doc_uid)
        assert list(uids) == [uid for uid in batch.doc_uid if uid in uids]  # in the order of the step
        together = sorted(image.numpy().tobytes() for image in (*images, *others))
        assert together == sorted(image.numpy().tobytes() for image in batch.images)
    assert first[1] == second[1] == dict(whole.coverage) and first[1]["missing_image"]
    assert first[2] == second[2] == whole.state()["progress"]
    assert first[3] == second[3] and "1 of 2 ranks would get none of them; use fewer ranks or more than 6" in first[3]


@pytest.mark.parametrize("count", [4, 8])
def test_more_ranks_share_the_same_steps(pages: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks as threads, which tell one another what `told_by_all` is given."""
    me, told, barrier = threading.local(), [None] * count, threading.Barrier(count, timeout=SOON)

    def told_by_all(value: object) -> list[object]:
        told[me.rank] = value
        barrier.wait()
        heard = list(told)
        barrier.wait()  # nobody writes before all have read
        return heard

    def shares(rank: int) -> tuple[list[tuple[str, ...]], Counter[str]]:
        me.rank = rank
        loader = load(pages, images_per_step=160, total_images=480)
        return [batch.doc_uid for batch in loader.batches()], loader.coverage

    whole = load(pages, images_per_step=160, total_images=480)
    alone = [sorted(batch.doc_uid) for batch in whole.batches()]
    for module in (entries, loading):
        monkeypatch.setattr(module, "rank", lambda: (me.rank, count))
    monkeypatch.setattr(entries, "told_by_all", told_by_all)
    with ThreadPoolExecutor(count) as pool:
        found = list(pool.map(shares, range(count)))
    assert [
        sorted(uid for held in step for uid in held) for step in zip(*(steps for steps, _ in found), strict=True)
    ] == alone
    assert all(coverage == whole.coverage for _, coverage in found)


# -- the end of readers -------------------------------------------------------------------------------------------


def test_readers_end_with_whoever_reads_them(pages: Path) -> None:
    batches = load(pages, workers=2).batches()
    next(batches)
    assert len(readers := readers_of(os.getpid())) == 2
    with pytest.raises(ZeroDivisionError):
        for _ in batches:
            1 / 0  # noqa: B018
    del batches
    assert gone(readers)


def test_a_reader_that_dies_is_one_message(pages: Path) -> None:
    batches = load(pages, workers=1).batches()
    next(batches)
    (reader,) = readers_of(os.getpid())
    os.kill(reader, signal.SIGKILL)
    with pytest.raises(ReaderDied, match=rf"^reader 1 of 1 of corpus 'mmc4' \(process {reader}\) was ended by SIGKILL"):
        list(batches)


def test_what_a_reader_cannot_do_is_raised_at_its_place_as_without_readers(pages: Path) -> None:
    said = []
    for workers in (0, 1):
        with pytest.raises(CorpusError, match="says pairs") as caught:
            list(load(pages, rules=Rules(text_len=12), workers=workers).batches())
        said.append(str(caught.value))
    assert said[0] == said[1]


class Faulty:
    """A corpus with a mistake in it; picklable, as those of the suite are."""

    name = digest = "faulty"

    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> object:
        raise KeyError("a mistake")


def test_a_mistake_in_a_corpus_is_told_with_the_place_it_was_made_at() -> None:
    with pytest.raises(RuntimeError, match="KeyError: 'a mistake'") as caught:
        next(load(Faulty(), workers=1).batches())  # type: ignore[arg-type]
    assert "__getitem__" in caught.value.__notes__[0]


PARENT = """
    import os, signal, sys, time
    from pathlib import Path
    from test_workers import load, readers_of
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever started the tests may ignore it
    batches = load(Path(sys.argv[1]), workers=2, total_images=10**6).batches()
    next(batches)
    print(*readers_of(os.getpid()), flush=True)
    for batch in batches:
        time.sleep(0.05)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_reader_outlives_a_parent_that_was_killed_or_interrupted(pages: Path, how: signal.Signals) -> None:
    with Parent(pages) as (process, readers):
        assert len(readers) == 2
        os.killpg(process.pid, how)  # as a terminal does with Ctrl-C
        process.wait(SOON)
        assert gone(readers)


def test_readers_leave_signals_to_their_parent(pages: Path) -> None:
    batches = load(pages, workers=1).batches()
    next(batches)
    (reader,) = readers_of(os.getpid())
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2):
        os.kill(reader, number)
    assert len(list(batches)) == 24


class Parent:
    """A process that reads with two readers, and their process ids."""

    def __init__(self, pages: Path) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)])
        self.process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(PARENT), str(pages)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )

    def __enter__(self) -> "tuple[subprocess.Popen[bytes], list[int]]":
        assert self.process.stdout is not None
        return self.process, [int(each) for each in self.process.stdout.readline().split()]

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]


# -- what cannot work ---------------------------------------------------------------------------------------------


def test_more_readers_than_shards_read_together_are_refused_with_what_would_do(
    pairs: Path, pages: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="workers is -1"):
        load(pages, workers=-1)
    with pytest.raises(
        ValueError, match=r"workers=99 on 1 ranks makes 99 readers.*work for 60; set data\.workers to at most 60"
    ):
        load(pages, workers=99)
    monkeypatch.setattr(laion, "window_of", lambda entries, shards: 3)
    load(pairs, workers=3)
    with pytest.raises(
        ValueError, match=r"windows of 3 shards, each.*, which is work for 3; set data\.workers to at most 3"
    ):
        load(pairs, workers=4)
