"""Gradients as the mean over ranks, after the backward pass: data parallelism with whole replicas.

Not torch's DistributedDataParallel, whose hooks reduce while the backward pass still runs. Ranks of one step have
different graphs here (a rank without images, a loss with collectives of its own in its backward pass), and buckets that
are sent as they fill would meet those collectives in an order of each rank's own. Averaging afterwards fixes the order,
leaves parameters without a gradient alone, needs no wrapper around the module, and costs the overlap: docs/scale.md
says how little that is at the paper's batches.

Sharded weights (sharding.py) come with gradients that are a rank's part of that mean already.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.tensor import DTensor

from objectives.gather import all_reduce_sum, world_size

BUCKET_BYTES = 64 * 2**20  # of one all-reduce: large enough for the bandwidth, small beside the gradients


def average(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over ranks; a rank without one counts as zeros. Every rank must call it.

    A parameter that has a gradient on no rank keeps none, so that optimisers pass over it as in one process.
    """
    trained = [parameter for parameter in parameters if not isinstance(parameter, DTensor)]
    if world_size() == 1 or not trained:
        return
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


def norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Of all their gradients together, with the parts that other ranks hold. Every rank must call it."""
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    whole = nn.utils.get_total_norm([grad for grad in grads if not isinstance(grad, DTensor)])
    parts = [grad.to_local() for grad in grads if isinstance(grad, DTensor)]
    if not parts:
        return whole
    return (whole.square() + all_reduce_sum(nn.utils.get_total_norm(parts).square())).sqrt()


def clip(parameters: Sequence[nn.Parameter], most: float) -> Tensor:
    """Scale the gradients so that their norm together is at most that; what it was before. Every rank must call it."""
    found = norm(parameters)
    for sharded in (False, True):  # torch multiplies many at once, of one kind
        nn.utils.clip_grads_with_norm_([p for p in parameters if isinstance(p, DTensor) is sharded], most, found)
    return found


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
