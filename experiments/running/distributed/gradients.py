"""Gradients as the mean over ranks, after the backward pass: data parallelism with whole replicas.

Not torch's DistributedDataParallel, whose hooks reduce while the backward pass still runs. Ranks of one step have
different graphs here (a rank without images, a loss with collectives of its own in its backward pass), and buckets that
are sent as they fill would meet those collectives in an order of each rank's own. Averaging afterwards fixes the order,
leaves parameters without a gradient alone, needs no wrapper around the module, and costs the overlap: docs/scale.md
says how little that is at the paper's batches.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from torch import distributed as dist

from objectives.gather import all_reduce_sum, world_size

BUCKET_BYTES = 64 * 2**20  # of one all-reduce: large enough for the bandwidth, small beside the gradients


def average(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks; a rank without one counts as zeros. Every rank must call it.

    A parameter that has a gradient on no rank keeps none, so that optimisers pass over it as in one process.
    """
    if world_size() == 1:
        return
    trained = list(parameters)
    held = torch.tensor([p.grad is not None for p in trained], dtype=torch.int32, device=trained[0].device)
    somewhere = [p for p, ranks in zip(trained, all_reduce_sum(held).tolist(), strict=True) if ranks]
    for parameter in somewhere:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for bucket in _buckets([p.grad for p in somewhere if p.grad is not None]):
        flat = torch.cat([grad.flatten() for grad in bucket])
        dist.all_reduce(flat)
        flat /= world_size()
        for grad, mean in zip(bucket, flat.split([grad.numel() for grad in bucket]), strict=True):
            grad.copy_(mean.view_as(grad))


def _buckets(grads: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype, up to BUCKET_BYTES together."""
    bucket: list[Tensor] = []
    for grad in grads:
        full = sum(each.nbytes for each in bucket) + grad.nbytes > BUCKET_BYTES
        if bucket and (full or grad.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(grad)
    if bucket:
        yield bucket
