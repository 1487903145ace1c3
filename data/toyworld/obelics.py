"""The embedded corpus as OBELICS: pages like those of its MMC4, in parquet, their pictures in img2dataset's tars.

Pages of a crawl of their own, from the same rules as the MMC4 part's and as many. Pictures stand where the page shows
them, right before or right after the sentence about them, and nothing says how similar they are. Written only where a
table asks for it, into the folder of the corpus it belongs to.
"""

import json
import os
import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from filelock import FileLock
from pyarrow import parquet
from tqdm import tqdm

from data.seeds import generator
from data.toyworld.language import Page, sample_page
from data.toyworld.patterns import PLAIN, render
from data.toyworld.spec import ToyworldSpec
from data.toyworld.write import add_member, encoded

SCHEMA = pa.schema(
    [
        ("images", pa.list_(pa.string())),
        ("texts", pa.list_(pa.string())),
        ("metadata", pa.string()),
        ("general_metadata", pa.string()),
    ]
)
ROWS_PER_GROUP = 500


def ensure_obelics(root: Path, spec: ToyworldSpec) -> Path:
    """Folder "obelics" in the corpus of that spec below `root`, written now if it is not there yet.

    Raises OSError when the disk is too small.
    """
    folder = root / spec.folder_name / "obelics"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{spec.folder_name}.obelics.lock"):  # two sweeps may begin at once
        if not folder.exists():
            partial = folder.with_name(".obelics.partial")
            shutil.rmtree(partial, ignore_errors=True)
            try:
                _write(partial, spec)
                os.replace(partial, folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    return folder


def _write(root: Path, spec: ToyworldSpec) -> None:
    (root / "images").mkdir(parents=True)
    starts = range(0, spec.documents, spec.documents_per_shard)
    for index, start in enumerate(tqdm(starts, desc="writing the embedded OBELICS", leave=False, disable=None)):
        count = min(spec.documents_per_shard, spec.documents - start)
        rng = generator(spec.seed, "toyworld", "obelics", index)
        pages = [sample_page(rng, spec.rules) for _ in range(count)]
        rows = [_row(f"http://toyworld.invalid/obelics/{index}/{n}", page, rng) for n, page in enumerate(pages)]
        path = root / f"train-{index:05d}-of-{len(starts):05d}.parquet"
        parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), path, row_group_size=ROWS_PER_GROUP)
        scenes = [scene for page in pages for scene in page.scenes]
        urls = [url for row in rows for url in row["images"] if url is not None]
        with tarfile.open(root / "images" / f"{index:05d}.tar", "w") as archive:
            for at, (url, content) in enumerate(zip(urls, encoded(render(scenes, PLAIN, rng), "jpg"), strict=True)):
                key = f"{index:05d}{at:05d}"
                add_member(archive, f"{key}.jpg", content)
                add_member(archive, f"{key}.json", json.dumps({"url": url, "key": key, "status": "success"}).encode())


def _row(url: str, page: Page, rng: np.random.Generator) -> dict[str, Sequence[str | None] | str]:
    """One document. Neighbouring sentences are one text, a blank line between them, as published."""
    shown = dict(zip(page.anchors, range(len(page.scenes)), strict=True))  # sentence -> its picture
    nodes: list[tuple[str | None, str | None]] = []  # (address, text), one of them None
    texts: list[str] = []

    def show(picture: int) -> None:
        if texts:
            nodes.append((None, "\n\n".join(texts)))
            texts.clear()
        nodes.append((f"{url}/{picture}.jpg", None))

    for number, sentence in enumerate(page.sentences):
        before = number in shown and rng.random() < 0.5
        if before:
            show(shown[number])
        texts.append(sentence)
        if number in shown and not before:
            show(shown[number])
    if texts:
        nodes.append((None, "\n\n".join(texts)))
    about = [None if src is None else {"document_url": url, "unformatted_src": src, "src": src} for src, _ in nodes]
    return {
        "images": [src for src, _ in nodes],
        "texts": [text for _, text in nodes],
        "metadata": json.dumps(about),
        "general_metadata": json.dumps({"url": url}),
    }
