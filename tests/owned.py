"""Small folders of every kind that docs/data.md describes, for the test that runs its commands."""

import base64
import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def tar(path: Path, members: Mapping[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def page(name: str, **extra: str) -> dict[str, object]:
    entry = {"image_name": name, "matched_text_index": 0, "matched_sim": 0.3} | extra
    return {"text_list": ["A red boat on the water."], "image_info": [entry], "similarity_matrix": [[0.3]]}


def write(folder: Path) -> None:
    """Everything the page names, below `folder`."""
    mmc4 = folder / "corpora" / "mmc4"
    (mmc4 / "images").mkdir(parents=True)
    (mmc4 / "images" / "0a.jpg").write_bytes(picture(0))
    with zipfile.ZipFile(mmc4 / "docs_no_face_shard_0_v2.jsonl.zip", "w") as archive:
        archive.writestr("docs_no_face_shard_0_v2.jsonl", json.dumps(page("0a.jpg")) + "\n")
    inside = page("0a.jpg", image_base64=base64.b64encode(picture(0)).decode())
    tar(folder / "corpora" / "mmc4-tars" / "000000000.tar", {"a-b.json": json.dumps(inside).encode()})
    obelics, address = folder / "corpora" / "obelics", "http://boats.invalid/a.jpg"
    obelics.mkdir()
    columns = {"images": [[address, None]], "texts": [[None, "A red boat on the water."]]}
    parquet.write_table(pa.table(columns), obelics / "train-00000-of-01335.parquet")
    beside = {"000000000.jpg": picture(0), "000000000.json": json.dumps({"url": address}).encode()}
    tar(obelics / "images" / "00000.tar", beside)
    pair = {"000000000.jpg": picture(1), "000000000.txt": b"a boat", "000000000.json": b'{"top_caption": "a boat"}'}
    for name in ("corpora/laion", "sets/cc12m", "sets/laion-coco"):
        tar(folder / name / "00000.tar", pair)
    sets = folder / "sets"
    for split in ("train", "val"):
        put(sets / "imagenet" / split / "n01" / "a.JPEG")
    for name in ("coco", "flickr30k"):
        put(sets / name / "images" / "a.jpg")
        entry = {"filename": "a.jpg", "split": "test", "sentences": [{"raw": "a boat"}]}
        (sets / name / f"dataset_{name}.json").write_text(json.dumps({"dataset": name, "images": [entry]}))
    put(sets / "nocaps" / "val" / "a.jpg")
    images = {"images": [{"id": 0, "file_name": "a.jpg"}]}
    (sets / "nocaps" / "nocaps_val_image_info.json").write_text(json.dumps(images))
    captions = {"annotations": [{"image_id": 0, "caption": "a boat"}]}
    (sets / "nocaps" / "nocaps_val_4500_captions.json").write_text(json.dumps(images | captions))


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture(2))
