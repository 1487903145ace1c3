"""A batch in blocks of documents: what is left of it when only some of its documents are kept."""

from dataclasses import replace

import torch

from data.batch import Batch, Rows


def blocks_needed(batch: Batch, documents: int) -> int:
    """How many blocks of at most so many documents a batch makes, at least one."""
    return max(1, -(-len(batch.doc_uid) // documents))


def block(batch: Batch, number: int, blocks: int) -> Batch:
    """The documents of one of so many blocks of nearly equal size; empty where there are fewer documents than blocks.

    Rows keep the width of the whole batch.
    """
    if blocks == 1:
        return batch
    documents = len(batch.doc_uid)
    first, last = (documents * edge // blocks for edge in (number, number + 1))
    # A batch without layouts holds pairs (a control that reads no text): an image is a document.
    of = next((rows.img_row for rows in batch.rows.values()), torch.arange(len(batch.images)))
    images = (of >= first) & (of < last)
    return replace(
        batch,
        images=batch.images[images],
        rows={layout: _rows(rows, first, last) for layout, rows in batch.rows.items()},
        labels=batch.labels[images],
        doc_uid=batch.doc_uid[first:last],
        doc_seed=batch.doc_seed[first:last],
        caption_hash=batch.caption_hash[first:last],
    )


def _rows(rows: Rows, first: int, last: int) -> Rows:
    images = (rows.img_row >= first) & (rows.img_row < last)
    return Rows(
        input_ids=rows.input_ids[first:last],
        attn_mask=rows.attn_mask[first:last],
        token_type=rows.token_type[first:last],
        position_ids=rows.position_ids[first:last],
        doc_id=rows.doc_id[first:last],
        img_row=rows.img_row[images] - first,
        img_boi=rows.img_boi[images],
        img_has_ctx=rows.img_has_ctx[images],
    )
