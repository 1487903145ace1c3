"""Images a second of this loader and of open_clip's own pipeline, on the same shards, with as many workers each.

    python -m benchmarks.loader [--side 512] [--pairs 600] [--repeats 3] [--workers 0]

Both read the same tars of JPEG pairs (noise over gradients, about as many bytes a pixel as photographs), crop, resize
to 224 pixels, tokenise and normalise; open_clip by open_clip_train.data.get_wds_dataset with its training transform and
tokenizer, this loader with both values of data.jpeg. They take turns, and the best of the repeats counts: other work on
the machine only ever slows one down. Without workers the time is that of the processor; with them it is a clock's, of
an epoch whose first batch has come: neither has the start of its workers counted. The second table is the share of
positions that are no padding, on documents as long as MMC4's.
"""

import argparse
import io
import sys
import tarfile
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import open_clip
import torch
from open_clip_train import data as open_clip_data
from PIL import Image
from webdataset.tariterators import tar_file_expander

from data.audit.survey import packed
from data.batch import Layout
from data.corpora import open_corpus
from data.images import ImageTransform, JpegDecoding
from data.loading.cache import Pictures
from data.loading.loader import Loader
from data.loading.select import Rules
from data.tokenizer import Tokenizer

BATCH = 50
SHARDS = 4
SIDE = 224
CAPTION = "a photo of a small wooden boat on a calm lake in the early morning, number {}"
MEAN_TEXT_TOKENS = 425  # of an MMC4 document: 43 billion over 101 million documents


def write_pairs(folder: Path, side: int, pairs: int) -> None:
    """Tars of pictures whose JPEGs are about as large as those of photographs."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 200, side)
    for shard in range(SHARDS):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for key in range(shard, pairs, SHARDS):
                coarse = Image.fromarray(rng.integers(0, 255, (side // 8, side // 8, 3), dtype=np.uint8))
                soft = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.float32)
                pixels = np.clip(0.6 * soft + 0.4 * (ramp[None, :, None] + rng.normal(0, 12, (side, side, 1))), 0, 255)
                buffer = io.BytesIO()
                Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG", quality=90)
                for suffix, data in (("jpg", buffer.getvalue()), ("txt", CAPTION.format(key).encode())):
                    info = tarfile.TarInfo(f"{key:09d}.{suffix}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def ours(folder: Path, pairs: int, workers: int, jpeg: JpegDecoding) -> Callable[[], Iterator[int]]:
    """One epoch of this loader; how many images each batch holds."""
    corpus = open_corpus(folder)
    tokenizer = Tokenizer.train_bpe([CAPTION], 512)

    def epoch() -> Iterator[int]:
        loader = Loader(
            corpus,
            tokenizer,
            ImageTransform(SIDE),
            layouts=(Layout.IMAGE_FIRST,),
            patches=196,
            slots=196,
            seq_len=280,
            images_per_step=BATCH,
            total_images=pairs,
            seed=0,
            rules=Rules(text_len=80),
            cache_documents=0,
            pictures=Pictures(0),
            workers=workers,
            jpeg=jpeg,
        )
        return (len(batch.images) for batch in loader.batches())

    return epoch


def theirs(folder: Path, pairs: int, workers: int) -> Callable[[], Iterator[int]]:
    """One epoch of open_clip's pipeline; how many images each batch holds."""
    settings = Namespace(
        train_data=str(folder / f"{{00000..{SHARDS - 1:05d}}}.tar"),
        train_num_samples=pairs,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        workers=workers,
        world_size=1,
        batch_size=BATCH,
        distributed=False,
        use_naflex=False,
    )
    # webdataset 1.0 marks the end of each shard in a way that this release of open_clip does not know.
    open_clip_data.tar_file_expander = partial(tar_file_expander, eof_value=None)
    transform = open_clip.image_transform(SIDE, is_train=True)
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    info = open_clip_data.get_wds_dataset(settings, transform, is_train=True, tokenizer=tokenizer)
    return lambda: (len(images) for images, _ in info.dataloader)


def rate(epoch: Callable[[], Iterator[int]], workers: int) -> float:
    """Images a second, by the clock with workers and by the processor's time of this process without."""
    clock = time.monotonic if workers else time.process_time
    batches, began = epoch(), clock()
    if workers:
        next(batches)
        began = clock()
    return sum(batches) / (clock() - began)


def padding() -> str:
    """Share of positions that are no padding with rows of 2,048, on documents as long as MMC4's are on average."""
    rng = np.random.default_rng(0)
    text = rng.lognormal(np.log(MEAN_TEXT_TOKENS) - 0.5, 1.0, 20_000).astype(int)
    images = rng.integers(1, 7, len(text)) * 198
    rows = [min(2048, int(length)) for length in text + images + 2]
    return f"no padding: {np.mean(rows) / 2048:.1%} of a row of one document, {packed(rows, 2048):.1%} packed"


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser("python -m benchmarks.loader", description=__doc__.partition("\n")[0])
    parser.add_argument("--side", type=int, default=512, help="of the pictures in pixels")
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help=f"processes that read, at most {SHARDS}")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder, options.side, options.pairs)
        workers, pairs = options.workers, options.pairs
        epochs = {
            "open_clip": theirs(folder, pairs, workers),
            "this loader": ours(folder, pairs, workers, "full"),
            "this loader, data.jpeg=scaled": ours(folder, pairs, workers, "scaled"),
        }
        rates: dict[str, list[float]] = {who: [] for who in epochs}
        for _ in range(options.repeats):
            for who, epoch in epochs.items():
                rates[who].append(rate(epoch, workers))
    of = f"{workers} workers" if workers else "one core"
    for who, found in rates.items():
        times = max(found) / max(rates["open_clip"])
        print(f"{who}: {max(found):.0f} images/s of {of} ({', '.join(f'{each:.0f}' for each in found)}), x{times:.2f}")
    print(padding())
    return 0


if __name__ == "__main__":
    sys.exit(main())
