"""What kind a parameter is: by its name and shape, so that encoders and language models from elsewhere count alike.

A weight has that name in every library: of torch's linear layers, convolutions and embeddings, of its attention
(`in_proj_weight`, as in open_clip's towers) and of transformers' Conv1D (as in GPT-2). Norms have one of one dimension;
biases, queries, class tokens, positions, layer scales and temperatures have other names.
"""

from torch import nn


def weights(module: nn.Module) -> set[int]:
    """Ids of the parameters that weight decay shrinks: weights of two dimensions or more."""
    return {
        id(parameter)
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if name.rpartition(".")[2].endswith("weight") and parameter.ndim >= 2
    }


def matrices(module: nn.Module) -> set[int]:
    """Ids of the weights of linear maps. One that an embedding holds as well (a tied head) is an embedding's."""
    embedded = {id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Embedding)}
    flat = {id(parameter) for parameter in module.parameters() if parameter.ndim == 2}
    return weights(module) & flat - embedded
