"""Thousands of damaged inputs: no crash, no hang, nothing read from outside the corpus, each counted at its size.

Few by default, so that the slow tests stay short; HOSTILE=2000 asks for so many of each kind of container, and
HOSTILE_SEED=1 for others.
"""

import base64
import hashlib
import io
import json
import os
import random
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from data.corpora import open_corpus
from data.document import Bad, Cause, RawDocument
from data.errors import BadImage, CorpusError
from data.images import open_image

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
COUNT = int(os.environ.get("HOSTILE", "60"))
SEED = int(os.environ.get("HOSTILE_SEED", "0"))
SECRET = b"SECRET-OUTSIDE-THE-CORPUS"
DOCUMENTS = 6


def picture(form: str, mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((24, 18), 60).convert(mode).save(buffer, form)
    return buffer.getvalue()


PICTURES = [
    picture("JPEG"),
    picture("PNG"),
    picture("PNG", "RGBA"),
    picture("WEBP"),
    picture("GIF", "P"),
    picture("TIFF"),
]


def page(number: int, inline: bool) -> dict:
    entry = {"image_name": "a.png", "matched_text_index": 0, "matched_sim": 0.3, "raw_url": "http://a.invalid/a.png"}
    if inline:
        entry["image_base64"] = base64.b64encode(PICTURES[number % len(PICTURES)]).decode()
    return {
        "text_list": [f"Sentence {number}." + " word" * 200, "Ü"],
        "image_info": [entry],
        "similarity_matrix": [[0.3, 0.1]],
    }


def lines(start: int = 0) -> bytes:
    return b"".join(json.dumps(page(start + n, False)).encode() + b"\n" for n in range(DOCUMENTS))


def tarred(members: list[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("docs_shard_1_v2.jsonl", lines())
    return buffer.getvalue()


def parqueted() -> bytes:
    rows = {
        "images": [[None, "http://a.invalid/a.png", None]] * DOCUMENTS,
        "texts": [[f"Text {n}." + " word" * 200, None, "Ü"] for n in range(DOCUMENTS)],
    }
    buffer = io.BytesIO()
    parquet.write_table(pa.table(rows), buffer, row_group_size=2)
    return buffer.getvalue()


def pairs() -> bytes:
    members = []
    for n in range(DOCUMENTS):
        members += [(f"{n:09d}.png", PICTURES[n % len(PICTURES)]), (f"{n:09d}.txt", b"words"), (f"{n:09d}.json", b"{}")]
    return tarred(members)


ADDRESS = hashlib.sha1(b"http://a.invalid/a.png").hexdigest()
KINDS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "jsonl": ("docs_shard_1_v2.jsonl", lines),
    "zip": ("docs_shard_1_v2.jsonl.zip", zipped),
    "tar": ("00001.tar", pairs),
    "parquet": ("train-00001-of-00002.parquet", parqueted),
    "documents in a tar": (
        "00001.tar",
        lambda: tarred([(f"{n}.json", json.dumps(page(n, True)).encode()) for n in range(DOCUMENTS)]),
    ),
}
WORDS = [
    b"../",
    b"/etc/passwd",
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b'"',
    b"\\ud800",
    b"[",
    b"{",
    b"\x00",
    b"\xff",
    b"secret",
]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four changes: bytes flipped, cut, repeated, dropped, swapped or replaced by something unpleasant."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out)) if out else 0
        span = rng.choice((1, 4, 64, 512))
        match rng.randrange(7):
            case 0 if out:
                out[at] ^= 1 << rng.randrange(8)
            case 1:
                del out[at:]
            case 2:
                out[at:at] = out[at : at + span]
            case 3:
                del out[at : at + span]
            case 4:
                out[at : at + span] = rng.randbytes(span)
            case 5:
                out[at:at] = rng.choice(WORDS)
            case 6:
                out[at : at + span] = bytes(span)
    return bytes(out)


def read_all(folder: Path, entries: int) -> tuple[int, int]:
    """(documents used, documents lost); every image of the used ones is decoded or its failure has a cause."""
    used = lost = 0
    corpus = open_corpus(folder)
    assert len(corpus) <= entries, "damage made documents"
    for at in range(len(corpus)):
        entry = corpus[at]
        if isinstance(entry, Bad):
            assert entry.cause is not Cause.NOT_CHOSEN and entry.message
            lost += entry.lost
            continue
        assert isinstance(entry, RawDocument)
        assert SECRET.decode() not in repr(entry)
        used += 1
        for image in entry.images:
            try:
                assert SECRET not in image.read()
                assert open_image(image).mode == "RGB"
            except BadImage as error:
                assert error.cause in Cause
    return used, lost


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_shard_never_stops_reading_and_never_reads_elsewhere(kind, tmp_path):
    name, make = KINDS[kind]
    folder = tmp_path / "corpus"
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "a.png").write_bytes(PICTURES[1])
    (folder / "images" / ADDRESS).write_bytes(PICTURES[1])
    (tmp_path / "secret").write_bytes(SECRET)
    (folder / "images" / "secret").symlink_to(tmp_path / "secret")
    good = make()
    (folder / name.replace("1", "0", 1)).write_bytes(good)  # one whole shard beside it
    rng = random.Random(f"{SEED} {kind}")
    refused = 0
    for _ in range(COUNT):
        (folder / name).write_bytes(mutated(good, rng))
        try:
            used, lost = read_all(folder, 10 * DOCUMENTS)
        except CorpusError as error:
            assert name in str(error) or str(folder) in str(error)
            refused += 1
            continue
        # The untouched shard is read whole, and what is gone of the other is counted at about its size.
        assert used >= DOCUMENTS
        # A line end that is gone makes two documents one, and nothing can tell; there are up to four changes.
        assert used + lost >= 2 * DOCUMENTS - 4, (used, lost)
    assert refused <= COUNT // 4


def test_a_damaged_picture_is_decoded_or_has_a_cause():
    rng = random.Random(SEED)
    for number in range(COUNT * 5):
        try:
            assert open_image(mutated(PICTURES[number % len(PICTURES)], rng)).mode == "RGB"
        except BadImage as error:
            assert error.cause in (Cause.DECODE_ERROR, Cause.OVERSIZE)
