"""Tensors from a file of a user's, and from there into a module: nothing is executed, and no key goes unmentioned."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

SHOWN = 4  # keys named in a message
# Where training scripts put the weights among other things, and what wrappers put before each key.
_BELOW = ("state_dict", "model", "model_state_dict")
_WRAPPED = ("module.", "_orig_mod.")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by key, of a .safetensors file or of one that torch.save wrote; only tensors are unpickled.

    Raises ValueError naming the file where it holds no tensors, or could only be read by running code in it.
    """
    try:
        found = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"there are no weights at {path}; give the file with --weights") from None
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read as weights: {_first_line(error)}") from None
    except Exception as error:  # pickle's own error, which may not be imported here: nothing pickled is trusted
        raise ValueError(
            f"{path} holds more than tensors and is not opened ({_first_line(error)}); save its state_dict() alone, "
            "best as .safetensors"
        ) from None
    while isinstance(found, Mapping) and (inner := next((found[key] for key in _BELOW if key in found), None)):
        found = inner
    if not isinstance(found, Mapping) or not found or not all(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path} holds no state dict of tensors; save the model's state_dict()")
    weights = {str(key): value for key, value in found.items()}
    for prefix in _WRAPPED:
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def below(weights: Mapping[str, Tensor], prefix: str, others: Sequence[str]) -> dict[str, Tensor]:
    """The tensors under a prefix, without it; all of them where no key has it.

    others: beginnings of keys that belong to other parts of the model. Raises ValueError for keys of no known part.
    """
    if not any(key.startswith(prefix) for key in weights):
        return dict(weights)
    strange = [key for key in weights if not key.startswith((prefix, *others))]
    if strange:
        raise ValueError(f"keys of no known part of the model: {_shown(strange)}; is this the right architecture?")
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def fill(module: nn.Module, weights: Mapping[str, Tensor], what: str) -> None:
    """Load weights into a module, every key of it and no other.

    Raises ValueError listing missing and unexpected keys and tensors of other shapes.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - weights.keys())
    unexpected = sorted(weights.keys() - own.keys())
    shapes = [
        f"{key} {tuple(weights[key].shape)} instead of {tuple(own[key].shape)}"
        for key in sorted(own.keys() & weights.keys())
        if weights[key].shape != own[key].shape
    ]
    wrong = [
        f"{len(keys)} {name} ({_shown(keys)})"
        for name, keys in (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
        if keys
    ]
    if wrong:
        raise ValueError(f"the weights are not those of {what}: keys {'; '.join(wrong)}. Name the right architecture")
    module.load_state_dict(dict(weights))


def _shown(keys: Sequence[str]) -> str:
    return ", ".join(keys[:SHOWN]) + (", ..." if len(keys) > SHOWN else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
