"""A corpus with the published number of shards: how long it takes to plan, what a reader holds, how fast it restarts.

    python -m benchmarks.scale FOLDER [--zips 23085] [--tars 10000]

FOLDER gets a few hundred small shards, hard-linked until there are as many as published; it takes about 100 MB and can
be deleted. What is measured is the reader alone: documents of about the length of MMC4's, pictures of one pixel.
"""

import argparse
import io
import json
import os
import resource
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from data.batch import Layout
from data.corpora import open_corpus
from data.images import ImageTransform
from data.loading.held_out import split
from data.loading.loader import Loader
from data.loading.select import Rules
from data.tokenizer import Tokenizer
from experiments.configuration.config import DataConfig
from experiments.configuration.corpora import digests

DISTINCT = 200  # shards that differ; the others are links to them
DOCUMENTS = 40  # in a shard
RESTARTS = 5
MEASURED = 4000  # documents read for a rate


def write_corpora(folder: Path, zips: int, tars: int) -> tuple[Path, Path]:
    """MMC4 zips and LAION tars below `folder`; what is there already stays."""
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, rng.integers(2, 9), np.uint8)).decode() for _ in range(2000)]
    pixel = io.BytesIO()
    Image.new("RGB", (1, 1)).save(pixel, "PNG")
    mmc4, laion = folder / "mmc4", folder / "laion"
    (mmc4 / "images").mkdir(parents=True, exist_ok=True)
    laion.mkdir(exist_ok=True)
    (mmc4 / "images" / "a.png").write_bytes(pixel.getvalue())
    for number in range(zips):
        path = mmc4 / f"docs_shard_{number}_v2.jsonl.zip"
        if number >= DISTINCT:
            _link(mmc4 / f"docs_shard_{number % DISTINCT}_v2.jsonl.zip", path)
        elif not path.exists():
            lines = [json.dumps(_document(rng, words)) for _ in range(DOCUMENTS)]
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr(path.stem, "\n".join(lines) + "\n")
    for number in range(tars):
        path = laion / f"{number:05d}.tar"
        if number >= DISTINCT:
            _link(laion / f"{number % DISTINCT:05d}.tar", path)
        elif not path.exists():
            with tarfile.open(path, "w") as archive:
                for key in range(DOCUMENTS):
                    text = " ".join(rng.choice(words, 12)).encode()
                    for suffix, data in (("png", pixel.getvalue()), ("txt", text)):
                        info = tarfile.TarInfo(f"{key:09d}.{suffix}")
                        info.size = len(data)
                        archive.addfile(info, io.BytesIO(data))
    return mmc4, laion


def _link(source: Path, path: Path) -> None:
    if not path.exists():
        os.link(source, path)


def _document(rng: np.random.Generator, words: Sequence[str]) -> dict[str, object]:
    """About 425 tokens in 20 sentences and up to 5 images, as the average of MMC4."""
    sentences = [" ".join(rng.choice(words, 15)) for _ in range(20)]
    images = int(rng.integers(1, 6))
    matrix = rng.uniform(0.1, 0.35, (images, 20)).round(4).tolist()
    info = [
        {"image_name": "a.png", "matched_text_index": int(np.argmax(row)), "matched_sim": max(row)} for row in matrix
    ]
    return {"text_list": sentences, "image_info": info, "similarity_matrix": matrix, "url": "http://a.invalid"}


def measure(kind: str, folder: Path, cache: Path) -> None:
    """Print planning twice, a steady rate, rates after random restarts, and the memory of this process."""
    imported = _peak()
    for when in ("first", "again"):
        began = time.monotonic()
        digests(DataConfig(vocabulary=1, sim_threshold=0.24, max_images=6, seq_len=8, text_len=8, **{kind: folder}))
        digest_seconds = time.monotonic() - began
        corpus = open_corpus(folder, cache=cache)
        training, _ = split(corpus)
        _loader(training, kind, 0)
        seconds = time.monotonic() - began
        print(f"{kind}: planning, {when}: {seconds:.1f} s (names of runs {digest_seconds:.1f} s)", flush=True)
    print(f"{kind}: {len(corpus):,} entries in {len(corpus.shard_sizes):,} shards; window {corpus.window}")
    steady = _rate(_loader(training, kind, 0), 0)
    steps = _loader(training, kind, 0).steps
    restarts = [
        _rate(_loader(training, kind, 0), int(at), MEASURED // 4)
        for at in np.random.default_rng(1).integers(1, steps // 2, RESTARTS)
    ]
    print(f"{kind}: {steady:.0f} documents/s from the start; after restarts {', '.join(f'{r:.0f}' for r in restarts)}")
    print(
        f"{kind}: peak memory of the reader {_peak() - imported:.0f} MB ({imported:.0f} MB more for torch and the like)"
    )


def _peak() -> float:
    """The most memory this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _loader(corpus: object, kind: str, seed: int) -> Loader:
    pairs = kind == "laion"
    return Loader(
        corpus,  # type: ignore[arg-type]
        Tokenizer.train_bpe([], 256),
        ImageTransform(size=2),
        layouts=(Layout.IMAGE_FIRST,) if pairs else (Layout.INTERLEAVED,),
        patches=4,
        slots=4,
        seq_len=2048,
        images_per_step=64,
        total_images=len(corpus),  # type: ignore[arg-type]
        seed=seed,
        rules=Rules(text_len=80) if pairs else Rules(),
    )


def _rate(loader: Loader, step: int, documents: int = MEASURED) -> float:
    """Documents a second from that step on, as a run continues there: its state holds the position, nothing is read."""
    state = loader.state()
    state["progress"] |= {"step": step, "position": step * 40, "images": step * 64}
    began, read = time.monotonic(), 0
    for batch in islice(loader.batches(state), 10**9):
        read += len(batch.doc_uid)
        if read >= documents:
            break
    return read / (time.monotonic() - began)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--zips", type=int, default=23_085)
    parser.add_argument("--tars", type=int, default=10_000)
    options = parser.parse_args()
    mmc4, laion = write_corpora(options.folder, options.zips, options.tars)
    for kind, corpus in (("mmc4", mmc4), ("laion", laion)):  # each in a process of its own, whose memory is measured
        worker = get_context("spawn").Process(target=measure, args=(kind, corpus, options.folder / "cache"))
        worker.start()
        worker.join()
        if worker.exitcode:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
