"""Weights in shards: each rank keeps its part of every block, with its gradients and moments (FSDP2).

torch's `fully_shard` gathers a block's weights before it runs, forward and backward, and reduces its gradients to their
parts of the mean over ranks. Blocks are all that is sharded: they hold nearly all weights, and every rank runs the same
ones in the same order, whatever documents it has. What lies outside of them is used freely by objectives (a tied head,
a temperature, queries), on some ranks only at times, and stays whole, with gradients.py's mean.

What is written is whole (`gathered`) and what is read as well (`part_of`), so a checkpoint knows nothing of shards.
"""

import warnings
from collections.abc import Mapping

from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from experiments.running.distributed.agree import is_writer
from objectives.base import Objective
from objectives.gather import world_size


def shard(objective: Objective) -> None:
    """Keep this rank's part of every block; all ranks hold equal weights when they call it, on the same device type.

    The parameters of blocks are others afterwards (DTensors): collect them for an optimiser later.
    """
    # Of transformers' layers, whose output is a view: nothing here changes one in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")
    mesh = init_device_mesh(next(objective.parameters()).device.type, (world_size(),))
    for block in objective.blocks:
        fully_shard(block, mesh=mesh)
    outside = {parameter for parameter in objective.parameters() if not isinstance(parameter, DTensor)}
    # As the root it lets one block's weights be gathered while another computes.
    fully_shard(objective, mesh=mesh, ignored_params=outside)


def gathered(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Whole on the CPU of rank 0, empty on the others. Every rank must call it with the same names.

    One after the other: no device holds more than one of them whole.
    """
    found = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if is_writer():
            found[name] = whole.detach().cpu()
    return found


def part_of(whole: Tensor, like: Tensor) -> Tensor:
    """What this rank holds of a whole tensor where it holds such a part of `like`: all of it where that is whole."""
    if not isinstance(like, DTensor):
        return whole
    return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements, src_data_rank=None)
