"""Write the embedded corpus in the formats its real counterparts have, so that it is read by the readers users use.

Everything is a pure function of `ToyworldSpec`: each shard draws from a stream of its own name. The corpus appears
under its final name only when whole.
"""

import errno
import io
import json
import logging
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from data.seeds import generator, stable_seed
from data.toyworld.language import HELD_OUT, NAMES, Page, captions, describe, sample_page, sample_scene
from data.toyworld.patterns import PATTERNS, PLAIN, WAVY, Scene, Style, render
from data.toyworld.spec import FORMAT, ToyworldSpec

logger = logging.getLogger(__name__)
_BYTES_PER_IMAGE = 8192  # what one small picture takes on a file system with 4 KiB blocks, its text included


def ensure_toyworld(root: Path, spec: ToyworldSpec) -> Path:
    """Folder of the corpus of that spec below `root`, written now if it is not there yet.

    Raises OSError with the path and the space needed when the disk is too small.
    """
    folder = root / spec.folder_name
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{spec.folder_name}.lock"):  # two sweeps may begin at once
        if not (folder / "manifest.json").exists():
            _write_whole(folder, spec)
    return folder


def _write_whole(folder: Path, spec: ToyworldSpec) -> None:
    root, partial = folder.parent, folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    need = _BYTES_PER_IMAGE * int(spec.documents * 2.6 + spec.laion_pairs + 3 * spec.transfer_train + 8_000)
    free = shutil.disk_usage(root).free
    if free < need:
        raise OSError(
            errno.ENOSPC,
            f"the embedded corpus needs about {need / 1e6:.0f} MB but {free / 1e6:.0f} MB are free; "
            "free some space or choose another place with --runs DIR",
            str(root),
        )
    try:
        _write(partial, spec)
        partial.rename(folder)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(errno.ENOSPC, "the disk filled up while the embedded corpus was written", str(root)) from None
        raise


def _write(root: Path, spec: ToyworldSpec) -> None:
    shards = range(0, spec.documents, spec.documents_per_shard)
    with tqdm(total=len(shards) + 7, desc="writing the embedded corpus", unit="part", leave=False, disable=None) as bar:
        for index, start in enumerate(shards):
            count = min(spec.documents_per_shard, spec.documents - start)
            _write_mmc4_shard(root / "mmc4", index, count, spec)
            bar.update()
        parts = (
            lambda: _write_tars(root / "laion", "laion", spec.laion_pairs, spec, caption_count=0),
            lambda: _write_tars(
                root / "retrieval_train", "retrieval_train", spec.transfer_train, spec, caption_count=1
            ),
            lambda: _write_tars(root / "caption_train", "caption_train", spec.transfer_train, spec, caption_count=1),
            lambda: _write_folders(root / "imagenet", spec),
            lambda: _write_karpathy(root / "coco", "coco", PLAIN, spec),
            lambda: _write_karpathy(root / "flickr30k", "flickr30k", WAVY, spec),
            lambda: _write_nocaps(root / "nocaps", spec),
        )
        for part in parts:
            part()
            bar.update()
    (root / "manifest.json").write_text(json.dumps({"format": FORMAT, "spec": asdict(spec)}, indent=1) + "\n")


def encoded(pictures: NDArray[np.uint8], kind: Literal["jpg", "png"]) -> Iterator[bytes]:
    """Each picture as a file; pictures: uint8 [n, size, size, 3]."""
    for picture in pictures:
        buffer = io.BytesIO()
        if kind == "jpg":
            Image.fromarray(picture).save(buffer, "JPEG", quality=95, subsampling=0)
        else:
            Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
        yield buffer.getvalue()


def _write_mmc4_shard(root: Path, index: int, count: int, spec: ToyworldSpec) -> None:
    """docs_shard_{index}_v2.jsonl.zip and images/{index}/<12 hex>.jpg, as the public sets are laid out."""
    rng = generator(spec.seed, "toyworld", "mmc4", index)
    pages = [sample_page(rng, spec.rules) for _ in range(count)]
    scenes = [scene for page in pages for scene in page.scenes]
    folder = root / "images" / str(index)
    folder.mkdir(parents=True)
    names = [f"{stable_seed(spec.seed, 'mmc4', index, i) & (2**48 - 1):012x}.jpg" for i in range(len(scenes))]
    for name, content in zip(names, encoded(render(scenes, PLAIN, rng), "jpg"), strict=True):
        (folder / name).write_bytes(content)
    lines, at = [], 0
    for number, page in enumerate(pages):
        lines.append(json.dumps(_mmc4_line(f"http://toyworld.invalid/{index}/{number}", page, names[at:], rng)))
        at += len(page.scenes)
    _write_zip(root / f"docs_shard_{index}_v2.jsonl.zip", f"docs_shard_{index}_v2.jsonl", "\n".join(lines) + "\n")


def _write_zip(path: Path, member: str, text: str) -> None:
    info = zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0))  # equal bytes whenever it is written
    info.compress_type = zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(info, text)


