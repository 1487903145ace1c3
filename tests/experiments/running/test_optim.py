"""Which parameters train with which optimiser, and which of them decay: by name."""

import re

import pytest
import torch
from helpers import build
from torch import nn

from experiments.running.optim import Group, optimizers, parameter_groups
from objectives.registry import available

BLOCK = {
    "attn.qkv.weight", "attn.proj.weight", "mlp.fc1.weight", "mlp.fc2.weight",
}  # fmt: skip
LAYER = {
    "self_attn.k_proj.weight", "self_attn.v_proj.weight", "self_attn.q_proj.weight", "self_attn.out_proj.weight",
    "fc1.weight", "fc2.weight",
}  # fmt: skip
VISION = {f"vision.vit.blocks.*.{name}" for name in BLOCK}
LANGUAGE = {f"language.decoder.layers.*.{name}" for name in LAYER}
CONNECTOR = {f"connector.{name}.weight" for name in ("to_query", "to_key", "to_tokens.to_value", "to_tokens.to_output")}
ATTENTION = {"to_query.weight", "to_key_value.weight", "to_output.weight"}
EMBEDDINGS = {"language.decoder.embed_tokens.weight", "language.decoder.embed_positions.weight"}
PATCHES = {"vision.vit.patch_embed.proj.weight"}
# The matrices of linear layers: Muon trains them where the recipe says so, and they decay.
MATRICES = {
    "clip": CONNECTOR | {"readout.proj.weight"},
    "coca": CONNECTOR | {"readout.proj.weight"},
    "blip2": CONNECTOR | {"readout.proj.weight", "match_head.weight"},
    "beit3": {"connector.to_value.weight", "connector.to_output.weight", "image_head.weight"},
    "flamingo": {
        *(f"resampler.layers.*.attention.{name}" for name in ATTENTION),
        "resampler.layers.*.feed_forward.1.weight", "resampler.layers.*.feed_forward.3.weight",
        *(f"cross_attention.*.attention.{name}" for name in ATTENTION),
        "cross_attention.*.feed_forward.1.weight", "cross_attention.*.feed_forward.3.weight",
    },
    "emu": {
        *(f"causal_former.layers.*.self_attention.{name}" for name in ATTENTION),
        *(f"causal_former.layers.*.cross_attention.{name}" for name in ATTENTION),
        "causal_former.layers.*.feed_forward.1.weight", "causal_former.layers.*.feed_forward.3.weight",
        "causal_former.proj.weight", "regression_head.weight",
    },
    "lcl": CONNECTOR | {"readout.proj.weight"},
    "supervised": {"classifier.weight"},
}  # fmt: skip


def starred(groups: list[Group], module: nn.Module, **wanted: object) -> set[str]:
    """Names of the parameters in the groups that have these values, layer numbers replaced by a star."""
    names = {
        id(parameter): re.sub(r"(blocks|layers|cross_attention)\.\d+", r"\1.*", name)
        for name, parameter in module.named_parameters()
    }
    chosen = [group for group in groups if all(group[key] == value for key, value in wanted.items())]  # type: ignore[literal-required]
    return {names[id(parameter)] for group in chosen for parameter in group["params"]}


@pytest.mark.parametrize("name", sorted(MATRICES))
def test_muon_trains_the_matrices_and_these_parameters_decay_and_no_other(name: str) -> None:
    module = build(name)
    groups = parameter_groups(module, lr=1.0, weight_decay=0.1, matrices="muon")
    matrices = MATRICES[name] | VISION | LANGUAGE
    assert starred(groups, module, algorithm="muon") == matrices
    assert starred(groups, module, weight_decay=0.1) == matrices | EMBEDDINGS | PATCHES


@pytest.mark.parametrize("matrices", ["adamw", "muon"])
@pytest.mark.parametrize("name", available())
def test_every_objective_has_each_parameter_in_one_group(name: str, matrices: str) -> None:
    module = build(name)
    groups = parameter_groups(module, lr=1.0, weight_decay=0.1, matrices=matrices)  # type: ignore[arg-type]
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    assert len(set(grouped)) == len(grouped)
    assert set(grouped) == {id(parameter) for parameter in module.parameters() if parameter.requires_grad}


def test_what_is_frozen_or_a_bare_parameter_or_a_tied_head() -> None:
    module = nn.Module()
    module.linear = nn.Linear(4, 4)
    module.head = nn.Linear(4, 9, bias=False)
    module.table = nn.Embedding(9, 4)
    module.head.weight = module.table.weight
    module.queries = nn.Parameter(torch.zeros(5, 4))
    module.frozen = nn.Parameter(torch.zeros(3, 3), requires_grad=False)
    groups = parameter_groups(module, lr=1.0, weight_decay=0.1, matrices="muon")
    assert starred(groups, module, algorithm="muon") == {"linear.weight"}
    assert starred(groups, module, weight_decay=0.1) == {"linear.weight", "head.weight"}  # the second is the table too
    assert starred(groups, module, weight_decay=0.0) == {"linear.bias", "queries"}


def test_matrices_move_as_in_the_papers_of_muon_and_vectors_as_in_adamw() -> None:
    """One step by hand: the update is U V^T of the gradient (up to Newton-Schulz), as large as AdamW's, plus decay."""
    torch.manual_seed(0)
    module = nn.Linear(48, 16)
    before, bias = module.weight.detach().clone(), module.bias.detach().clone()
    groups = parameter_groups(module, lr=0.01, weight_decay=0.1, matrices="muon")
    trained = optimizers(groups, betas=(0.9, 0.95), eps=1e-6)
    for optimizer in trained:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"]
    gradient = torch.randn(16, 48)
    module.weight.grad, module.bias.grad = gradient.clone(), torch.ones(16)
    for optimizer in trained:
        optimizer.step()
    moved = (before * (1 - 0.01 * 0.1) - module.weight.detach()) / (0.01 * 0.2 * 48**0.5)
    u, _, v = torch.linalg.svd(gradient, full_matrices=False)
    singular = torch.linalg.svdvals(moved)
    assert singular.min() > 0.6 and singular.max() < 1.3  # the quintic iteration aims at this interval, not at 1
    assert torch.nn.functional.cosine_similarity(moved.flatten(), (u @ v).flatten(), dim=0) > 0.95
    torch.testing.assert_close(bias - module.bias.detach(), torch.full((16,), 0.01), rtol=1e-4, atol=0)
