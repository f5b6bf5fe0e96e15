"""Integrated Gradients, of inputs and of layers, against Captum at equal steps and baselines, by every rule of both."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from torch import nn

from analyzer import differentiate, integrated_gradients
from converters import convert

# Ours, and Captum's.
RULES = {
    "gauss-legendre": "gausslegendre",
    "midpoint": "riemann_middle",
    "left": "riemann_left",
    "right": "riemann_right",
}
STEPS = 12


class Text(nn.Module):
    """Tokens, attention over them, a class."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(11, 8)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, activation="gelu")
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.words(tokens)).mean(1))


@functools.cache
def cnn() -> Any:
    torch.manual_seed(4)
    layers = [
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3),
    ]
    net = nn.Sequential(*layers, nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    x, baseline = torch.randn(3, 3, 10, 10), 0.5 * torch.randn(3, 3, 10, 10)
    return net, x, baseline, convert(net, x)


@functools.cache
def text() -> Any:
    torch.manual_seed(4)
    net, tokens = Text().eval(), torch.tensor([[1, 7, 2, 10, 4], [3, 3, 9, 5, 0]])
    return net, tokens, torch.zeros_like(tokens), convert(net, tokens)


@functools.cache
def on(backend: str, network: Callable[[], Any]) -> Any:
    """A network with its inputs and their baseline, bound to a backend."""
    net, x, baseline, model = network()
    return net, x, baseline, differentiate(model, backend)


def relative(found: np.ndarray, expected: torch.Tensor) -> float:
    truth = expected.detach().numpy()
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("backend", ["onnxruntime", "source"])
def test_inputs(backend, rule):
    net, x, baseline, fn = on(backend, cnn)
    peer = captum.attr.IntegratedGradients(net)
    expected, delta = peer.attribute(
        x, baseline, target=2, n_steps=STEPS, method=RULES[rule], return_convergence_delta=True
    )
    found = integrated_gradients(fn, x.numpy(), 2, baseline=baseline.numpy(), steps=STEPS, rule=rule)
    assert relative(found.attributions, expected) <= 1e-4
    np.testing.assert_allclose(found.delta, delta, atol=1e-5)


@pytest.mark.parametrize("backend", ["onnxruntime", "source"])
def test_captums_trapezoid_falls_short_by_one_step(backend):
    """It weighs n points by 1/n, those at the ends by half of it: its sum is short of the whole by 1/n."""
    net, x, baseline, fn = on(backend, cnn)
    expected = captum.attr.IntegratedGradients(net).attribute(
        x, baseline, target=2, n_steps=STEPS, method="riemann_trapezoid"
    )
    found = integrated_gradients(fn, x.numpy(), 2, baseline=baseline.numpy(), steps=STEPS, rule="trapezoid")
    assert relative(found.attributions, expected) > 0.05
    assert relative(found.attributions * (1 - 1 / STEPS), expected) <= 1e-4


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", ["2", "4"])
@pytest.mark.parametrize("backend", ["onnxruntime", "source"])
def test_layers_of_a_convolutional_network(backend, layer, rule):
    net, x, baseline, fn = on(backend, cnn)
    peer = captum.attr.LayerIntegratedGradients(net, net.get_submodule(layer))
    expected = peer.attribute(x, baseline, target=2, n_steps=STEPS, method=RULES[rule])
    starts = {"at": layer, "baseline_inputs": baseline.numpy()}
    found = integrated_gradients(fn, x.numpy(), 2, **starts, steps=STEPS, rule=rule)
    assert relative(found.attributions, expected) <= 1e-4


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("layer", ["words", "block"])
@pytest.mark.parametrize("backend", ["onnxruntime", "source"])
def test_layers_of_a_transformer(backend, layer, rule):
    net, tokens, padding, fn = on(backend, text)
    peer = captum.attr.LayerIntegratedGradients(net, net.get_submodule(layer))
    with torch.enable_grad():
        expected = peer.attribute(tokens, padding, target=1, n_steps=STEPS, method=RULES[rule])
    starts = {"at": layer, "baseline_inputs": padding.numpy()}
    found = integrated_gradients(fn, tokens.numpy(), 1, **starts, steps=STEPS, rule=rule)
    assert relative(found.attributions, expected) <= 1e-4
