"""Features of a split under a frozen encoder: computed once, kept as one memory-mapped array [n, t, d] and a manifest.

Our choice, as the LCL paper says nothing of a cache: all output tokens are kept (a learned query needs them), class
token first; the key hashes everything the numbers depend on; a folder appears under its key only when whole; features
are joined to a split by item id, never by order; and every use recomputes 64 items and compares.

Shape letters: n items of a split, b items of a batch, t tokens, d width.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from data.batch import Split
from data.seeds import generator
from transfer.encoder import Encoder

logger = logging.getLogger(__name__)

Tokens = Literal["all", "patch"]
Precision = Literal["fp32", "bf16"]  # of the encoder's forward pass (autocast) and of what is stored

FORMAT = 1  # bump when equal keys would give other numbers or another layout
BATCH = 256
CHECKED = 64  # items recomputed at every use
CROP_BYTES = 256 * 2**20  # of crops held by a process
DEAD_SECONDS = 3600.0  # without a write, after which an extraction is taken to have been killed
TOLERANCE = 1e-2  # of the features' standard deviation (our choice)
# A value may also differ by the rounding of the format it is computed in: two units in the last place.
_ROUNDING: dict[Precision, float] = {"fp32": 2.0**-22, "bf16": 2.0**-6}
_STORED: dict[Precision, type[np.generic]] = {"fp32": np.float32, "bf16": np.uint16}


_held: dict[tuple[str, str], UInt8[np.ndarray, "n s s 3"]] = {}


@dataclass(frozen=True, eq=False)
class Features:
    """Features of a split's items, in the order in which they were stored."""

    folder: Path
    stored: np.ndarray  # memory map [n, t, d]: float32, or uint16 that holds bfloat16
    rows: Mapping[str, int]  # item id -> row of `stored`
    patches: slice  # the patch tokens
    precision: Precision

    def gather(self, rows: np.ndarray) -> Float[Tensor, "b t d"]:
        """Those rows in fp32, copied into memory."""
        return _to_float(self.stored[rows])


@dataclass(frozen=True, eq=False)
class FeatureSplit:
    """A split and its features, joined by item id. Raises ValueError where an item has no features."""

    split: Split
    features: Features
    rows: np.ndarray = field(init=False)  # row of each item in the stored array

    def __post_init__(self) -> None:
        missing = [item for item in self.split.item_ids if item not in self.features.rows]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self.split)} items of {self.split.name!r} have no features in "
                f"{self.features.folder} (first: {missing[0]!r}); extract the features of this very split"
            )
        rows = np.array([self.features.rows[item] for item in self.split.item_ids], dtype=np.int64)
        object.__setattr__(self, "rows", rows)  # the dataclass is frozen

    def __len__(self) -> int:
        return len(self.split)

    @property
    def tokens(self) -> int:
        """Tokens of an item, class token included."""
        return int(self.features.stored.shape[1])

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.features.stored.shape[2])

    def gather(self, index: np.ndarray) -> Float[Tensor, "b t d"]:
        """Features of the items at those places of the split, fp32."""
        return self.features.gather(self.rows[index])

    def chunks(self, size: int = 512) -> Iterator[tuple[np.ndarray, Float[Tensor, "b t d"]]]:
        """(places, features) of all items in order."""
        for start in range(0, len(self), size):
            index = np.arange(start, min(start + size, len(self)))
            yield index, self.gather(index)


def extract(
    encoder: Encoder, split: Split, cache: Path, *, precision: Precision = "fp32", batch: int = BATCH, workers: int = 1
) -> FeatureSplit:
    """Features of all items of a split from the cache below `cache`, computed now if they are not there.

    The encoder runs where its parameters are, in evaluation mode and without gradient; its mode is restored and its
    bytes are checked. workers: threads that decode images.

    Raises:
        ValueError: duplicate or no item ids; or the transform's images do not fit the encoder.
        OSError: the disk is too small or full (ENOSPC), with the space needed.
        RuntimeError: recomputed items differ from the stored ones, or the encoder's bytes changed.
    """
    _refuse_duplicates(split)
    before = encoder.digest
    key = _key(encoder, before, split, precision)
    folder = cache / key
    if not (folder / "manifest.json").exists():
        _write(folder, encoder, split, precision, batch, workers, {"encoder": before, "split": split.digest})
    features = _open(folder)
    _compare(encoder, split, features, workers)
    if encoder.digest != before:
        raise RuntimeError(f"the encoder's weights changed while features of {split.name!r} were extracted")
    return FeatureSplit(split, features)


