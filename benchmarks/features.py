"""What the feature cache saves: frozen classification with it against an encoder that runs in every epoch.

    python -m benchmarks.features [--size base16] [--images 16] [--epochs 90] [--measured 2]

Both train the same probe on the same pictures (noise, as only time is measured) for the paper's number of epochs. With
the cache every epoch is run, after one extraction with its check of recomputed items; without it as many epochs as
`--measured` are run and multiplied, as one costs what another costs. Seconds are processor time of this process, which
other work on the machine hardly changes.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from backbones.build import build_vision
from backbones.sizes import SIZES
from data.batch import Split
from data.images import ImageTransform
from objectives.functional import total
from transfer.base import TransferHead
from transfer.classify import Classify
from transfer.encoder import Encoder
from transfer.features import extract
from transfer.freeze import frozen_transfer
from transfer.pictures import BehindFrozen, PictureSplit, PictureStream
from transfer.stream import FeatureStream

CLASSES = 1000


def pictures(images: int, side: int) -> Split:
    """Noise with random labels, in memory."""
    rng = np.random.default_rng(0)
    held = [Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(images)]
    labels = tuple(int(label) for label in rng.integers(0, CLASSES, images))
    names = tuple(map(str, range(images)))
    return Split("noise/train", "noise", names, held.__getitem__, labels, tuple(map(str, range(CLASSES))))


def seconds_of_training(
    module: TransferHead, encoder: Encoder, stream: FeatureStream | PictureStream, config: Classify.Config
) -> float:
    """Processor seconds of every step of a stream."""
    groups = frozen_transfer(module, encoder.module, config)
    optimizer = torch.optim.AdamW([{"params": [*group.parameters.values()], "lr": group.lr} for group in groups])
    began = time.process_time()
    for batch in stream.batches():
        loss = total(module(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return time.process_time() - began


def main() -> int:
    """Run the command line."""
    paper = Classify.Config()
    parser = argparse.ArgumentParser("python -m benchmarks.features", description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=sorted(SIZES), default="base16", help="of the encoder")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--epochs", type=float, default=paper.epochs, help="the paper's: %(default)s")
    parser.add_argument("--measured", type=float, default=2, help="epochs without the cache that are run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    size = SIZES[options.size]
    split = pictures(options.images, size.vision.image_size)
    encoder = Encoder(build_vision(size, seed=0), ImageTransform(size.vision.image_size))
    length = {"epochs": options.epochs, "batch": options.images, "probes": ("acc1",)}
    with tempfile.TemporaryDirectory() as name:
        cached = Classify.Config(**length)
        began = time.process_time()
        features = extract(encoder, split, Path(name))
        extraction = time.process_time() - began
        head = Classify(cached).head(features, seed=0)
        heads = seconds_of_training(head, encoder, FeatureStream(features, cached, seed=0), cached)
    augmented = Classify.Config(**length | {"epochs": options.measured, "pictures": "augmented"})
    data = PictureSplit(split, encoder)
    module = BehindFrozen(Classify(augmented).head(data, seed=0), encoder)
    again = seconds_of_training(module, encoder, PictureStream(data, augmented, seed=0), augmented)
    without = again / options.measured * options.epochs
    print(f"{options.size}, {options.images} images, {options.epochs:g} epochs, one core")
    print(f"with the cache: {extraction + heads:.1f} s ({extraction:.1f} s of it for the features)")
    print(f"encoder in every epoch: {without:.1f} s ({again:.1f} s for {options.measured:g} epochs)")
    print(f"ratio: {without / (extraction + heads):.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