def _mmc4_line(url: str, page: Page, names: list[str], rng: np.random.Generator) -> dict[str, object]:
    """One MMC4 document. Similarities are drawn so that most pictures whose sentence says nothing fall below 0.24."""
    matrix = rng.uniform(0.10, 0.20, (len(page.scenes), len(page.sentences)))
    info = []
    for i, (scene, anchor) in enumerate(zip(page.scenes, page.anchors, strict=True)):
        told = NAMES[scene.pattern] in page.sentences[anchor]
        matrix[i, anchor] = rng.uniform(0.25, 0.36) if told else rng.uniform(0.15, 0.27)
        info.append(
            {
                "image_name": names[i],
                "raw_url": f"{url}/{i}.jpg",
                "matched_text_index": anchor,
                "matched_sim": round(float(matrix[i, anchor]), 4),
                "face_detections": None,
                "label": scene.pattern,  # read by the supervised control row only
            }
        )
    return {
        "url": url,
        "text_list": list(page.sentences),
        "image_info": info,
        "similarity_matrix": matrix.round(4).tolist(),
        "could_have_url_duplicate": 0,
    }


def _scenes(rng: np.random.Generator, count: int) -> list[Scene]:
    return [sample_scene(rng, int(rng.integers(len(PATTERNS)))) for _ in range(count)]


def _distinct_scenes(rng: np.random.Generator, count: int) -> list[Scene]:
    """Scenes no two of which share pattern and both colours, so that a perfect retriever scores 100."""
    every = [
        Scene(pattern, fore, back)
        for pattern in range(len(PATTERNS))
        for fore in range(8)
        for back in range(8)
        if fore != back and (pattern, fore) not in HELD_OUT
    ]
    if count > len(every):
        raise ValueError(f"caption_test asks for {count} different scenes, but there are only {len(every)}")
    return [every[i] for i in rng.permutation(len(every))[:count]]


def add_member(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """A file in a tar, without a date, so that equal content gives equal bytes."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def _write_tars(
    root: Path, name: str, count: int, spec: ToyworldSpec, caption_count: int, per_tar: int = 5_000
) -> None:
    """img2dataset-style tars of key.jpg, key.txt and key.json; captions of pages (count 0) or of pictures."""
    root.mkdir(parents=True)
    for shard, start in enumerate(range(0, count, per_tar)):
        rng = generator(spec.seed, "toyworld", name, shard)
        scenes = _scenes(rng, min(per_tar, count - start))
        if caption_count:
            texts = [captions(scene, rng, caption_count)[0] for scene in scenes]
        else:
            texts = [describe(rng, scene, spec.rules)[0] for scene in scenes]
        with tarfile.open(root / f"{shard:05d}.tar", "w") as archive:
            for i, content in enumerate(encoded(render(scenes, PLAIN, rng), "jpg")):
                key = f"{shard:05d}{i:04d}"
                about = {"key": key, "caption": texts[i], "status": "success", "width": 32, "height": 32}
                if caption_count:
                    about["top_caption"] = texts[i]
                add_member(archive, f"{key}.jpg", content)
                add_member(archive, f"{key}.txt", texts[i].encode())
                add_member(archive, f"{key}.json", json.dumps(about).encode())


def _write_folders(root: Path, spec: ToyworldSpec) -> None:
    """train|val/<class>/<n>.png, classes by name."""
    for split, count in (("train", spec.transfer_train), ("val", spec.classification_test)):
        rng = generator(spec.seed, "toyworld", "imagenet", split)
        scenes = [sample_scene(rng, i % len(PATTERNS)) for i in range(count)]
        folders = [root / split / name.replace(" ", "_") for name in NAMES]
        for folder in folders:
            folder.mkdir(parents=True)
        for i, content in enumerate(encoded(render(scenes, PLAIN, rng), "png")):
            (folders[scenes[i].pattern] / f"{split}_{i:06d}.png").write_bytes(content)


def _write_karpathy(root: Path, name: str, style: Style, spec: ToyworldSpec) -> None:
    """dataset_{name}.json with five captions a picture and its images, in the style given."""
    entries: list[dict[str, object]] = []
    for split, count in (("val", spec.transfer_val), ("test", spec.caption_test)):
        rng = generator(spec.seed, "toyworld", name, split)
        scenes = _distinct_scenes(rng, count)
        folder = root / "images"
        folder.mkdir(parents=True, exist_ok=True)
        for i, content in enumerate(encoded(render(scenes, style, rng), "jpg")):
            filename = f"{name}_{split}_{i:06d}.jpg"
            (folder / filename).write_bytes(content)
            said = captions(scenes[i], rng, 5)
            first = 5 * len(entries)
            entries.append(
                {
                    "filename": filename,
                    "imgid": len(entries),
                    "split": split,
                    "sentids": list(range(first, first + 5)),
                    "sentences": [
                        {"raw": text, "tokens": text.split(), "imgid": len(entries), "sentid": first + j}
                        for j, text in enumerate(said)
                    ],
                }
            )
    (root / f"dataset_{name}.json").write_text(json.dumps({"images": entries, "dataset": name}))


def _write_nocaps(root: Path, spec: ToyworldSpec) -> None:
    """nocaps_val_captions.json, COCO style with ten captions a picture; every picture shows a held-out combination."""
    rng = generator(spec.seed, "toyworld", "nocaps", "val")
    folder = root / "val"
    folder.mkdir(parents=True)
    scenes = [sample_scene(rng, i % len(PATTERNS), held_out=True) for i in range(spec.caption_test)]
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for i, content in enumerate(encoded(render(scenes, PLAIN, rng), "jpg")):
        filename = f"{i:012x}.jpg"
        (folder / filename).write_bytes(content)
        images.append({"id": i, "file_name": filename, "width": 32, "height": 32, "domain": "out-domain"})
        for text in captions(scenes[i], rng, 10):
            annotations.append({"id": len(annotations), "image_id": i, "caption": text})
    document = {"images": images, "annotations": annotations}
    (root / "nocaps_val_captions.json").write_text(json.dumps(document))
