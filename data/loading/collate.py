"""Collation: sampled documents and their decoded images as one Batch (spec of the fields in docs/architecture.md).

Runs on the training thread once a step, so the work per document is list building; everything else is one array
operation for the whole batch.
"""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch

from data.batch import Batch, Layout, Rows, TokenType
from data.document import Image
from data.images import ImageTransform
from data.loading.item import Item
from data.loading.render import Row, Writing, render
from data.loading.windows import Filling, cut, render_window
from data.tokenizer import SpecialTokens

WIDTH_MULTIPLE = 16  # rows are padded to a multiple of this: each further shape costs oneDNN memory and time


def collate(
    items: Sequence[Item],
    *,
    layouts: Sequence[Layout],
    slots: int,
    patches: int,
    seq_len: int,
    special: SpecialTokens,
    transform: ImageTransform,
    writing: Writing,
    filling: Filling = Filling.DOCUMENT,
    device: str = "cpu",
) -> Batch:
    """The batch of those documents, rendered once for each layout. Raises ValueError for an empty or misfit batch.

    patches: of an image; windows are cut by them, whatever `slots` the rows have.
    device: where the images are normalised and stay; they go there as bytes. The rest is for `Batch.to`.
    """
    if not items:
        raise ValueError("a batch needs at least 1 document, got 0")
    for item in items:
        wanted = sum(isinstance(part, Image) for part in item.document.segments)
        if wanted != len(item.images):
            raise ValueError(f"document {item.document.uid!r} has {wanted} images, but {len(item.images)} were decoded")
    rows = {}
    if filling is Filling.WINDOWS:
        windows = cut([item.document for item in items], [item.doc_seed for item in items], patches, seq_len)
        about = [(window.uid, window.seed, window.caption_hash) for window in windows]
        for layout in layouts:
            rendered = [render_window(window, layout, slots, special) for window in windows]
            rows[layout] = pad_rows(rendered, seq_len, special.pad)
    else:
        about = [(item.document.uid, item.doc_seed, item.document.caption_hash) for item in items]
        for layout in layouts:
            rendered = [render(item.document, layout, slots, special, item.doc_seed, writing) for item in items]
            rows[layout] = pad_rows(rendered, seq_len, special.pad)
    refs = [part.ref for item in items for part in item.document.segments if isinstance(part, Image)]
    pixels = torch.from_numpy(np.stack([image for item in items for image in item.images]))
    return Batch(
        images=transform.normalise(pixels.to(device)),
        rows=rows,
        labels=torch.tensor([-1 if ref.label is None else ref.label for ref in refs], dtype=torch.int64),
        doc_uid=tuple(uid for uid, _, _ in about),
        doc_seed=torch.tensor([seed for _, seed, _ in about], dtype=torch.int64),
        caption_hash=torch.tensor([text for _, _, text in about], dtype=torch.int64),
    )


def pad_rows(rendered: Sequence[Row], seq_len: int, pad: int) -> Rows:
    """Right-pad to the longest row, rounded up to a multiple of 16 but never beyond seq_len."""
    lengths = np.fromiter((len(row.ids) for row in rendered), np.int64, len(rendered))
    longest = int(lengths.max())
    if longest > seq_len:
        raise ValueError(f"a row of {longest} tokens exceeds seq_len {seq_len}; was it truncated for other slots?")
    width = min(seq_len, -(-longest // WIDTH_MULTIPLE) * WIDTH_MULTIPLE)
    columns = np.arange(width)
    valid = columns < lengths[:, None]
    total = int(lengths.sum())
    ids = np.full(valid.shape, pad, np.int64)
    ids[valid] = np.fromiter(chain.from_iterable(row.ids for row in rendered), np.int64, total)
    types = np.full(valid.shape, TokenType.PAD, np.int64)
    types[valid] = np.fromiter(chain.from_iterable(row.types for row in rendered), np.int64, total)
    doc_id = valid.astype(np.int64) - 1
    if any(row.documents for row in rendered):
        doc_id[valid] = np.concatenate([np.repeat(np.arange(len(row.documents)), row.documents) for row in rendered])
    per_row = [len(row.boi) for row in rendered]
    images = sum(per_row)
    return Rows(
        input_ids=torch.from_numpy(ids),
        attn_mask=torch.from_numpy(valid),
        token_type=torch.from_numpy(types),
        position_ids=torch.from_numpy(np.broadcast_to(columns, valid.shape).copy()),
        doc_id=torch.from_numpy(doc_id),
        img_row=torch.from_numpy(np.repeat(np.arange(len(rendered)), per_row)),
        img_boi=torch.from_numpy(np.fromiter(chain.from_iterable(row.boi for row in rendered), np.int64, images)),
        img_has_ctx=torch.from_numpy(np.fromiter(chain.from_iterable(r.has_ctx for r in rendered), np.bool_, images)),
    )
