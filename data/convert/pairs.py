"""MMC4-Pair as image-text tars: each chosen image of a corpus of documents with its sentence, as img2dataset has them.

    OUT/00000.tar     000000000.jpg 000000000.txt 000000000.json, 10,000 pairs a tar; sizes.json says how many

Images are chosen as for a run of seed 0 (LCL section 4.1: threshold, one a sentence, at most so many), and their bytes
are copied as they are. What cannot be decoded is counted and left out.
"""

import io
import json
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from data.convert.tars import add_member
from data.document import Bad, Corpus, RawDocument
from data.errors import BadImage, CorpusError
from data.images import open_image
from data.loading.select import Rules, choose_images, unscored
from data.readers.mmc4_pair import Mmc4Pairs

PAIRS_PER_TAR = 10_000
SEED = 0  # names the choice where a document has more images than are taken
# MPO: a JPEG with more pictures behind it, as telephones write them.
SUFFIXES = {
    "JPEG": "jpg",
    "MPO": "jpg",
    "PNG": "png",
    "WEBP": "webp",
}  # by Pillow's name: what readers of such tars look for


def export(corpus: Corpus, out: Path, rules: Rules) -> Counter[str]:
    """Write the pairs of a corpus of documents to `out`, whole or not at all; how many were written and left out.

    Raises CorpusError: `out` is not empty or a partial result lies beside it, or no pair is left.
    """
    out = out.absolute()
    partial = out.with_name(f"{out.name}.partial")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CorpusError(f"{out} exists and is not an empty folder; give another OUT, or delete it first")
    if partial.exists():
        raise CorpusError(f"{partial} is left over from an export that was killed, or one is running; delete it first")
    partial.mkdir(parents=True)
    try:
        pairs = Mmc4Pairs(
            corpus, lambda raw: choose_images(raw, rules, SEED), unjudged=lambda raw: unscored(raw, rules)
        )
        counts = _write(pairs, partial)
        if not counts["pairs"]:
            raise CorpusError(f"{corpus.name} gives no pair under a threshold of {rules.sim_threshold}: {dict(counts)}")
        os.replace(partial, out)
    except BaseException:  # an interrupt too: nothing half-written stays behind
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return counts


def _write(pairs: Mmc4Pairs, folder: Path) -> Counter[str]:
    counts: Counter[str] = Counter(pairs=0)
    sizes: dict[str, int] = {}
    for shard, held in groupby(enumerate(_usable(pairs, counts)), lambda each: each[0] // PAIRS_PER_TAR):
        name = f"{shard:05d}.tar"
        with tarfile.open(folder / name, "w") as archive:
            for number, (pair, data, suffix) in held:
                _add(archive, f"{shard:05d}{number % PAIRS_PER_TAR:04d}", suffix, data, pair)
                sizes[name] = sizes.get(name, 0) + 1
                counts["pairs"] += 1
    (folder / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")
    return counts


def _usable(pairs: Mmc4Pairs, counts: Counter[str]) -> Iterator[tuple[RawDocument, bytes, str]]:
    """Pairs with the bytes of their image and its suffix; the others are counted."""
    for at in tqdm(range(len(pairs)), unit="pair", desc="exporting", disable=None):
        pair = pairs[at]
        if isinstance(pair, Bad):
            counts[pair.cause.value] += pair.lost
            continue
        try:
            data = pair.images[0].read()
            open_image(data)
        except BadImage as error:
            counts[error.cause.value] += 1
            continue
        with Image.open(io.BytesIO(data)) as picture:
            suffix = SUFFIXES.get(picture.format or "")
        if suffix is None:
            counts["other format"] += 1
        else:
            yield pair, data, suffix


def _add(archive: tarfile.TarFile, key: str, suffix: str, data: bytes, pair: RawDocument) -> None:
    caption = pair.segments[0]
    about: dict[str, Any] = {"key": key, "url": pair.images[0].name, "caption": caption, "status": "success"}
    about |= {"similarity": pair.scores[0], "document": pair.doc_id, "page": pair.meta["url"]}
    add_member(archive, f"{key}.{suffix}", data)
    add_member(archive, f"{key}.txt", caption.encode())
    # A page's address may hold lone surrogates, escaped in its JSON: so they are escaped again.
    add_member(archive, f"{key}.json", json.dumps(about, ensure_ascii=False).encode("utf-8", "backslashreplace"))
    if pair.images[0].label is not None:
        add_member(archive, f"{key}.cls", str(pair.images[0].label).encode())
