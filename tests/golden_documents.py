"""Twenty documents of each format and what a loader makes of them: `python tests/golden_documents.py --why "..."`.

They are files as their owners have them, with a defect of every kind among them, so that a change of any reader, of
sampling, placing, cutting, rendering or cropping changes a hash. Pictures are PNG: no decoder rounds them.
"""

import argparse
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))  # both as pytest has them

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet
from tar_helpers import write_shards

from data.batch import Batch, Layout
from data.corpora import open_corpus
from data.images import ImageTransform
from data.loading.loader import Loader
from data.loading.select import PairOrder, Rules
from data.loading.windows import Filling
from data.obelics import SCHEMA
from data.readers.obelics import END_OF_DOCUMENT
from data.tokenizer import Tokenizer

FILE = Path(__file__).parent / "golden" / "documents.json"
DOCUMENTS = 20
IMAGES = 72  # more than an epoch of any of them
Golden = Mapping[str, Any]  # documents, coverage, and a hash of each tensor


def picture(number: int) -> bytes:
    """A small PNG, no two alike."""
    pixels = (np.arange(20 * 16 * 3) * (number + 3) % 251).astype(np.uint8).reshape(20, 16, 3)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def write_mmc4(folder: Path) -> None:
    """One shard: scores around the threshold, sentences shared, images gone, one line that is no JSON."""
    (folder / "images").mkdir(parents=True)
    lines = []
    for number in range(DOCUMENTS):
        sentences = [f"Document {number} says {at} words." * (1 + at % 3) for at in range(2 + number % 5)]
        sentences[-1] = sentences[-1] if number % 6 else ""
        info = []
        for at in range(1 + number % 8):  # up to eight, where six is the most
            name = f"{number}_{at}.png"
            if (number + at) % 9:
                (folder / "images" / name).write_bytes(
                    picture(8 * number + at) if (number * at) % 7 != 6 else b"<html>"
                )
            score = (0.24, 0.2399, 0.31, None)[(number + at) % 4] if at else 0.3
            info.append({"image_name": name, "matched_text_index": at % len(sentences), "matched_sim": score})
        lines.append(json.dumps({"text_list": sentences, "image_info": info}) if number != 7 else "{half a line")
    (folder / "docs_shard_0_v2.jsonl").write_text("\n".join(lines) + "\n")


def write_laion(folder: Path) -> None:
    """Two tars: captions longer than a row, an empty one, one that is no UTF-8, a picture that is a page."""
    captions = [f"caption {number} " * (1 + number % 9) for number in range(DOCUMENTS)]
    captions[5] = " "
    samples = [
        (f"{number:09d}", {"png": picture(number), "txt": caption.encode()}) for number, caption in enumerate(captions)
    ]
    samples[11] = ("000000011", {"png": picture(11), "txt": b"\xff\xfe"})
    samples[13] = ("000000013", {"png": b"<html>", "txt": b"a page"})
    write_shards(samples, folder, DOCUMENTS // 2)


def write_obelics(folder: Path) -> None:
    """One file: pages that begin with an image, hold eight, hold none, and one in which another begins."""
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(DOCUMENTS):
        nodes: list[tuple[str | None, str | None]] = []
        for at in range(number % 9):
            url = f"http://a.invalid/{number}/{at}"
            if (number + at) % 10:
                (folder / "images" / hashlib.sha1(url.encode()).hexdigest()).write_bytes(picture(9 * number + at))
            nodes.append((url, None))
            nodes.append((None, f"Text {at} of page {number}.\n\nAnother paragraph." * (1 + at % 2)))
        if number == 4:
            nodes.append((None, f"The end.\n\n{END_OF_DOCUMENT}\n\nA beginning."))
        nodes.append((None, f"Page {number} ends."))
        images, texts = zip(*nodes, strict=True)
        rows.append({"images": images, "texts": texts, "metadata": "[]", "general_metadata": "{}"})
    parquet.write_table(pa.Table.from_pylist(rows, SCHEMA), folder / "train-00000-of-00001.parquet", row_group_size=8)


WRITERS = {"mmc4": write_mmc4, "laion": write_laion, "obelics": write_obelics}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "mmc4": {"rules": Rules(), "layouts": (Layout.INTERLEAVED, Layout.MEDIA_TOKEN)},
    "laion": {"rules": Rules(text_len=24, pair_order=PairOrder.RANDOM), "layouts": (Layout.RANDOM_ORDER,)},
    "obelics": {
        "rules": Rules(sim_threshold=None),
        "layouts": (Layout.INTERLEAVED,),
        "filling": Filling.WINDOWS,
    },
}


def golden(kind: str, folder: Path) -> Golden:
    """What seed 0 reads of those documents, batch by batch."""
    WRITERS[kind](folder)
    loader = Loader(
        open_corpus(folder),
        Tokenizer.train_bpe([], 256),
        ImageTransform(12),
        **{"patches": 4, "slots": 4, "seq_len": 160, "images_per_step": 24, "total_images": IMAGES, "seed": 0},
        **OPTIONS[kind],
    )
    batches = list(loader.batches())
    return {
        "documents": [list(batch.doc_uid) for batch in batches],
        "coverage": dict(sorted(loader.coverage.items())),
        "tensors": [dict(_hashes(batch)) for batch in batches],
    }


def _hashes(batch: Batch) -> Iterator[tuple[str, str]]:
    tensors = {"images": batch.images, "doc_seed": batch.doc_seed, "caption_hash": batch.caption_hash}
    for layout, rows in batch.rows.items():
        tensors |= {f"{layout.value} {name}": value for name, value in vars(rows).items()}
    for name, value in tensors.items():
        said = f"{tuple(value.shape)} {value.dtype}".encode()
        yield name, hashlib.sha256(said + value.numpy().tobytes()).hexdigest()[:16]


def main() -> None:
    """Write the file anew."""
    parser = argparse.ArgumentParser(description="Write what is read of the golden documents anew.")
    parser.add_argument("--why", required=True, help="what was changed, for the file and the changelog")
    why = parser.parse_args().why
    with tempfile.TemporaryDirectory() as folder:
        made = {kind: golden(kind, Path(folder) / kind) for kind in WRITERS}
    FILE.write_text(json.dumps({"why": why, "read": made}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