def no_tokens(split: Split) -> FeatureSplit:
    """A split without features, for a blind baseline: every item has 0 tokens. Raises ValueError for duplicate ids."""
    _refuse_duplicates(split)
    rows = {item: row for row, item in enumerate(split.item_ids)}
    empty = np.zeros((len(split), 0, 1), dtype=np.float32)  # a width of 0 would make a head without weights
    return FeatureSplit(split, Features(Path(), empty, rows, slice(0, 0), "fp32"))


def bytes_of_item(tokens: int, width: int, precision: Precision) -> int:
    """What the tokens of one item take on disk."""
    return tokens * width * np.dtype(_STORED[precision]).itemsize


def _key(encoder: Encoder, weights: str, split: Split, precision: Precision) -> str:
    parts = {
        "format": FORMAT,
        "encoder": weights,
        "transform": encoder.transform.digest(),
        "split": split.digest,
        "items": hashlib.sha256("\n".join(split.item_ids).encode()).hexdigest(),
        "tokens": "all after the final norm",
        "precision": precision,
        "device": next(encoder.module.parameters()).device.type,
        "torch": version("torch"),
        "timm": version("timm"),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _write(
    folder: Path, encoder: Encoder, split: Split, precision: Precision, batch: int, workers: int, about: dict[str, str]
) -> None:
    """Compute and store all features in a temporary folder beside the final one, then rename it."""
    module = encoder.module
    shape = (len(split), module.num_prefix_tokens + module.num_patches, module.width)
    need = len(split) * bytes_of_item(shape[1], shape[2], precision)
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < need:
        raise _disk_full(split, need, free, folder.parent)
    _remove_dead(folder)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    try:
        # Plain writes, not a writable memory map: on a full disk a map ends the process with SIGBUS.
        with (partial / "tokens.bin").open("wb") as file:
            places = np.arange(len(split))
            starts = range(0, len(split), batch)
            crops = _crops(encoder, split, workers)
            for start in tqdm(starts, desc=f"features of {split.name}", leave=False, disable=None):
                tokens = _compute(encoder, crops(places[start : start + batch]), precision)
                file.write(_to_stored(tokens, precision).tobytes())
            file.flush()
            os.fsync(file.fileno())
        manifest = {
            **about, "name": split.name, "shape": shape, "precision": precision, "ids": list(split.item_ids),
            "patches": [encoder.patches.start, encoder.patches.stop], "transform": encoder.transform.digest(),
        }  # fmt: skip
        (partial / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        _publish(partial, folder)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _disk_full(split, need, shutil.disk_usage(folder.parent).free, folder.parent) from error
        raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_dead(folder: Path) -> None:
    """Remove what was left of extractions of the same features that were killed: nothing has been written for long."""
    for partial in folder.parent.glob(f"{folder.name}.partial-*"):
        with suppress(OSError):  # it was finished, or removed by another, meanwhile
            written = max(path.stat().st_mtime for path in (partial, *partial.iterdir()))
            if time.time() - written > DEAD_SECONDS:
                shutil.rmtree(partial)


def _publish(partial: Path, folder: Path) -> None:
    try:
        partial.rename(folder)
    except OSError:
        # Another process extracted the same features meanwhile: equal keys are equal numbers, keep those.
        if not (folder / "manifest.json").exists():
            raise
        logger.info("features %s were written by another process; keeping those", folder.name)


def _disk_full(split: Split, need: int, free: int, where: Path) -> OSError:
    return OSError(
        errno.ENOSPC,
        f"features of {split.name!r} need {need / 1e6:.0f} MB but {free / 1e6:.0f} MB are free; free some space or "
        "choose another cache folder",
        str(where),
    )


def _open(folder: Path) -> Features:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    precision: Precision = manifest["precision"]
    shape = tuple(manifest["shape"])
    stored = np.memmap(folder / "tokens.bin", dtype=_STORED[precision], mode="r", shape=shape)
    start, stop = manifest["patches"]
    rows = {item: row for row, item in enumerate(manifest["ids"])}
    return Features(folder, stored, rows, slice(start, stop), precision)


def _decode(
    encoder: Encoder, split: Split, places: Sequence[int] | np.ndarray, workers: int
) -> UInt8[np.ndarray, "b s s 3"]:
    """The evaluation crops of those items, read from the split."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        return np.stack(list(pool.map(lambda place: encoder.transform.eval(split.load(int(place))), places)))


def _crops(encoder: Encoder, split: Split, workers: int) -> Callable[[np.ndarray], UInt8[np.ndarray, "b s s 3"]]:
    """Places to crops: from memory where the whole split fits in CROP_BYTES, else decoded as they are asked for.

    All encoders of a table see the same crops, so a process decodes a split once. Only the splits read last are held.
    """
    key = split.digest, encoder.transform.digest()
    if key not in _held:
        first = _decode(encoder, split, [0], workers)
        if len(split) * first.nbytes > CROP_BYTES:
            return lambda places: _decode(encoder, split, places, workers)
        rest = _decode(encoder, split, range(1, len(split)), workers) if len(split) > 1 else first[:0]
        made = np.concatenate([first, rest])
        while _held and sum(each.nbytes for each in _held.values()) + made.nbytes > CROP_BYTES:
            del _held[next(iter(_held))]
        _held[key] = made
    held = _held[key]
    return lambda places: held[places]


def _compute(encoder: Encoder, crops: UInt8[np.ndarray, "b s s 3"], precision: Precision) -> Float[Tensor, "b t d"]:
    """The encoder's output tokens of those crops, fp32, on CPU."""
    module = encoder.module
    device = next(module.parameters()).device
    images = encoder.transform.normalise(torch.from_numpy(crops).to(device))
    training = module.training
    module.eval()
    try:
        with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            return module.tokens(images).detach().float().cpu()
    finally:
        module.train(training)


def _compare(encoder: Encoder, split: Split, features: Features, workers: int) -> None:
    """Recompute a few items and require them to agree with the stored ones up to rounding."""
    count = min(CHECKED, len(split))
    places = np.sort(generator("features", "check", features.folder.name).choice(len(split), count, replace=False))
    stored = features.gather(np.array([features.rows[split.item_ids[place]] for place in places]))
    # Decoded anew, so that crops held from a split that has changed since are found out as well.
    tokens = _compute(encoder, _decode(encoder, split, places, workers), features.precision)
    again = _to_float(_to_stored(tokens, features.precision))
    if stored.shape != again.shape:
        raise RuntimeError(f"{features.folder} holds {tuple(stored.shape[1:])} an item, now it is {again.shape[1:]}")
    allowed = TOLERANCE * again.std() + _ROUNDING[features.precision] * again.abs()
    # Written so that NaN on both sides agrees: a broken encoder is the metrics' business, not the cache's.
    wrong = ((stored - again).abs() > allowed) | (stored.isnan() != again.isnan())
    if wrong.any():
        worst = (stored - again).abs().nan_to_num().max().item()
        raise RuntimeError(
            f"cached features of {split.name!r} in {features.folder} are not those of this encoder: {count} items "
            f"recomputed, largest difference {worst:.3g} at standard deviation {again.std().item():.3g}; delete that "
            "folder and run again"
        )


def _to_stored(tokens: Tensor, precision: Precision) -> np.ndarray:
    if precision == "fp32":
        return tokens.numpy()
    return tokens.bfloat16().view(torch.uint16).numpy()  # NumPy has no bfloat16; fp16 overflows on outlier channels


def _to_float(stored: np.ndarray) -> Float[Tensor, "b t d"]:
    copy = torch.from_numpy(np.ascontiguousarray(stored))
    return copy.view(torch.bfloat16).float() if copy.dtype == torch.uint16 else copy


def _refuse_duplicates(split: Split) -> None:
    if not split.item_ids:
        raise ValueError(f"split {split.name!r} has no items")
    seen: set[str] = set()
    for item in split.item_ids:
        if item in seen:
            raise ValueError(f"split {split.name!r} lists item {item!r} twice; items are joined by id")
        seen.add(item)
