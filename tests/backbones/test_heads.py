"""Connector, context readout and temperature against their written-out definitions."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from backbones.heads import Connector, ContextReadout, Temperature


def slow_pool(connector: Connector, patches: Tensor) -> Tensor:
    """Image by image, head by head."""
    value_path = connector.to_tokens
    d = value_path.to_output.in_features
    e = d // connector.heads
    query = connector.to_query(connector.norm_query(connector.query))
    pooled = []
    for image in patches:
        keys, values = connector.to_key(connector.norm_key(image)), value_path.to_value(value_path.norm_value(image))
        parts = []
        for h in range(connector.heads):
            one = slice(h * e, (h + 1) * e)
            attention = torch.softmax(torch.stack([query[one] @ key[one] / math.sqrt(e) for key in keys]), dim=0)
            parts.append(sum(a * value[one] for a, value in zip(attention, values, strict=True)))
        pooled.append(value_path.to_output(torch.cat(parts)))
    return torch.stack(pooled)


def test_connector_equals_the_written_out_form() -> None:
    connector = Connector(96, 128)
    assert connector.heads == 2
    patches = torch.randn(3, 5, 96)
    visual = connector(patches)
    torch.testing.assert_close(visual.pooled, slow_pool(connector, patches), atol=1e-5, rtol=1e-5)
    path = connector.to_tokens
    values = F.layer_norm(patches, (96,), path.norm_value.weight, path.norm_value.bias) @ path.to_value.weight.T
    tokens = (values + path.to_value.bias) @ path.to_output.weight.T
    torch.testing.assert_close(visual.tokens, tokens)


def test_uniform_attention_with_one_head_pools_the_mean_token() -> None:  # INV-LCL-10
    connector = Connector(96, 64)
    assert connector.heads == 1
    torch.nn.init.zeros_(connector.to_query.weight)
    visual = connector(torch.randn(4, 7, 96))
    torch.testing.assert_close(visual.pooled, visual.tokens.mean(dim=1), atol=1e-5, rtol=1e-5)


def test_query_path_gets_no_gradient_from_the_tokens() -> None:
    connector = Connector(96, 128)
    connector(torch.randn(2, 5, 96)).tokens.square().sum().backward()
    untouched = {name for name, p in connector.named_parameters() if p.grad is None}
    path = ("query", "norm_query.", "norm_key.", "to_query.", "to_key.")
    assert untouched == {name for name, _ in connector.named_parameters() if name.startswith(path)}
    connector(torch.randn(2, 5, 96)).pooled.square().sum().backward()
    # The key bias adds the same to all scores of a head: its gradient is zero by definition.
    assert all(p.grad.abs().sum() > 0 for name, p in connector.named_parameters() if name != "to_key.bias")


def test_connector_starts_as_specified() -> None:
    connector = Connector(1024, 768)
    assert connector.heads == 12
    assert connector.to_tokens.to_output.bias is None
    for linear in (connector.to_query, connector.to_key, connector.to_tokens.to_value):
        assert linear.bias.abs().max() == 0
    assert connector.query.std().item() == pytest.approx(1, abs=0.1)
    norms = [module for module in connector.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert [norm.normalized_shape for norm in norms] == [(1024,)] * 3
    visual = connector(torch.randn(4, 9, 1024))
    assert visual.tokens.norm(dim=-1).mean().item() == pytest.approx(9, abs=1)  # words: 0.02 sqrt(768) = 0.55


def test_connector_without_images() -> None:
    visual = Connector(96, 128)(torch.zeros(0, 5, 96))
    assert visual.tokens.shape == (0, 5, 128)
    assert visual.pooled.shape == (0, 128)


def test_connector_refuses_heads_that_do_not_divide() -> None:
    with pytest.raises(ValueError, match=r"200.*3 heads.*multiple of 64"):
        Connector(96, 200)


def test_context_readout() -> None:
    readout = ContextReadout(256)
    assert readout.proj.bias is None
    assert readout.proj.weight.std().item() == pytest.approx(256**-0.5, rel=0.02)
    states = torch.randn(3, 256) * 5 + 2
    torch.testing.assert_close(readout(states), F.layer_norm(states, (256,)) @ readout.proj.weight.T)


def test_temperature_stays_in_its_range() -> None:  # INV-T-1
    temperature = Temperature()
    assert temperature.scale().item() == pytest.approx(1 / 0.07)
    for step, bound in ((1e3, math.log(100)), (-1e3, 0.0)):
        optimiser = torch.optim.SGD(temperature.parameters(), lr=1.0)
        temperature.log_scale.grad = torch.tensor(-step)
        optimiser.step()
        temperature.clamp_()
        assert temperature.log_scale.item() == pytest.approx(bound)
        assert 1 <= temperature.scale().item() <= 100 + 1e-3
